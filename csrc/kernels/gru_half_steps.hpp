// The GRU with its reset gate before the product, R_n (r h'): a step in two halves, since that
// product needs a whole row of r h'.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/gru_step.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Both parts of a gate's sum of unit j.
template <class T, class Load>
FASTLSTM_INLINE Vec<T> gru_sum(const GruHalfStep<T>& s, Index row, Index gate, Index j, Load load) {
  const Index at = gate * s.stride + j;
  const Vec<T> x = load(s.from_x + row * s.ld_x + at);
  const Vec<T> h = load(s.from_h + row * s.ld_from_h + at);
  return s.bias != nullptr ? x + load(s.bias + gate * s.H + j) + h : x + h;
}

template <class T>
void gru_reset(const GruHalfStep<T>& s) noexcept {
  for (Index row = 0; row < s.rows; ++row) {
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> r = sigmoid(gru_sum(s, row, 0, j, load));
      const Vec<T> z = sigmoid(gru_sum(s, row, 1, j, load));
      store(z, s.from_h + row * s.ld_from_h + s.stride + j);
      store(r * load(s.h_prev + row * s.ld_h_prev + j), s.reset_h + row * s.ld_h_prev + j);
      if (s.gates == nullptr) return;
      store(r, s.gates + row * s.ld_gates + j);
      store(z, s.gates + row * s.ld_gates + s.H + j);
    });
  }
}

template <class T>
void gru_candidate(const GruHalfStep<T>& s) noexcept {
  for (Index row = 0; row < s.rows; ++row) {
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> z = load(s.from_h + row * s.ld_from_h + s.stride + j);
      const Vec<T> n = tanh(gru_sum(s, row, 2, j, load));
      const Vec<T> h = gru_hidden_state(z, n, load(s.h_prev + row * s.ld_h_prev + j));
      store(h, s.h + row * s.ld_h + j);
      if (s.output != nullptr) store(h, s.output[row] + j);
      if (s.gates != nullptr) store(n, s.gates + row * s.ld_gates + 2 * s.H + j);
    });
  }
}

template <class T>
void gru_candidate_backward(const GruHalfStepBackward<T>& s) noexcept {
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* gates = s.gates + row * 3 * H;
    T* d_past_R = s.d_past_R + row * H;
    T* d_gates = s.d_gates + row * 3 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> z = load(gates + H + j), n = load(gates + 2 * H + j);
      const Vec<T> dh = load(s.d_h + row * s.ld_d_h + j) + load(d_past_R + j);
      // h = (1 - z) n + z h'
      store(dh * (load(s.h_prev + row * H + j) - n) * (z * (one - z)), d_gates + H + j);
      store(dh * (one - z) * (one - n * n), d_gates + 2 * H + j);
      store(dh * z, d_past_R + j);
    });
  }
}

template <class T>
void gru_reset_backward(const GruHalfStepBackward<T>& s) noexcept {
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* d_reset = s.d_reset + row * s.ld_d_h;
    T* d_past_R = s.d_past_R + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> r = load(s.gates + row * 3 * H + j), h = load(s.h_prev + row * H + j);
      const Vec<T> d = load(d_reset + j);
      store(d * h * (r * (one - r)), s.d_gates + row * 3 * H + j);
      store(load(d_past_R + j) + d * r, d_past_R + j);
      store(r * h, s.reset_h + row * H + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

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
  return x + h;
}

template <class T, class Functions>
FASTLSTM_INLINE void gru_reset_of(const GruHalfStep<T>& s, const Functions& functions) {
  for (Index row = 0; row < s.rows; ++row) {
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> r = functions.saved_gate(gru_sum(s, row, 0, j, load));
      const Vec<T> z = functions.saved_gate(gru_sum(s, row, 1, j, load));
      const Vec<T> h = load(s.read_h + row * s.ld_h_prev + j);
      store(functions.gate(z), s.from_h + row * s.ld_from_h + s.stride + j);
      store(functions.gate(r) * h, s.reset_h + row * s.ld_h_prev + j);
      if (s.gates == nullptr) return;
      store(r, s.gates + row * s.ld_gates + j);
      store(z, s.gates + row * s.ld_gates + s.H + j);
    });
  }
}

template <class T, class Functions>
FASTLSTM_INLINE void gru_candidate_of(const GruHalfStep<T>& s, const Functions& functions) {
  for (Index row = 0; row < s.rows; ++row) {
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> z = load(s.from_h + row * s.ld_from_h + s.stride + j);
      const Vec<T> n = functions.saved_candidate(gru_sum(s, row, 2, j, load));
      const Vec<T> h =
          gru_hidden_state(z, functions.candidate(n), load(s.h_prev + row * s.ld_h_prev + j));
      store(h, s.h + row * s.ld_h + j);
      if (s.output != nullptr) store(h, s.output[row] + j);
      if (s.gates != nullptr) store(n, s.gates + row * s.ld_gates + 2 * s.H + j);
    });
  }
}

template <class T, class Functions>
FASTLSTM_INLINE void gru_candidate_backward_of(const GruHalfStepBackward<T>& s,
                                               const Functions& functions) {
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* gates = s.gates + row * 3 * H;
    T* d_h_past_R = s.d_h_past_R + row * H;
    T* d_gates = s.d_gates + row * 3 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> saved_z = load(gates + H + j), saved_n = load(gates + 2 * H + j);
      const Vec<T> z = functions.gate(saved_z), n = functions.candidate(saved_n);
      const Vec<T> dh = load(s.d_h + row * s.ld_d_h + j) + load(d_h_past_R + j);
      // h = (1 - z) n + z h'
      const Vec<T> dz = dh * (load(s.h_prev + row * H + j) - n);
      store(dz * functions.gate_slope(saved_z), d_gates + H + j);
      store(dh * (one - z) * functions.candidate_slope(saved_n), d_gates + 2 * H + j);
      store(dh * z, d_h_past_R + j);
    });
  }
}

template <class T, class Functions>
FASTLSTM_INLINE void gru_reset_backward_of(const GruHalfStepBackward<T>& s,
                                           const Functions& functions) {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* d_reset = s.d_reset + row * s.ld_d_h;
    T* d_h_past_R = s.d_h_past_R + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> saved_r = load(s.gates + row * 3 * H + j), r = functions.gate(saved_r);
      const Vec<T> d = load(d_reset + j);
      Vec<T> h = load(s.h_prev + row * H + j), dh = d * r;
      if (s.h_mask != nullptr) {
        const Vec<T> mask = load(s.h_mask + row * H + j);
        h = h * mask;
        dh = dh * mask;
      }
      store(d * h * functions.gate_slope(saved_r), s.d_gates + row * 3 * H + j);
      store(load(d_h_past_R + j) + dh, d_h_past_R + j);
      store(r * h, s.reset_h + row * H + j);
    });
  }
}

template <class T>
void gru_reset(const GruHalfStep<T>& s) noexcept {
  with_functions(s.options,
                 [&](const auto& functions) FASTLSTM_INLINE_LAMBDA { gru_reset_of(s, functions); });
}
template <class T>
void gru_candidate(const GruHalfStep<T>& s) noexcept {
  with_functions(s.options, [&](const auto& functions)
                                FASTLSTM_INLINE_LAMBDA { gru_candidate_of(s, functions); });
}
template <class T>
void gru_candidate_backward(const GruHalfStepBackward<T>& s) noexcept {
  with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
    gru_candidate_backward_of(s, functions);
  });
}
template <class T>
void gru_reset_backward(const GruHalfStepBackward<T>& s) noexcept {
  with_functions(s.options, [&](const auto& functions)
                                FASTLSTM_INLINE_LAMBDA { gru_reset_backward_of(s, functions); });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

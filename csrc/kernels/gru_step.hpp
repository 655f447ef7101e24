// The GRU with its reset gate after the product R_n h': one time step, and on tiles.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/gate_functions.hpp"
#include "kernels/step_row.hpp"
#include "kernels/step_tile.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// h from the update gate z, the candidate n and the hidden state of the step before.
template <class T>
FASTLSTM_INLINE Vec<T> gru_hidden_state(Vec<T> z, Vec<T> n, Vec<T> h_prev) {
  return fma(z, h_prev, (Vec<T>::broadcast(1) - z) * n);
}

/// Gates and hidden state from both parts of the pre-activations, in two passes, as with the LSTM:
/// first r, z and the sum of n, then n and h.
template <class T, class Functions>
void gru_finish(const CellStepTile<T>& s, const TileSums<T, 3>& sums, const Functions& functions) {
  constexpr Index kLanes = Vec<T>::kLanes;
  sums.for_each_unit_block([&](Index row, Index block, const T* x, T* h) FASTLSTM_INLINE_LAMBDA {
    const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
      return Vec<T>::load(x + gate * kLanes) + Vec<T>::load(h + gate * kLanes);
    };
    const Index unit = block * kLanes;
    if (s.gates != nullptr) {
      fetch_to_save(s.gates + row * s.ld_gates + unit + sums.to_next * kLanes, 4, s.H);
    }
    const Vec<T> r = functions.saved_gate(sum(0)), z = functions.saved_gate(sum(1));
    const Vec<T> m = Vec<T>::load(h + 2 * kLanes) + Vec<T>::load(s.bias_h + unit);
    z.store(h + kLanes);
    fma(functions.gate(r), m, Vec<T>::load(x + 2 * kLanes)).store(h + 2 * kLanes);
    if (s.gates != nullptr) {
      const Index n = s.H - unit;
      T* gates = s.gates + row * s.ld_gates + unit;
      store_left(r, gates, n);
      store_left(z, gates + s.H, n);
      store_left(m, gates + 3 * s.H, n);
    }
  });
  sums.for_each_unit_block([&](Index row, Index block, const T*, T* kept) FASTLSTM_INLINE_LAMBDA {
    const Index unit = block * kLanes, left = s.H - unit;
    const Vec<T> z = functions.gate(Vec<T>::load(kept + kLanes));
    const Vec<T> n = functions.saved_candidate(Vec<T>::load(kept + 2 * kLanes));
    const Vec<T> h = gru_hidden_state(z, functions.candidate(n),
                                      Vec<T>::load(s.h_past_R + row * s.ld_h_prev + unit));
    h.store(s.h + row * s.ld_h + unit);
    if (s.output != nullptr) store_left(h, s.output[row] + unit, left);
    if (s.gates != nullptr) store_left(n, s.gates + row * s.ld_gates + 2 * s.H + unit, left);
  });
}

/// The plain GRU in a step of one row.
template <class T>
struct GruRow {
  static constexpr int kVectors = 3;
  struct Kept {
    Vec<T> z, n;  // n: its sum
  };

  static FASTLSTM_INLINE Kept start(const CellStepTile<T>& s, Index block, const Vec<T>* x,
                                    const Vec<T>* h) {
    const Vec<T> r = sigmoid(x[0] + h[0]), z = sigmoid(x[1] + h[1]);
    const Vec<T> m = h[2] + Vec<T>::load(s.bias_h + block * Vec<T>::kLanes);
    return {z, fma(r, m, x[2])};
  }
  static FASTLSTM_INLINE void finish(const CellStepTile<T>& s, Index block, const Kept& kept) {
    const Index unit = block * Vec<T>::kLanes;
    const Vec<T> h_prev = Vec<T>::load(s.h_past_R + unit);
    write_row_h(s, gru_hidden_state(kept.z, tanh(kept.n), h_prev), unit);
  }
};

template <class T, class W = FullWeights<T>>
void gru_step_tile(const CellStepTile<T>& s) noexcept {
  if (is_plain_row(s)) return step_row<GruRow<T>, W>(s);
  step_tile<3, W>(s, [&](const TileSums<T, 3>& sums) FASTLSTM_INLINE_LAMBDA {
    with_functions(s.options, [&](const auto& functions)
                                  FASTLSTM_INLINE_LAMBDA { gru_finish(s, sums, functions); });
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

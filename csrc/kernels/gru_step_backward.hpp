// The gradient of one GRU time step, reset gate after the product.
#pragma once

#include "kernels/gate_functions.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T, class Functions>
FASTLSTM_INLINE void gru_step_backward_of(const CellStepBackward<T>& s,
                                          const Functions& functions) {
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* gates = s.gates + row * 4 * H;
    const T* h_prev = s.h_prev + row * H;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_h_past_R = s.d_h_past_R + row * H;
    T* d_gates = s.d_gates + row * 3 * H;
    T* d_from_h = s.d_from_h + row * 3 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> saved_r = load(gates + j), r = functions.gate(saved_r);
      const Vec<T> saved_z = load(gates + H + j), z = functions.gate(saved_z);
      const Vec<T> saved_n = load(gates + 2 * H + j), n = functions.candidate(saved_n);
      const Vec<T> m = load(gates + 3 * H + j);
      const Vec<T> dh = load(d_h + j) + load(d_h_past_R + j);
      // h = (1 - z) n + z h', n = tanh(W_n x + b_Wn + r m), m = R_n h' + b_Rn.
      const Vec<T> dn = dh * (one - z) * functions.candidate_slope(saved_n);
      const Vec<T> dr = dn * m * functions.gate_slope(saved_r);
      const Vec<T> dz = dh * (load(h_prev + j) - n) * functions.gate_slope(saved_z);
      store(dr, d_gates + j);
      store(dz, d_gates + H + j);
      store(dn, d_gates + 2 * H + j);
      store(dr, d_from_h + j);
      store(dz, d_from_h + H + j);
      store(dn * r, d_from_h + 2 * H + j);
      store(dh * z, d_h_past_R + j);
    });
  }
}

template <class T>
void gru_step_backward(const CellStepBackward<T>& s) noexcept {
  with_functions(s.options, [&](const auto& functions)
                                FASTLSTM_INLINE_LAMBDA { gru_step_backward_of(s, functions); });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// The gradient of one LSTM time step, all gates in one pass.
#pragma once

#include "kernels/lstm_step.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T, class Variant>
FASTLSTM_INLINE void lstm_gradient(const CellStepBackward<T>& s, const Variant& variant) {
  const auto& functions = variant.functions;
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1), zero = Vec<T>::broadcast(0);
  for (Index row = 0; row < s.rows; ++row) {
    const T* gates = s.gates + row * 4 * H;
    const T* c = s.memory + row * H;
    const T* c_before = s.memory_prev + row * H;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_c = s.d_memory + row * H;
    T* d_gates = s.d_gates + row * 4 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const LstmGates<T> saved = {load(gates + j), load(gates + H + j), load(gates + 2 * H + j),
                                  load(gates + 3 * H + j)};
      const LstmGates<T> gate = lstm_values(variant, saved);
      const Vec<T> o = functions.gate(saved.o);
      // h = o tanh(c): the gradient reaches c through tanh, and from the next step directly.
      // What zoneout left of c is not what h was made of.
      const Vec<T> c_prev = load(c_before + j);
      const Vec<T> new_c = Variant::kHasOptions ? lstm_cell(gate, c_prev) : load(c + j);
      const Vec<T> squashed = functions.hidden(new_c);
      if (s.hidden != nullptr) store(o * squashed, s.hidden + row * H + j);
      const Vec<T> dh = load(d_h + j);
      const Vec<T> d_a_o = dh * squashed * functions.gate_slope(saved.o);
      Vec<T> dc = load(d_c + j), d_c_prev = zero;
      if constexpr (Variant::kHasOptions) {
        if (variant.options->keep_c != nullptr) {  // c = keep c' + (1 - keep) new_c
          const Vec<T> keep = load(variant.options->keep_c + row * variant.options->ld_keep_c + j);
          d_c_prev = keep * dc;
          dc = (one - keep) * dc;
        }
      }
      dc = fma(dh * o, functions.hidden_slope(new_c, squashed), dc);
      if constexpr (Variant::kHasOptions) {
        // The sum of o reads c through its peephole.
        if (variant.options->peephole != nullptr) {
          dc = fma(d_a_o, load(variant.peephole(2) + j), dc);
        }
      }
      // c = f c' + i g
      const Vec<T> d_f = dc * c_prev;
      Vec<T> d_i = dc * gate.g, d_a_f = d_f * functions.gate_slope(saved.f);
      if constexpr (Variant::kHasOptions) {
        if (variant.options->input_forget) {  // f = 1 - i
          d_i = d_i - d_f;
          d_a_f = zero;
        }
      }
      const Vec<T> d_a_i = d_i * functions.gate_slope(saved.i);
      if constexpr (Variant::kHasOptions) {
        d_c_prev = fma(dc, gate.f, d_c_prev);
        if (variant.options->peephole != nullptr) {
          d_c_prev = fma(d_a_i, load(variant.peephole(0) + j), d_c_prev);
          d_c_prev = fma(d_a_f, load(variant.peephole(1) + j), d_c_prev);
          T* d_peephole = s.d_peephole + row * 3 * H;
          store(d_a_i * c_prev, d_peephole + j);
          store(d_a_f * c_prev, d_peephole + H + j);
          store(d_a_o * new_c, d_peephole + 2 * H + j);
        }
      } else {
        d_c_prev = dc * gate.f;
      }
      store(d_a_i, d_gates + j);
      store(d_a_f, d_gates + H + j);
      store(dc * gate.i * functions.candidate_slope(saved.g), d_gates + 2 * H + j);
      store(d_a_o, d_gates + 3 * H + j);
      store(d_c_prev, d_c + j);
    });
  }
}

template <class T>
void lstm_step_backward(const CellStepBackward<T>& s) noexcept {
  if (s.options == nullptr) return lstm_gradient(s, PlainLstm<T>());
  with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
    lstm_gradient(s, lstm_with_options(functions, s.options));
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

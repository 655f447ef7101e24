// The LSTM: the equations of one time step, for a vector of hidden units.
//
// They are written once, for two variants that the compiler knows: the plain LSTM, and that with
// options (other functions, clipped sums, coupled gates, peepholes, zoneout of c).
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/gate_functions.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// The gates of one vector of hidden units.
template <class T>
struct LstmGates {
  Vec<T> i, f, g, o;  // input gate, forget gate, candidate, output gate
};

/// i, f, g, o: pre-activations.
template <class T>
FASTLSTM_INLINE LstmGates<T> lstm_gates(Vec<T> i, Vec<T> f, Vec<T> g, Vec<T> o) {
  return {sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)};
}

/// The cell state, from that of the step before.
template <class T>
FASTLSTM_INLINE Vec<T> lstm_cell(const LstmGates<T>& gates, Vec<T> c_prev) {
  return fma(gates.f, c_prev, gates.i * gates.g);
}

/// The hidden state.
template <class T>
FASTLSTM_INLINE Vec<T> lstm_hidden_state(Vec<T> o, Vec<T> c) {
  return o * tanh(c);
}

/// The plain LSTM.
template <class T>
struct PlainLstm {
  static constexpr bool kHasOptions = false;
  UsualFunctions<T> functions;
  const StepOptions<T>* options = nullptr;
};

template <class T, class Functions>
struct LstmWithOptions {
  static constexpr bool kHasOptions = true;
  const Functions& functions;
  const StepOptions<T>* options;  // not null

  FASTLSTM_INLINE const T* peephole(Index gate) const {
    return options->peephole + gate * options->ld_peephole;
  }
};

template <class T, class Functions>
FASTLSTM_INLINE LstmWithOptions<T, Functions> lstm_with_options(const Functions& functions,
                                                                const StepOptions<T>* options) {
  return {functions, options};
}

/// What training saves of the gates, and the cell state before zoneout and after it.
template <class T>
struct LstmUnits {
  LstmGates<T> saved;
  Vec<T> c, kept;
};

/// The gates' values. saved: of i, f, g.
template <class T, class Variant>
FASTLSTM_INLINE LstmGates<T> lstm_values(const Variant& variant, const LstmGates<T>& saved) {
  LstmGates<T> gates = saved;
  gates.i = variant.functions.gate(saved.i);
  gates.f = variant.functions.gate(saved.f);
  gates.g = variant.functions.candidate(saved.g);
  if constexpr (Variant::kHasOptions) {
    if (variant.options->input_forget) gates.f = Vec<T>::broadcast(1) - gates.i;
  }
  return gates;
}

/// The units j... of a row, as far as c. a: the gates' sums, without peepholes; load: reads what
/// options have for each unit.
template <class T, class Variant, class Load>
FASTLSTM_INLINE LstmUnits<T> lstm_units(const Variant& variant, LstmGates<T> a, Vec<T> c_prev,
                                        Index row, Index j, Load load) {
  LstmUnits<T> u;
  if constexpr (Variant::kHasOptions) {
    if (variant.options->peephole != nullptr) {
      a.i = fma(load(variant.peephole(0) + j), c_prev, a.i);
      a.f = fma(load(variant.peephole(1) + j), c_prev, a.f);
    }
  }
  u.saved.i = variant.functions.saved_gate(a.i);
  u.saved.f = variant.functions.saved_gate(a.f);
  u.saved.g = variant.functions.saved_candidate(a.g);
  const LstmGates<T> gates = lstm_values(variant, u.saved);
  u.kept = u.c = lstm_cell(gates, c_prev);
  if constexpr (Variant::kHasOptions) {
    if (variant.options->input_forget) u.saved.f = gates.f;
    if (variant.options->peephole != nullptr) {
      a.o = fma(load(variant.peephole(2) + j), u.c, a.o);
    }
    if (variant.options->keep_c != nullptr) {
      const Vec<T> keep = load(variant.options->keep_c + row * variant.options->ld_keep_c + j);
      u.kept = fma(keep, c_prev, (Vec<T>::broadcast(1) - keep) * u.c);
    }
  }
  u.saved.o = variant.functions.saved_gate(a.o);
  return u;
}

/// h, from c before zoneout. saved_o: what training saves of the output gate.
template <class T, class Variant>
FASTLSTM_INLINE Vec<T> lstm_hidden(const Variant& variant, Vec<T> saved_o, Vec<T> c) {
  return variant.functions.gate(saved_o) * variant.functions.hidden(c);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// The functions of gates: the usual ones, or any of bounded sums.
#pragma once

#include "kernels/activation.hpp"
#include "kernels/arguments.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

// What training saves of a gate, and what follows from it: two forms of the same.
//
/// sigmoid and tanh of sums without a bound: the gates are saved, slopes follow from their values.
template <class T>
struct UsualFunctions {
  static FASTLSTM_INLINE Vec<T> saved_gate(Vec<T> sum) { return sigmoid(sum); }
  static FASTLSTM_INLINE Vec<T> saved_candidate(Vec<T> sum) { return tanh(sum); }
  static FASTLSTM_INLINE Vec<T> gate(Vec<T> saved) { return saved; }
  static FASTLSTM_INLINE Vec<T> candidate(Vec<T> saved) { return saved; }
  static FASTLSTM_INLINE Vec<T> hidden(Vec<T> c) { return tanh(c); }
  static FASTLSTM_INLINE Vec<T> gate_slope(Vec<T> saved) {
    return saved * (Vec<T>::broadcast(1) - saved);
  }
  static FASTLSTM_INLINE Vec<T> candidate_slope(Vec<T> saved) {
    return Vec<T>::broadcast(1) - saved * saved;
  }
  /// y: hidden(c)
  static FASTLSTM_INLINE Vec<T> hidden_slope(Vec<T>, Vec<T> y) { return candidate_slope(y); }
};

/// Any functions of bounded sums: the sums are saved, as not every slope follows from a value.
template <class T>
struct AnyFunctions {
  static FASTLSTM_INLINE Vec<T> saved_gate(Vec<T> sum) { return sum; }
  static FASTLSTM_INLINE Vec<T> saved_candidate(Vec<T> sum) { return sum; }
  FASTLSTM_INLINE Vec<T> gate(Vec<T> saved) const { return activate(options.gate, clipped(saved)); }
  FASTLSTM_INLINE Vec<T> candidate(Vec<T> saved) const {
    return activate(options.candidate, clipped(saved));
  }
  FASTLSTM_INLINE Vec<T> hidden(Vec<T> c) const { return activate(options.hidden, c); }
  FASTLSTM_INLINE Vec<T> gate_slope(Vec<T> saved) const {
    return clipped_slope(options.gate, saved);
  }
  FASTLSTM_INLINE Vec<T> candidate_slope(Vec<T> saved) const {
    return clipped_slope(options.candidate, saved);
  }
  FASTLSTM_INLINE Vec<T> hidden_slope(Vec<T> c, Vec<T>) const {
    return activation_slope(options.hidden, c);
  }

  FASTLSTM_INLINE Vec<T> clipped(Vec<T> sum) const {
    return max(min(sum, Vec<T>::broadcast(options.clip)), Vec<T>::broadcast(-options.clip));
  }
  /// Zero beyond the bounds.
  FASTLSTM_INLINE Vec<T> clipped_slope(const Activation& function, Vec<T> sum) const {
    const Vec<T> bounded = clipped(sum), slope = activation_slope(function, bounded);
    return {FASTLSTM_CHOOSE(sum.raw == bounded.raw, slope.raw, Vec<T>::broadcast(0).raw)};
  }

  const StepOptions<T>& options;
};

/// Calls body with the functions of these options; null: the usual ones.
template <class T, class Body>
FASTLSTM_INLINE void with_functions(const StepOptions<T>* s, Body body) {
  if (s == nullptr || s->usual_functions) {
    body(UsualFunctions<T>());
  } else {
    body(AnyFunctions<T>{*s});
  }
}

template <class T>
void activate_gates(const ActivateGates<T>& s) noexcept {
  const AnyFunctions<T> functions{*s.options};
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    T* gates = s.gates + row * s.ld_gates;
    for (Index gate = 0; gate < s.G; ++gate) {
      const bool coupled = s.options->input_forget && gate == 1;  // f = 1 - i
      for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
        T* at = gates + gate * H + j;
        if (coupled) {
          store(Vec<T>::broadcast(1) - load(gates + j), at);
        } else {
          store(gate == 2 ? functions.candidate(load(at)) : functions.gate(load(at)), at);
        }
      });
    }
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

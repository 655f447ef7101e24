// One unit of an LSTM with options, by its equations.
#pragma once

#include <algorithm>
#include <vector>

#include "kernel_tests.hpp"

/// Which options: of each two or more.
struct Choice {
  bool functions, input_forget, peephole, keep;
};

inline const Choice kChoices[] = {{false, false, false, false}, {false, true, false, true},
                                  {false, false, true, true},   {true, false, false, false},
                                  {true, true, true, false},    {true, true, true, true}};

/// Smooth functions but for the bound, which some of the sums of these tests are beyond. rows: of
/// zoneout.
template <class T>
fastlstm::StepOptions<T> options_of(const Choice& choice, const T* peephole, Index ld_peephole,
                                    const T* keep, Index ld_keep) {
  using fastlstm::ActivationKind;
  fastlstm::StepOptions<T> options{};
  options.usual_functions = !choice.functions;
  options.gate = {ActivationKind::kSoftsign};
  options.candidate = {ActivationKind::kScaledTanh, 0.5, 2};
  options.hidden = {ActivationKind::kSoftplus};
  options.clip = T(1.5);
  options.input_forget = choice.input_forget;
  options.peephole = choice.peephole ? peephole : nullptr;
  options.ld_peephole = ld_peephole;
  options.keep_c = choice.keep ? keep : nullptr;
  options.ld_keep_c = ld_keep;
  return options;
}

/// One unit: what its step reads besides sums, and the step.
struct OneUnit {
  Exact peephole[3];  // of i, f, o
  Exact keep;         // the part of c' in c

  struct Step {
    Exact sums[4];   // with peepholes
    Exact gates[4];  // i, f, g, o
    Exact c, h;
  };

  /// sums: without peepholes.
  template <class T>
  Step step(const fastlstm::StepOptions<T>& options, const Exact (&sums)[4], Exact c_prev) const {
    using fastlstm::Activation, fastlstm::ActivationKind;
    const Exact bound = options.usual_functions ? kInfinity<Exact> : Exact(options.clip);
    const auto function = [&](const Activation& any, const Activation& usual, Exact x) {
      return exact_activation(options.usual_functions ? usual : any, std::clamp(x, -bound, bound));
    };
    const Activation sigmoid{ActivationKind::kSigmoid}, tanh{ActivationKind::kTanh};
    Step s;
    s.sums[0] = sums[0] + peephole[0] * c_prev;
    s.sums[1] = sums[1] + peephole[1] * c_prev;
    s.sums[2] = sums[2];
    const Exact i = function(options.gate, sigmoid, s.sums[0]);
    const Exact f = options.input_forget ? 1 - i : function(options.gate, sigmoid, s.sums[1]);
    const Exact g = function(options.candidate, tanh, s.sums[2]);
    const Exact new_c = f * c_prev + i * g;
    s.sums[3] = sums[3] + peephole[2] * new_c;
    const Exact o = function(options.gate, sigmoid, s.sums[3]);
    s.h = o * exact_activation(options.usual_functions ? tanh : options.hidden, new_c);
    s.c = keep * c_prev + (1 - keep) * new_c;
    const Exact gates[] = {i, f, g, o};
    std::copy(gates, gates + 4, s.gates);
    return s;
  }

  /// What training saves of the gates.
  template <class T>
  static std::vector<Exact> saved(const fastlstm::StepOptions<T>& options, const Step& s) {
    std::vector<Exact> values(s.sums, s.sums + 4);
    if (options.usual_functions) values.assign(s.gates, s.gates + 4);
    if (options.input_forget) values[1] = s.gates[1];
    return values;
  }
};

template <class T>
OneUnit unit_of(const fastlstm::StepOptions<T>& options, Index row, Index j) {
  OneUnit unit{};
  for (Index k = 0; options.peephole != nullptr && k < 3; ++k) {
    unit.peephole[k] = options.peephole[k * options.ld_peephole + j];
  }
  if (options.keep_c != nullptr) unit.keep = options.keep_c[row * options.ld_keep_c + j];
  return unit;
}

// The LSTM's step and its gradient with options, against the equations of one unit and their
// differences.
#include <utility>

#include "tile_step.hpp"

using namespace fastlstm;

namespace {

/// Which options: of each two or more.
struct Choice {
  bool functions, input_forget, peephole, keep;
};

const Choice kChoices[] = {{false, false, false, false}, {false, true, false, true},
                           {false, false, true, true},   {true, false, false, false},
                           {true, true, true, false},    {true, true, true, true}};

/// Smooth functions but for the bound, which some of the sums of these tests are beyond. rows: of
/// zoneout.
template <class T>
StepOptions<T> options_of(const Choice& choice, const T* peephole, Index ld_peephole, const T* keep,
                          Index ld_keep) {
  StepOptions<T> options{};
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
  Step step(const StepOptions<T>& options, const Exact (&sums)[4], Exact c_prev) const {
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
  static std::vector<Exact> saved(const StepOptions<T>& options, const Step& s) {
    std::vector<Exact> values(s.sums, s.sums + 4);
    if (options.usual_functions) values.assign(s.gates, s.gates + 4);
    if (options.input_forget) values[1] = s.gates[1];
    return values;
  }
};

template <class T>
OneUnit unit_of(const StepOptions<T>& options, Index row, Index j) {
  OneUnit unit{};
  for (Index k = 0; options.peephole != nullptr && k < 3; ++k) {
    unit.peephole[k] = options.peephole[k * options.ld_peephole + j];
  }
  if (options.keep_c != nullptr) unit.keep = options.keep_c[row * options.ld_keep_c + j];
  return unit;
}

/// The derivative of f at x by two central differences (Richardson), within 1e-12. The step is so
/// small that no sum of these tests is that near the bound.
template <class F>
Exact derivative(F f, Exact x) {
  const auto difference = [&](Exact h) { return (f(x + h) - f(x - h)) / (2 * h); };
  constexpr Exact kStep = 1e-5L;
  return (4 * difference(kStep / 2) - difference(kStep)) / 3;
}

template <class T>
void check_backward_at(const KernelTable<T>& table, const Choice& choice, Index rows, Index H,
                       Random& random) {
  const Index ld = H + 3;
  const Guarded<T> peephole(random.values<T>(3 * ld, -1, 1)),
      keep(random.values<T>(rows * ld, 0, 1));
  const StepOptions<T> options = options_of(choice, peephole.data(), ld, keep.data(), ld);
  const std::vector<T> sums = random.values<T>(rows * 4 * H, -2, 2);
  const Guarded<T> c_prev(random.values<T>(rows * H, -2, 2));
  const Guarded<T> d_h(random.values<T>(rows * ld, -1, 1)), past(random.values<T>(rows * H, -1, 1));
  Guarded<T> gates(rows * 4 * H), c(rows * H), d_c(past), d_gates(rows * 4 * H);
  Guarded<T> hidden(rows * H), d_peephole(rows * 3 * H);
  const auto sums_of = [&](Index row, Index j, Exact(&to)[4]) {
    for (Index k = 0; k < 4; ++k) to[k] = sums[static_cast<std::size_t>(row * 4 * H + k * H + j)];
  };
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      const OneUnit unit = unit_of(options, row, j);
      Exact a[4];
      sums_of(row, j, a);
      const OneUnit::Step s = unit.step(options, a, c_prev[row * H + j]);
      const std::vector<Exact> saved = OneUnit::saved(options, s);
      for (Index k = 0; k < 4; ++k) {
        gates[row * 4 * H + k * H + j] = static_cast<T>(saved[static_cast<std::size_t>(k)]);
      }
      c[row * H + j] = static_cast<T>(s.c);
    }
  }
  CellStepBackward<T> call{};
  call.rows = rows;
  call.H = H;
  call.gates = gates.data();
  call.c = c.data();
  call.c_prev = c_prev.data();
  call.d_h = d_h.data();
  call.ld_d_h = ld;
  call.d_past_R = d_c.data();
  call.d_gates = d_gates.data();
  call.hidden = hidden.data();
  call.options = &options;
  call.d_peephole = choice.peephole ? d_peephole.data() : nullptr;
  table.lstm_step_backward(call);
  for (const Guarded<T>* array : {&d_c, &d_gates, &hidden, &d_peephole}) array->check_guards();
  const Exact tolerance = 64 * kEpsilon<T> + 1e-12L;
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const Index at = row * H + j;
      const OneUnit unit = unit_of(options, row, j);
      Exact a[4];
      sums_of(row, j, a);
      const auto loss = [&](const OneUnit& u, const Exact(&of)[4], Exact c_before) {
        const OneUnit::Step s = u.step(options, of, c_before);
        return d_h[row * ld + j] * s.h + past[at] * s.c;
      };
      CHECK_CLOSE(hidden[at], unit.step(options, a, c_prev[at]).h, tolerance);
      for (Index k = 0; k < 4; ++k) {
        const auto of_sum = [&](Exact x) {
          Exact changed[4];
          std::copy(a, a + 4, changed);
          changed[k] = x;
          return loss(unit, changed, c_prev[at]);
        };
        CHECK_CLOSE(d_gates[row * 4 * H + k * H + j], derivative(of_sum, a[k]), tolerance);
      }
      const auto of_c = [&](Exact x) { return loss(unit, a, x); };
      CHECK_CLOSE(d_c[at], derivative(of_c, c_prev[at]), tolerance);
      for (Index k = 0; choice.peephole && k < 3; ++k) {
        const auto of_peephole = [&](Exact x) {
          OneUnit changed = unit;
          changed.peephole[k] = x;
          return loss(changed, a, c_prev[at]);
        };
        CHECK_CLOSE(d_peephole[row * 3 * H + k * H + j], derivative(of_peephole, unit.peephole[k]),
                    tolerance);
      }
    }
  }
}

}  // namespace

TABLE_TEST(lstm_step_tile_with_options) {
  for (const Choice& choice : kChoices) {
    NOTE("choice " << &choice - kChoices);
    for (const Index rows : {1, 3, 7}) {
      for (const Index H : kSizes) {
        TileStep<T> step(table, table.lstm_step_tile, 4, rows, H, 3, H);
        const Index ld = step.padded + 1;
        const Guarded<T> peephole(step.random.template values<T>(3 * ld, -1, 1));
        const Guarded<T> keep(step.random.template values<T>(rows * ld, 0, 1));
        step.has_options = true;
        step.options = options_of(choice, peephole.data(), ld, keep.data(), ld);
        check_step_tile(step, [](const TileStep<T>& s, Index row, Index j) {
          const Exact sums[] = {s.sum(row, 0, j), s.sum(row, 1, j), s.sum(row, 2, j),
                                s.sum(row, 3, j)};
          const OneUnit::Step made = unit_of(s.options, row, j).step(s.options, sums, s.c(row, j));
          return Unit{made.h, made.c, OneUnit::saved(s.options, made)};
        });
      }
    }
  }
}

TABLE_TEST(lstm_step_backward_with_options) {
  for (const Choice& choice : kChoices) {
    NOTE("choice " << &choice - kChoices);
    for_each_size([&](Index rows, Index H, Random& random) {
      check_backward_at(table, choice, rows, H, random);
    });
  }
}

// The gradient of the LSTM's step.
#include "lstm_unit.hpp"

using namespace fastlstm;

namespace {

template <class T>
void check_lstm_step_backward_at(void (*kernel)(const CellStepBackward<T>&) noexcept, Index rows,
                                 Index H, bool in_place) {
  NOTE("rows = " << rows << ", H = " << H << ", in_place = " << in_place);
  Random random(static_cast<unsigned>(1000 * rows + H));
  std::vector<T> activated = random.values<T>(rows * 4 * H, 0, 1);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {  // g is a tanh
      T& g = activated[static_cast<std::size_t>(row * 4 * H + 2 * H + j)];
      g = 2 * g - 1;
    }
  }
  Guarded<T> gates(activated);
  const Guarded<T> c(random.values<T>(rows * H, -2, 2)), c_prev(random.values<T>(rows * H, -2, 2));
  const Index ld_d_h = H + 3;
  const Guarded<T> d_h(random.values<T>(rows * ld_d_h, -1, 1));
  const std::vector<T> d_c_next = random.values<T>(rows * H, -1, 1);
  Guarded<T> d_c(d_c_next), other(rows * 4 * H), hidden(rows * H);
  Guarded<T>& d_gates = in_place ? gates : other;
  CellStepBackward<T> call{};
  call.rows = rows;
  call.H = H;
  call.gates = gates.data();
  call.memory = c.data();
  call.memory_prev = c_prev.data();
  call.d_h = d_h.data();
  call.ld_d_h = ld_d_h;
  call.d_memory = d_c.data();
  call.d_gates = d_gates.data();
  if (in_place) call.hidden = hidden.data();
  kernel(call);
  hidden.check_guards();
  d_c.check_guards();
  d_gates.check_guards();
  const Exact tolerance = 16 * kEpsilon<T>;
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const Index at = row * H + j, first = row * 4 * H + j;
      const auto gate = [&](Index k) {
        return Exact(activated[static_cast<std::size_t>(first + k * H)]);
      };
      const Exact i = gate(0), f = gate(1), g = gate(2), o = gate(3), tanh_c = exact_tanh(c[at]);
      const Exact dh = d_h[row * ld_d_h + j];
      const Exact dc = dh * o * (1 - tanh_c * tanh_c) + d_c_next[static_cast<std::size_t>(at)];
      CHECK_CLOSE(d_gates[first], dc * g * i * (1 - i), tolerance);
      CHECK_CLOSE(d_gates[first + H], dc * c_prev[at] * f * (1 - f), tolerance);
      CHECK_CLOSE(d_gates[first + 2 * H], dc * i * (1 - g * g), tolerance);
      CHECK_CLOSE(d_gates[first + 3 * H], dh * tanh_c * o * (1 - o), tolerance);
      CHECK_CLOSE(d_c[at], dc * f, tolerance);
      if (in_place) CHECK_CLOSE(hidden[at], o * tanh_c, tolerance);
    }
  }
}

}  // namespace

KERNEL_TEST(lstm_step_backward) {
  const auto kernel = table.lstm_step_backward;
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      check_lstm_step_backward_at(kernel, rows, H, false);
      check_lstm_step_backward_at(kernel, rows, H, true);
    }
  }
}

namespace {

/// The derivative of f at x by two central differences (Richardson), within 1e-12. The step is so
/// small that no sum of these tests is that near the bound.
template <class F>
Exact derivative(F f, Exact x) {
  const auto difference = [&](Exact h) { return (f(x + h) - f(x - h)) / (2 * h); };
  constexpr Exact kStep = 1e-5L;
  return (4 * difference(kStep / 2) - difference(kStep)) / 3;
}

template <class T>
void check_backward_with_options_at(const KernelTable<T>& table, const Choice& choice, Index rows,
                                    Index H, Random& random) {
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
  call.memory = c.data();
  call.memory_prev = c_prev.data();
  call.d_h = d_h.data();
  call.ld_d_h = ld;
  call.d_memory = d_c.data();
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

// Against differences of the equations of one unit.
TABLE_TEST(lstm_step_backward_with_options) {
  for (const Choice& choice : kChoices) {
    NOTE("choice " << &choice - kChoices);
    for_each_size([&](Index rows, Index H, Random& random) {
      check_backward_with_options_at(table, choice, rows, H, random);
    });
  }
}

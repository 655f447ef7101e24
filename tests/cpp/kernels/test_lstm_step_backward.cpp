// The gradient of the LSTM's step.
#include "kernel_tests.hpp"

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
  call.c = c.data();
  call.c_prev = c_prev.data();
  call.d_h = d_h.data();
  call.ld_d_h = ld_d_h;
  call.d_past_R = d_c.data();
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

// The RNN's step on tiles, and its gradient.
#include "tile_step.hpp"

using namespace fastlstm;

namespace {

/// slope: of the function, from its value.
template <class T, class Slope>
void check_rnn_step_backward(void (*kernel)(const CellStepBackward<T>&) noexcept, Slope slope) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index ld = H + 3;
    std::vector<T> values = random.values<T>(rows * ld, -1, 1);
    if (!values.empty()) values[0] = 0;
    const Guarded<T> h(values), d_h(random.values<T>(rows * ld, -1, 1));
    Guarded<T> d_gates(rows * H);
    CellStepBackward<T> call{};
    call.rows = rows;
    call.H = H;
    call.h = h.data();
    call.ld_h = ld;
    call.d_h = d_h.data();
    call.ld_d_h = ld;
    call.d_gates = d_gates.data();
    kernel(call);
    d_gates.check_guards();
    for (Index at = 0; at < rows * H; ++at) {
      const Index from = at / H * ld + at % H;
      CHECK_CLOSE(d_gates[at], d_h[from] * slope(Exact(h[from])), 4 * kEpsilon<T>);
    }
    // Values that were saved, as h is another.
    const Guarded<T> saved(random.values<T>(rows * H, -1, 1));
    call.gates = saved.data();
    kernel(call);
    for (Index at = 0; at < rows * H; ++at) {
      const Exact want = d_h[at / H * ld + at % H] * slope(Exact(saved[at]));
      CHECK_CLOSE(d_gates[at], want, 4 * kEpsilon<T>);
    }
  });
}

}  // namespace

KERNEL_TEST(rnn_tanh_step_tile) {
  check_step_tiles(table, table.rnn_tanh_step_tile, 1, [](const auto& step, Index row, Index j) {
    const Exact h = exact_tanh(step.sum(row, 0, j));
    return Unit{h, 0, {h}};
  });
}

KERNEL_TEST(rnn_relu_step_tile) {
  check_step_tiles(table, table.rnn_relu_step_tile, 1, [](const auto& step, Index row, Index j) {
    const Exact h = std::max<Exact>(0, step.sum(row, 0, j));
    return Unit{h, 0, {h}};
  });
}

KERNEL_TEST(rnn_tanh_step_backward) {
  check_rnn_step_backward<T>(table.rnn_tanh_step_backward, [](Exact h) { return 1 - h * h; });
}

KERNEL_TEST(rnn_relu_step_backward) {
  check_rnn_step_backward<T>(table.rnn_relu_step_backward,
                             [](Exact h) { return h > 0 ? Exact(1) : Exact(0); });
}

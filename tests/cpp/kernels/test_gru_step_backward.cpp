// The gradient of the GRU's step.
#include "kernel_tests.hpp"

using namespace fastlstm;

KERNEL_TEST(gru_step_backward) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Guarded<T> gates(random.values<T>(rows * 4 * H, -1, 1));
    const Guarded<T> h_prev(random.values<T>(rows * H, -1, 1));
    const Index ld = H + 3;
    const Guarded<T> d_h(random.values<T>(rows * ld, -1, 1));
    const std::vector<T> past = random.values<T>(rows * H, -1, 1);
    Guarded<T> d_past(past), d_gates(rows * 3 * H), d_from_h(rows * 3 * H);
    CellStepBackward<T> call{};
    call.rows = rows;
    call.H = H;
    call.gates = gates.data();
    call.h_prev = h_prev.data();
    call.d_h = d_h.data();
    call.ld_d_h = ld;
    call.d_h_past_R = d_past.data();
    call.d_gates = d_gates.data();
    call.d_from_h = d_from_h.data();
    table.gru_step_backward(call);
    for (const Guarded<T>* array : {&d_past, &d_gates, &d_from_h}) array->check_guards();
    for (Index row = 0; row < rows; ++row) {
      for (Index j = 0; j < H; ++j) {
        NOTE("row = " << row << ", j = " << j);
        const auto gate = [&](Index k) { return Exact(gates[row * 4 * H + k * H + j]); };
        const Exact r = gate(0), z = gate(1), n = gate(2), m = gate(3);
        const Exact dh = Exact(d_h[row * ld + j]) + past[static_cast<std::size_t>(row * H + j)];
        const Exact dn = dh * (1 - z) * (1 - n * n), dr = dn * m * r * (1 - r);
        const Exact dz = dh * (h_prev[row * H + j] - n) * z * (1 - z);
        const Exact tolerance = 32 * kEpsilon<T>;
        const Index at = row * 3 * H + j;
        CHECK_CLOSE(d_gates[at], dr, tolerance);
        CHECK_CLOSE(d_gates[at + H], dz, tolerance);
        CHECK_CLOSE(d_gates[at + 2 * H], dn, tolerance);
        CHECK_CLOSE(d_from_h[at], dr, tolerance);
        CHECK_CLOSE(d_from_h[at + H], dz, tolerance);
        CHECK_CLOSE(d_from_h[at + 2 * H], dn * r, tolerance);
        CHECK_CLOSE(d_past[row * H + j], dh * z, tolerance);
      }
    }
  });
}

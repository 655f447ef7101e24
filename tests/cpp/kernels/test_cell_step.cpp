// The steps that take both parts of the pre-activations as sums: CellStep, of all cells.
#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

template <class T>
void check_lstm_step_at(void (*kernel)(const CellStep<T>&) noexcept, Index rows, Index H,
                        bool save_gates) {
  NOTE("rows = " << rows << ", H = " << H << ", save_gates = " << save_gates);
  Random random(static_cast<unsigned>(100 * rows + H));
  const Guarded<T> bias(random.values<T>(4 * H, -1, 1));
  const std::vector<T> inputs = random.values<T>(rows * 4 * H, -6, 6);
  const Guarded<T> from_h(random.values<T>(rows * 4 * H, -1, 1));
  const std::vector<T> c_prev = random.values<T>(rows * H, -2, 2);
  Guarded<T> gates(inputs), c(c_prev), h(rows * H);
  kernel({rows, H, save_gates, bias.data(), nullptr, from_h.data(), gates.data(), 4 * H, c.data(),
          h.data()});
  gates.check_guards();
  c.check_guards();
  h.check_guards();
  const Exact tolerance = 16 * kEpsilon<T>;
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const auto gate = [&](Index k) { return row * 4 * H + k * H + j; };
      const auto input = [&](Index k) {
        return Exact(inputs[static_cast<std::size_t>(gate(k))]) + bias[k * H + j] + from_h[gate(k)];
      };
      const Exact i = exact_sigmoid(input(0)), f = exact_sigmoid(input(1));
      const Exact g = exact_tanh(input(2)), o = exact_sigmoid(input(3));
      const Exact want_c = f * c_prev[static_cast<std::size_t>(row * H + j)] + i * g;
      CHECK_CLOSE(c[row * H + j], want_c, tolerance);
      CHECK_CLOSE(h[row * H + j], o * exact_tanh(want_c), tolerance);
      if (!save_gates) continue;
      CHECK_CLOSE(gates[gate(0)], i, tolerance);
      CHECK_CLOSE(gates[gate(1)], f, tolerance);
      CHECK_CLOSE(gates[gate(2)], g, tolerance);
      CHECK_CLOSE(gates[gate(3)], o, tolerance);
    }
  }
}

/// One row whose pre-activations are the same four values for every unit.
template <class T>
void check_lstm_step_limits(void (*kernel)(const CellStep<T>&) noexcept, T i, T f, T g, T o,
                            T c_prev, T want_c, T want_h) {
  constexpr Index H = 21;
  NOTE("i f g o c' = " << i << " " << f << " " << g << " " << o << " " << c_prev);
  const std::vector<T> zeros(4 * H, 0);
  std::vector<T> gates, c(H, c_prev), h(H);
  for (const T value : {i, f, g, o}) gates.insert(gates.end(), H, value);
  kernel(
      {1, H, false, zeros.data(), nullptr, zeros.data(), gates.data(), 4 * H, c.data(), h.data()});
  for (std::size_t j = 0; j < H; ++j) {
    CHECK_EQUAL(c[j], want_c);
    CHECK_EQUAL(h[j], want_h);
  }
}

/// A NaN reaches its own unit and no other.
template <class T>
void check_lstm_step_nan(void (*kernel)(const CellStep<T>&) noexcept) {
  constexpr Index H = 21;
  for (std::size_t at = 0; at < 5 * H; ++at) {
    NOTE("NaN at " << at);
    std::vector<T> zeros(4 * H, 0), gates(4 * H, T(0.5)), c(H, T(0.5)), h(H);
    (at < 4 * H ? gates[at] : c[at - 4 * H]) = kNaN<T>;
    kernel(
        {1, H, true, zeros.data(), nullptr, zeros.data(), gates.data(), 4 * H, c.data(), h.data()});
    const bool output_gate = at >= 3 * H && at < 4 * H;
    for (std::size_t j = 0; j < H; ++j) {
      const bool here = j == at % H;
      CHECK_EQUAL(std::isnan(h[j]), here);
      CHECK_EQUAL(std::isnan(c[j]), here && !output_gate);
    }
  }
}

template <class T, class Function>
void check_rnn_step(void (*kernel)(const CellStep<T>&) noexcept, Function function) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Guarded<T> bias(random.values<T>(H, -1, 1)), from_h(random.values<T>(rows * H, -1, 1));
    const std::vector<T> from_x = random.values<T>(rows * H, -4, 4);
    for (const bool save : {false, true}) {
      NOTE("save " << save);
      Guarded<T> gates(from_x), h(rows * H);
      kernel(
          {rows, H, save, bias.data(), nullptr, from_h.data(), gates.data(), H, nullptr, h.data()});
      gates.check_guards();
      h.check_guards();
      for (Index at = 0; at < rows * H; ++at) {
        const T x = from_x[static_cast<std::size_t>(at)];
        CHECK_CLOSE(h[at], function(Exact(x) + bias[at % H] + from_h[at]), 16 * kEpsilon<T>);
        CHECK_EQUAL(gates[at], save ? h[at] : x);
      }
    }
  });
}

}  // namespace

KERNEL_TEST(lstm_step) {
  const auto kernel = table.lstm_step;
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      check_lstm_step_at(kernel, rows, H, false);
      check_lstm_step_at(kernel, rows, H, true);
    }
  }
  constexpr T inf = kInfinity<T>;
  check_lstm_step_limits<T>(kernel, -inf, inf, 0, -inf, T(3), T(3), 0);  // keeps c, shows nothing
  check_lstm_step_limits<T>(kernel, -inf, -inf, 0, inf, T(3), 0, 0);     // forgets
  check_lstm_step_limits<T>(kernel, -inf, inf, 0, inf, inf, inf, 1);  // an infinite c saturates h
  check_lstm_step_limits<T>(kernel, inf, -inf, -inf, -inf, T(3), T(-1), T(-0.0));
  check_lstm_step_nan(kernel);
}

KERNEL_TEST(gru_step) {
  for_each_size([&](Index rows, Index H, Random& random) {
    for (const bool save : {false, true}) {
      const Index ld = save ? 4 * H : 3 * H;
      const Guarded<T> bias(random.values<T>(3 * H, -1, 1)), bias_h(random.values<T>(H, -1, 1));
      const Guarded<T> from_h(random.values<T>(rows * 3 * H, -1, 1));
      const std::vector<T> from_x = random.values<T>(rows * ld, -4, 4);
      const std::vector<T> h_prev = random.values<T>(rows * H, -1, 1);
      Guarded<T> gates(from_x), h(h_prev);
      table.gru_step({rows, H, save, bias.data(), bias_h.data(), from_h.data(), gates.data(), ld,
                      nullptr, h.data()});
      gates.check_guards();
      h.check_guards();
      for (Index row = 0; row < rows; ++row) {
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", save " << save);
          const auto x = [&](Index k) {
            return Exact(from_x[static_cast<std::size_t>(row * ld + k * H + j)]) + bias[k * H + j];
          };
          const auto r_h = [&](Index k) { return Exact(from_h[row * 3 * H + k * H + j]); };
          const Exact r = exact_sigmoid(x(0) + r_h(0)), z = exact_sigmoid(x(1) + r_h(1));
          const Exact m = r_h(2) + bias_h[j], n = exact_tanh(x(2) + r * m);
          const Exact tolerance = 16 * kEpsilon<T>;
          const Exact before = h_prev[static_cast<std::size_t>(row * H + j)];
          CHECK_CLOSE(h[row * H + j], (1 - z) * n + z * before, tolerance);
          if (!save) continue;
          const Exact saved[] = {r, z, n, m};
          for (Index k = 0; k < 4; ++k)
            CHECK_CLOSE(gates[row * ld + k * H + j], saved[k], tolerance);
        }
      }
    }
  });
}

KERNEL_TEST(rnn_tanh_step) { check_rnn_step<T>(table.rnn_tanh_step, exact_tanh); }

KERNEL_TEST(rnn_relu_step) {
  check_rnn_step<T>(table.rnn_relu_step, [](Exact a) { return std::max<Exact>(a, 0); });
}

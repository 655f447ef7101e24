// The halves of the step of a GRU that resets before its product, and of their gradient.
#include <utility>
#include <vector>

#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

/// Other functions of bounded sums, which some of the sums of these tests are beyond.
template <class T>
StepOptions<T> other_functions() {
  return {false,
          {ActivationKind::kSoftsign},
          {ActivationKind::kScaledTanh, 0.5, 2},
          {ActivationKind::kTanh},
          T(1.5),
          false,
          nullptr,
          0,
          nullptr,
          0};
}

/// Both halves of a step, on the units first <= j < H alone, against the formulas.
template <class T>
void check_gru_halves(const KernelTable<T>& table, const StepOptions<T>* options) {
  NOTE("other functions " << (options != nullptr));
  const auto function = [options](Index gate, Exact sum) {
    if (options == nullptr) return gate < 2 ? exact_sigmoid(sum) : exact_tanh(sum);
    const Exact clip = options->clip;
    return exact_activation(gate < 2 ? options->gate : options->candidate,
                            std::clamp(sum, -clip, clip));
  };
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index first = H / 3, stride = H + 2, ld = 3 * stride, ld_h = H + 1;
    const Guarded<T> from_x(random.values<T>(rows * ld, -4, 4));
    const std::vector<T> sums = random.values<T>(rows * ld, -1, 1);
    const Guarded<T> h_prev(random.values<T>(rows * ld_h, -1, 1));
    const Guarded<T> read_h(random.values<T>(rows * ld_h, -1, 1));
    Guarded<T> from_h(sums), reset_h(rows * ld_h), h(rows * ld_h), gates(rows * 3 * H);
    GruHalfStep<T> s{};
    s.rows = rows;
    s.first = first;
    s.end = s.H = H;
    s.stride = stride;
    s.from_x = from_x.data();
    s.ld_x = s.ld_from_h = ld;
    s.from_h = from_h.data();
    s.h_prev = h_prev.data();
    s.read_h = read_h.data();
    s.ld_h_prev = s.ld_h = ld_h;
    s.reset_h = reset_h.data();
    s.h = h.data();
    s.gates = gates.data();
    s.ld_gates = 3 * H;
    s.options = options;
    table.gru_reset(s);
    table.gru_candidate(s);
    for (const Guarded<T>* a : {&from_h, &reset_h, &h, &gates}) a->check_guards();
    for (Index row = 0; row < rows; ++row) {
      for (Index j = first; j < H; ++j) {
        NOTE("row = " << row << ", j = " << j);
        Exact sum[3], value[3];
        for (Index gate = 0; gate < 3; ++gate) {
          const Index at = row * ld + gate * stride + j;
          sum[gate] = Exact(from_x[at]) + sums[static_cast<std::size_t>(at)];
          value[gate] = function(gate, sum[gate]);
        }
        const auto [r, z, n] = value;
        const Exact tolerance = 16 * kEpsilon<T>;
        CHECK_CLOSE(reset_h[row * ld_h + j], r * read_h[row * ld_h + j], tolerance);
        CHECK_CLOSE(h[row * ld_h + j], (1 - z) * n + z * h_prev[row * ld_h + j], tolerance);
        for (Index gate = 0; gate < 3; ++gate) {
          CHECK_CLOSE(gates[row * 3 * H + gate * H + j],
                      options == nullptr ? value[gate] : sum[gate], tolerance);
        }
      }
    }
  });
}

template <class T>
void check_gru_halves_backward(const KernelTable<T>& table, bool has_mask,
                               const StepOptions<T>* options) {
  NOTE("mask " << has_mask << ", other functions " << (options != nullptr));
  /// A gate's value and slope from what was saved of it.
  const auto value_and_slope = [options](Index gate, Exact saved) -> std::pair<Exact, Exact> {
    if (options == nullptr) {
      return {saved, gate < 2 ? saved * (1 - saved) : 1 - saved * saved};
    }
    const Exact clip = options->clip, sum = std::clamp(saved, -clip, clip);
    const Exact value = exact_activation(gate < 2 ? options->gate : options->candidate, sum);
    Exact slope = 1 / ((1 + std::abs(sum)) * (1 + std::abs(sum)));  // of Softsign
    if (gate == 2) {
      const Activation& f = options->candidate;
      slope = f.alpha * f.beta * (1 - (value / f.alpha) * (value / f.alpha));
    }
    return {value, sum == saved ? slope : Exact(0)};
  };
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index ld = H + 3;
    const T most = options == nullptr ? T(1) : T(3);
    const Guarded<T> gates(random.values<T>(rows * 3 * H, -most, most));
    const Guarded<T> h_prev(random.values<T>(rows * H, -1, 1));
    const Guarded<T> h_mask(random.values<T>(rows * H, 0, 2));
    const Guarded<T> d_h(random.values<T>(rows * ld, -1, 1));
    const Guarded<T> d_reset(random.values<T>(rows * ld, -1, 1));
    const std::vector<T> past = random.values<T>(rows * H, -1, 1);
    Guarded<T> d_past(past), d_gates(rows * 3 * H), reset_h(rows * H);
    GruHalfStepBackward<T> s{};
    s.rows = rows;
    s.H = H;
    s.gates = gates.data();
    s.h_prev = h_prev.data();
    s.h_mask = has_mask ? h_mask.data() : nullptr;
    s.d_h = d_h.data();
    s.ld_d_h = ld;
    s.d_h_past_R = d_past.data();
    s.d_gates = d_gates.data();
    s.d_reset = d_reset.data();
    s.reset_h = reset_h.data();
    s.options = options;
    table.gru_candidate_backward(s);
    table.gru_reset_backward(s);
    for (const Guarded<T>* a : {&d_past, &d_gates, &reset_h}) a->check_guards();
    for (Index at = 0; at < rows * H; ++at) {
      NOTE("row = " << at / H << ", j = " << at % H);
      const Index row = at / H, j = at % H, gate = row * 3 * H + j;
      const auto [r, r_slope] = value_and_slope(0, gates[gate]);
      const auto [z, z_slope] = value_and_slope(1, gates[gate + H]);
      const auto [n, n_slope] = value_and_slope(2, gates[gate + 2 * H]);
      const Exact h = h_prev[at], mask = has_mask ? h_mask[at] : T(1);
      const Exact dh = Exact(d_h[row * ld + j]) + past[static_cast<std::size_t>(at)];
      const Exact d = d_reset[row * ld + j], tolerance = 32 * kEpsilon<T>;
      CHECK_CLOSE(d_gates[gate], d * h * mask * r_slope, tolerance);
      CHECK_CLOSE(d_gates[gate + H], dh * (h - n) * z_slope, tolerance);
      CHECK_CLOSE(d_gates[gate + 2 * H], dh * (1 - z) * n_slope, tolerance);
      CHECK_CLOSE(d_past[at], dh * z + d * r * mask, tolerance);
      CHECK_CLOSE(reset_h[at], r * h * mask, tolerance);
    }
  });
}

}  // namespace

KERNEL_TEST(gru_reset) {
  const StepOptions<T> others = other_functions<T>();
  check_gru_halves<T>(table, nullptr);
  check_gru_halves<T>(table, &others);
}
TESTED_WITH(gru_candidate, gru_reset);

KERNEL_TEST(gru_candidate_backward) {
  const StepOptions<T> others = other_functions<T>();
  for (const bool has_mask : {false, true}) {
    check_gru_halves_backward<T>(table, has_mask, nullptr);
    check_gru_halves_backward<T>(table, has_mask, &others);
  }
}
TESTED_WITH(gru_reset_backward, gru_candidate_backward);

// The gradient of the step of an LSTM with layer normalisation.
#include "norm.hpp"

using namespace fastlstm;

KERNEL_TEST(lstm_norm_backward) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    const Index ld = H + 3, ld_x = width + 3;
    const Guarded<T> from_x(random.values<T>(rows * ld_x, -2, 2));
    const Guarded<T> from_h(random.values<T>(rows * 4 * H, 1, 3));
    const Guarded<T> gains(random.values<T>(9 * H, -1, 1)), bias(random.values<T>(4 * H, -1, 1));
    const Guarded<T> bias_c(random.values<T>(H, -1, 1)), c_prev(random.values<T>(rows * H, 0, 4));
    const Guarded<T> keep(random.values<T>(rows * H, 0, 1)),
        d_h(random.values<T>(rows * ld, -1, 1));
    const Guarded<T> past(random.values<T>(rows * H, -1, 1));
    const Guarded<T> sums_before(random.values<T>(14 * H, -1, 1));
    for (const bool zones : {false, true}) {
      Guarded<T> d_x(rows * 4 * H), d_from_h(rows * 4 * H), d_c(past), hidden(rows * H),
          room(kNormRows * 6 * H);
      Guarded<T> sums(sums_before);
      StepOptions<T> options{};
      options.keep_c = zones ? keep.data() : nullptr;
      options.ld_keep_c = H;
      const LstmNormBackward<T> norm{
          {gains.data(), gains.data() + 4 * H, gains.data() + 8 * H, bias_c.data()},
          bias.data(),
          strides,
          from_x.data(),
          ld_x,
          room.data(),
          {sums.data(), sums.data() + 4 * H, sums.data() + 8 * H, sums.data() + 12 * H,
           sums.data() + 13 * H}};
      CellStepBackward<T> call{};
      call.rows = rows;
      call.H = H;
      call.gates = from_h.data();
      call.memory_prev = c_prev.data();
      call.d_h = d_h.data();
      call.ld_d_h = ld;
      call.d_memory = d_c.data();
      call.d_gates = d_x.data();
      call.d_from_h = d_from_h.data();
      call.hidden = hidden.data();
      call.options = &options;
      call.norm = &norm;
      table.lstm_norm_backward(call);
      for (const Guarded<T>* a : {&d_x, &d_from_h, &d_c, &hidden, &room, &sums}) a->check_guards();

      std::vector<Exact> want_sums = row_of(sums_before, 0, 14 * H);
      Exact smallest = 1;  // of the deviations, which rounding is divided by, twice
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm of_x(gates_of(from_x, row * ld_x, H, strides, table.lanes));
        const ExactNorm of_h(row_of(from_h, row * 4 * H, 4 * H));
        const auto sum = [&](Index gate, Index j) {
          const Index at = gate * H + j;
          return of_x[at] * gains[at] + of_h[at] * gains[4 * H + at] + bias[at];
        };
        const auto old_c = [&](Index j) { return Exact(c_prev[row * H + j]); };
        std::vector<Exact> c, d_normed;
        for (Index j = 0; j < H; ++j) {
          c.push_back(exact_sigmoid(sum(1, j)) * old_c(j) +
                      exact_sigmoid(sum(0, j)) * exact_tanh(sum(2, j)));
        }
        const ExactNorm of_c(c);
        smallest = std::min(smallest, of_c.deviation * std::min(of_x.deviation, of_h.deviation));
        const Exact tolerance = 256 * kEpsilon<T> / (smallest * smallest);
        const auto squashed = [&](Index j) {
          return exact_tanh(of_c[j] * gains[8 * H + j] + bias_c[j]);
        };
        for (Index j = 0; j < H; ++j) {
          const Exact d_seen =
              d_h[row * ld + j] * exact_sigmoid(sum(3, j)) * (1 - squashed(j) * squashed(j));
          d_normed.push_back(d_seen * gains[8 * H + j]);
          want_sums[static_cast<std::size_t>(12 * H + j)] += d_seen * of_c[j];
          want_sums[static_cast<std::size_t>(13 * H + j)] += d_seen;
        }
        const std::vector<Exact> through_c = of_c.backward(d_normed);
        std::vector<Exact> d_a(static_cast<std::size_t>(4 * H)), d_n_x, d_n_h;
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", zones = " << zones);
          const Exact part = zones ? Exact(keep[row * H + j]) : 0, from_next = past[row * H + j];
          const Exact dc = (1 - part) * from_next + through_c[static_cast<std::size_t>(j)];
          const Exact i = exact_sigmoid(sum(0, j)), f = exact_sigmoid(sum(1, j));
          const Exact g = exact_tanh(sum(2, j)), o = exact_sigmoid(sum(3, j));
          const Exact d[] = {dc * g * i * (1 - i), dc * old_c(j) * f * (1 - f),
                             dc * i * (1 - g * g), d_h[row * ld + j] * squashed(j) * o * (1 - o)};
          for (Index gate = 0; gate < 4; ++gate) {
            d_a[static_cast<std::size_t>(gate * H + j)] = d[gate];
          }
          CHECK_CLOSE(d_c[row * H + j], part * from_next + dc * f, tolerance);
          CHECK_CLOSE(hidden[row * H + j], o * squashed(j), tolerance);
        }
        for (Index k = 0; k < 4 * H; ++k) {
          const Exact d = d_a[static_cast<std::size_t>(k)];
          d_n_x.push_back(d * gains[k]);
          d_n_h.push_back(d * gains[4 * H + k]);
          want_sums[static_cast<std::size_t>(k)] += d;
          want_sums[static_cast<std::size_t>(4 * H + k)] += d * of_x[k];
          want_sums[static_cast<std::size_t>(8 * H + k)] += d * of_h[k];
        }
        const std::vector<Exact> want_x = of_x.backward(d_n_x), want_h = of_h.backward(d_n_h);
        for (Index k = 0; k < 4 * H; ++k) {
          NOTE("row = " << row << ", k = " << k << ", zones = " << zones);
          CHECK_CLOSE(d_x[row * 4 * H + k], want_x[static_cast<std::size_t>(k)], tolerance);
          CHECK_CLOSE(d_from_h[row * 4 * H + k], want_h[static_cast<std::size_t>(k)], tolerance);
        }
      }
      for (Index k = 0; k < 14 * H; ++k) {
        NOTE("k = " << k << ", zones = " << zones);
        CHECK_CLOSE(sums[k], want_sums[static_cast<std::size_t>(k)],
                    256 * kEpsilon<T> / (smallest * smallest));
      }
    }
  });
}

// Both halves of the step of an LSTM with layer normalisation.
#include "norm.hpp"

using namespace fastlstm;

// As a whole and with the units divided.
KERNEL_TEST(lstm_norm_gates) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    const Index ld = width + 3, ld_c = H + 1, ld_h = H + 2;
    const Guarded<T> from_x(random.values<T>(rows * ld, -2, 2));
    const Guarded<T> from_h(random.values<T>(rows * ld, 1, 3));
    const Guarded<T> gain_h(random.values<T>(4 * H, -1, 1)), gain_c(random.values<T>(H, -1, 1));
    const Guarded<T> bias_c(random.values<T>(H, -1, 1)),
        c_prev(random.values<T>(rows * ld_c, 0, 4));
    const Guarded<T> keep(random.values<T>(rows * H, 0, 1));
    const LstmNorm<T> norm{nullptr, gain_h.data(), gain_c.data(), bias_c.data()};
    for (const bool zones : {false, true}) {
      const auto run = [&](Index cut, Guarded<T>& c, Guarded<T>& h, Guarded<T>& gates,
                           Guarded<T>& saved_c, Rows<T>& output) {
        Guarded<T> new_c(rows * ld_c);
        LstmNormStep<T> s{rows,
                          0,
                          H,
                          H,
                          strides,
                          &norm,
                          from_x.data(),
                          ld,
                          from_h.data(),
                          ld,
                          c.data(),
                          zones ? new_c.data() : c.data(),
                          ld_c,
                          h.data(),
                          ld_h,
                          output.pointers.data(),
                          gates.data(),
                          4 * H,
                          saved_c.data(),
                          H,
                          zones ? keep.data() : nullptr,
                          H};
        for (const auto half : {table.lstm_norm_gates, table.lstm_norm_hidden}) {
          s.first = cut;
          s.end = H;
          half(s);
          s.first = 0;
          s.end = cut;
          half(s);
        }
        for (const Guarded<T>* a : {&c, &h, &gates, &saved_c, &new_c}) a->check_guards();
      };
      Guarded<T> c(c_prev), h(rows * ld_h), gates(rows * 4 * H), saved_c(rows * H);
      Rows<T> output(random, rows, H);
      run(0, c, h, gates, saved_c, output);
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm of_h(gates_of(from_h, row * ld, H, strides, table.lanes));
        const std::vector<Exact> x = gates_of(from_x, row * ld, H, strides, table.lanes);
        const std::vector<Exact> raw = gates_of(from_h, row * ld, H, strides, table.lanes);
        const auto sum = [&](Index gate, Index j) {
          const Index at = gate * H + j;
          return x[static_cast<std::size_t>(at)] + gain_h[at] * of_h[at];
        };
        std::vector<Exact> new_c;
        for (Index j = 0; j < H; ++j) {
          new_c.push_back(exact_sigmoid(sum(1, j)) * c_prev[row * ld_c + j] +
                          exact_sigmoid(sum(0, j)) * exact_tanh(sum(2, j)));
        }
        const ExactNorm of_c(new_c);
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", zones = " << zones);
          const Exact part = zones ? Exact(keep[row * H + j]) : 0;
          const Exact computed = new_c[static_cast<std::size_t>(j)];
          const Exact tolerance = 64 * kEpsilon<T>;
          CHECK_CLOSE(c[row * ld_c + j], part * c_prev[row * ld_c + j] + (1 - part) * computed,
                      tolerance);
          CHECK_EQUAL(saved_c[row * H + j], c[row * ld_c + j]);
          // Rounding of c is divided by the deviation of its row.
          CHECK_CLOSE(h[row * ld_h + j],
                      exact_sigmoid(sum(3, j)) * exact_tanh(gain_c[j] * of_c[j] + bias_c[j]),
                      tolerance * (1 + 1 / of_c.deviation));
          CHECK_EQUAL(output.at(row, j), h[row * ld_h + j]);
          for (Index gate = 0; gate < 4; ++gate) {
            CHECK_EQUAL(Exact(gates[row * 4 * H + gate * H + j]),
                        raw[static_cast<std::size_t>(gate * H + j)]);
          }
        }
      }
      Guarded<T> parted_c(c_prev), parted_h(rows * ld_h), same_gates(rows * 4 * H);
      Guarded<T> same_saved_c(rows * H);
      run(H / 2 / table.lanes * table.lanes, parted_c, parted_h, same_gates, same_saved_c, output);
      CHECK(same_bits(parted_c, c));
      CHECK(same_bits(parted_h, h));
    }
  });
}
TESTED_WITH(lstm_norm_hidden, lstm_norm_gates);

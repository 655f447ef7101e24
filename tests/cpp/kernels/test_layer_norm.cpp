// Rows of sums, normalised.
#include "norm.hpp"

using namespace fastlstm;

KERNEL_TEST(normalise_sums) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    for (const bool has_bias : {false, true}) {
      const Index ld = width + 3;
      std::vector<T> values = random.values<T>(rows * ld, 2, 4);  // a mean that is not small
      const Guarded<T> gain(random.values<T>(4 * H, -1, 1)), bias(random.values<T>(4 * H, -1, 1));
      const Guarded<T> before(values);
      Guarded<T> sums(values);
      table.normalise_sums(
          {rows, H, strides, gain.data(), has_bias ? bias.data() : nullptr, sums.data(), ld});
      sums.check_guards();
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm norm(gates_of(before, row * ld, H, strides, table.lanes));
        const std::vector<Exact> got = gates_of(sums, row * ld, H, strides, table.lanes);
        for (Index k = 0; k < 4 * H; ++k) {
          NOTE("row = " << row << ", k = " << k);
          const Exact want = norm[k] * gain[k] + (has_bias ? Exact(bias[k]) : 0);
          CHECK_CLOSE(got[static_cast<std::size_t>(k)], want, 64 * kEpsilon<T>);
        }
      }
    }
  });
}

// Rows of sums, normalised.
#include <cmath>
#include <limits>

#include "norm.hpp"

using namespace fastlstm;

namespace {

/// A row whose squares are infinite, one whose values hardly differ, and one of equal values. Of
/// all values the largest is T's.
template <class T>
void check_rows_at_the_edge(const KernelTable<T>& table, Index H, Random& random,
                            GateStrides strides, Index width) {
  const T large = std::numeric_limits<T>::max() / 4, third = T(1) / 3;
  std::vector<T> values = random.values<T>(3 * width, -1, 1);
  for (Index k = 0; k < width; ++k) {
    const auto at = static_cast<std::size_t>(k), ld = static_cast<std::size_t>(width);
    values[at] *= large;
    values[ld + at] = 4096 + std::round(1024 * values[ld + at]) / 1024;
    values[2 * ld + at] = large * third;
  }
  const Guarded<T> gain(std::vector<T>(static_cast<std::size_t>(4 * H), T(1))), before(values);
  Guarded<T> sums(values);
  table.normalise_sums({3, H, strides, gain.data(), nullptr, sums.data(), width});
  sums.check_guards();
  for (Index row = 0; row < 3; ++row) {
    const ExactNorm norm(gates_of(before, row * width, H, strides, table.lanes));
    const std::vector<Exact> got = gates_of(sums, row * width, H, strides, table.lanes);
    for (Index k = 0; k < 4 * H; ++k) {
      NOTE("row = " << row << ", k = " << k);
      // The mean is rounded; what is left of nearly equal values is as much less exact.
      const Exact rounding = row == 1 ? 4096 * kEpsilon<T> / norm.deviation : 64 * kEpsilon<T>;
      const Exact want = row == 2 ? Exact(0) : norm[k];
      CHECK_CLOSE(got[static_cast<std::size_t>(k)], want, row == 2 ? Exact(0) : rounding);
    }
  }
}

}  // namespace

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
    check_rows_at_the_edge(table, H, random, strides, width);
  });
}

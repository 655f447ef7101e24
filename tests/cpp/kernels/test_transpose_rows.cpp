// Rows that become columns.
#include "kernel_tests.hpp"

using namespace fastlstm;

KERNEL_TEST(transpose_rows) {
  const Index lanes = table.lanes;
  for (Index rows = 1; rows <= lanes; ++rows) {
    for (const Index columns : kSizes) {
      NOTE("rows = " << rows << ", columns = " << columns);
      const Index ld_from = columns + 2, ld_to = lanes + 3;
      Random random(static_cast<unsigned>(100 * rows + columns));
      Guarded<T> from(random.values<T>((rows - 1) * ld_from + columns, 1, 2)),
          to((columns - 1) * ld_to + lanes);
      from[0] = -T(0);
      const Guarded<T> before = to;
      table.transpose_rows({rows, columns, from.data(), ld_from, to.data(), ld_to});
      to.check_guards();
      for (Index k = 0; k < columns; ++k) {
        for (Index r = 0; r < ld_to && k * ld_to + r < static_cast<Index>(to.size()); ++r) {
          const T got = to[k * ld_to + r];
          const T want = r < rows    ? from[r * ld_from + k]
                         : r < lanes ? T(0)
                                     : before[k * ld_to + r];
          CHECK_EQUAL(got, want);
          CHECK_EQUAL(std::signbit(got), std::signbit(want));
        }
      }
    }
  }
}

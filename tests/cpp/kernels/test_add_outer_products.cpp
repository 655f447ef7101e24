// Gradients of weight matrices.
#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

template <class T>
void check_add_outer_products_at(const KernelTable<T>& table, Index n, Index rows, Index columns) {
  NOTE("n = " << n << ", rows = " << rows << ", columns = " << columns);
  const Index ld_d_sums = rows + 2, ld_values = columns + 1, ld_out = columns + 3;
  Random random(static_cast<unsigned>(n + 31 * rows + 1009 * columns));
  const Guarded<T> d_sums(random.values<T>(n * ld_d_sums, -1, 1));
  const Guarded<T> values(random.values<T>(n * ld_values, -1, 1));
  const std::vector<T> before = random.values<T>(rows * ld_out, -1, 1);
  const auto add = [&](Index first_row, Index some_rows, Index first, Index some) {
    Guarded<T> out(before), room(outer_products_room(n, some, table.lanes));
    const T* const some_d_sums = n > 0 ? d_sums.data() + first_row : nullptr;
    const T* const some_values = n > 0 ? values.data() + first : nullptr;
    table.add_outer_products({n, some_rows, some, some_d_sums, ld_d_sums, some_values, ld_values,
                              out.data() + first_row * ld_out + first, ld_out, room.data()});
    room.check_guards();
    out.check_guards();
    return out;
  };
  const Guarded<T> out = add(0, rows, 0, columns);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < ld_out; ++j) {
      NOTE("row = " << row << ", j = " << j);
      Exact want = before[static_cast<std::size_t>(row * ld_out + j)];
      if (j >= columns) {
        CHECK_EQUAL(out[row * ld_out + j], static_cast<T>(want));
        continue;
      }
      for (Index k = 0; k < n; ++k) {
        want += Exact(d_sums[k * ld_d_sums + row]) * values[k * ld_values + j];
      }
      CHECK_CLOSE(out[row * ld_out + j], want, kEpsilon<T> * static_cast<T>(n + 2));
    }
  }
  // A part of the rows and columns: the same bits.
  const Index row = rows / 2, column = columns / 2;
  const Guarded<T> part = add(row, rows - row, column, columns - column);
  for (Index r = row; r < rows; ++r) {
    for (Index j = column; j < columns; ++j) {
      CHECK_EQUAL(part[r * ld_out + j], out[r * ld_out + j]);
    }
  }
}

}  // namespace

KERNEL_TEST(add_outer_products) {
  for (const Index n : {0, 1, 5, 130}) {
    for (const Index rows : {1, 2, 5, 6, 7, 12, 13, 29}) {
      for (const Index columns : {1, 7, 8, 16, 17, 31, 33, 64, 65, 97}) {
        check_add_outer_products_at(table, n, rows, columns);
      }
    }
  }
  // More rows and columns than have panels at the same time.
  check_add_outer_products_at(table, 130, 200, 300);
  check_add_outer_products_at(table, 7, 97, 16 * table.lanes);
}

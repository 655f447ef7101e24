// Products of rows with panels, on tiles.
#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

template <class T>
void check_project_rows_at(const KernelTable<T>& table, Index rows, Index blocks, Index V, Index K,
                           bool has_bias) {
  NOTE("V = " << V << ", rows = " << rows << ", blocks = " << blocks << ", K = " << K << ", bias "
              << has_bias);
  const Index width = V * table.lanes, ld = blocks * width + 3;
  Random random(static_cast<unsigned>(rows * 1000 + K));
  const Rows<T> x(random, rows, K);
  const Guarded<T> panel(random.values<T>(blocks * K * width, -1, 1));
  const Guarded<T> bias(random.values<T>(blocks * width, -1, 1));
  const auto project = [&](Index first_row, Index n, Index first_block, Index end_block,
                           bool down = false) {
    Guarded<T> out(std::vector<T>(static_cast<std::size_t>(n * ld), T(77)));
    table.project_rows({n, first_block, end_block, V, K, x.pointers.data() + first_row,
                        panel.data(), has_bias ? bias.data() : nullptr, out.data(), ld, down});
    out.check_guards();
    return out;
  };
  const Guarded<T> out = project(0, rows, 0, blocks);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < ld; ++j) {
      NOTE("row = " << row << ", j = " << j);
      if (j >= blocks * width) {
        CHECK_EQUAL(out[row * ld + j], T(77));
        continue;
      }
      Exact want = has_bias ? bias[j] : 0;
      for (Index k = 0; k < K; ++k) {
        want += Exact(x.at(row, k)) * panel[j / width * K * width + k * width + j % width];
      }
      CHECK_CLOSE(out[row * ld + j], want, kEpsilon<T> * static_cast<T>(K + 2));
    }
  }
  // The other way, a row by itself, and a block by itself: the same bits, and nothing else is
  // written.
  CHECK(same_bits(project(0, rows, 0, blocks, true), out));
  for (Index row = 0; row < rows; ++row) {
    const Guarded<T> alone = project(row, 1, 0, blocks);
    CHECK(std::equal(alone.data(), alone.data() + ld, out.data() + row * ld));
  }
  for (Index block = 0; block < blocks; ++block) {
    const Guarded<T> one = project(0, rows, block, block + 1);
    for (Index at = 0; at < rows * ld; ++at) {
      CHECK_EQUAL(one[at], at % ld / width == block ? out[at] : T(77));
    }
  }
}

}  // namespace

KERNEL_TEST(project_rows) {
  for (const Index V : {3, 4}) {
    for (const Index rows : kRows) {
      for (const Index blocks : {1, 2, 3, 7}) {
        for (const Index K : {1, 2, 17}) check_project_rows_at(table, rows, blocks, V, K, true);
      }
      check_project_rows_at(table, rows, 2, V, 600, false);
    }
    // Several tiles of rows pass over 256 KB of a panel at a time, and keep their sums in between.
    const Index of_part = (256 << 10) / (V * table.lanes * static_cast<Index>(sizeof(T)));
    for (const Index K : {of_part, of_part + 1, 2 * of_part + 5}) {
      check_project_rows_at(table, 13, 2, V, K, true);
    }
  }
}

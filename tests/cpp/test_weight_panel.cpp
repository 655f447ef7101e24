// Packed weights: what stands where, and the way back.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "weights/weight_panel.hpp"

using namespace fastlstm;

namespace {

/// Calls body(layout) for all kinds of layouts, with units around the widths of blocks.
template <class Body>
void for_each_layout(Index lanes, Body body) {
  for (const Index units : {Index{1}, lanes - 1, lanes, lanes + 1, 4 * lanes - 1, 4 * lanes,
                            4 * lanes + 1, 11 * lanes + 3}) {
    if (units < 1) continue;
    for (const PanelLayout& layout :
         {PanelLayout::of_gates(4, units, lanes), PanelLayout::of_gates(3, units, lanes),
          PanelLayout::of_matrix(1, units, lanes), PanelLayout::of_matrix(3, units, lanes),
          PanelLayout{4, units, lanes, 2}}) {
      NOTE("gates = " << layout.gates << ", " << layout.gates_in_block
                      << " in a block, units = " << units << ", lanes = " << lanes);
      body(layout);
    }
  }
}

template <class T>
const T* values(const WeightPanel<T>& panel) {
  CHECK(panel.view().arithmetic == Arithmetic::kFull);
  return static_cast<const T*>(panel.view().data);
}

template <class T>
bool same_bits(const WeightPanel<T>& a, const WeightPanel<T>& b) {
  const PanelLayout &x = a.layout(), &y = b.layout();
  return a.K() == b.K() && x.gates == y.gates && x.units == y.units &&
         x.block_units == y.block_units && x.gates_in_block == y.gates_in_block &&
         std::equal(values(a), values(a) + a.K() * x.columns(), values(b));
}

template <class T>
void check_panels() {
  const Index lanes = kernels<T>().lanes, line = 64 / static_cast<Index>(sizeof(T));
  for_each_layout(lanes, [&](const PanelLayout& layout) {
    const Index rows = layout.gates * layout.units;
    for (const Index K : {Index{1}, line - 1, line, line + 1, 2 * line + 3}) {
      NOTE("K = " << K);
      Random random(static_cast<unsigned>(rows * 100 + K));
      const std::vector<T> matrix = random.values<T>(rows * K, 1, 2);  // no zeros
      const WeightPanel<T> panel(layout, K, matrix.data());
      CHECK_EQUAL(panel.K(), K);
      const T* value = values(panel);
      for (Index block = 0; block < layout.all_blocks(); ++block) {
        for (Index k = 0; k < K; ++k) {
          for (Index j = 0; j < layout.width(); ++j) {
            const Index row = layout.row(block, j);
            CHECK_EQUAL(*value++, row < 0 ? T(0) : matrix[static_cast<std::size_t>(row * K + k)]);
          }
        }
      }
      std::vector<T> seen(matrix.size()), doubled;
      for (const T weight : matrix) doubled.push_back(2 * weight);
      const WeightPanel<T> other = panel.changed([&](Index row, T* row_values) {
        std::copy_n(row_values, K, seen.data() + row * K);
        for (Index k = 0; k < K; ++k) row_values[k] *= 2;
      });
      CHECK(seen == matrix);
      CHECK(same_bits(other, WeightPanel<T>(layout, K, doubled.data())));
      const WeightPanel<T> copy = panel.clone();
      CHECK(same_bits(copy, panel));
      CHECK(values(copy) != values(panel));
      // All rows, those of the first gates, the others, and some.
      for (const auto& rows_of_some :
           {std::pair{Index{0}, rows}, std::pair{Index{0}, (layout.gates - 1) * layout.units},
            std::pair{(layout.gates - 1) * layout.units, rows}, std::pair{rows / 3, rows / 2}}) {
        const Index first = rows_of_some.first, end = rows_of_some.second;
        if (first == end) continue;
        NOTE("rows " << first << " to " << end);
        const Index n = end - first;
        std::vector<T> transposed(static_cast<std::size_t>(n * K));
        for (Index row = 0; row < n; ++row) {
          for (Index k = 0; k < K; ++k) {
            transposed[static_cast<std::size_t>(k * n + row)] =
                matrix[static_cast<std::size_t>((first + row) * K + k)];
          }
        }
        const WeightPanel<T> want(PanelLayout::of_matrix(1, K, lanes), n, transposed.data());
        CHECK(same_bits(panel.transposed(first, end), want));
      }
    }
  });
}

}  // namespace

TEST(rows_and_columns_are_inverse) {
  for (const Index lanes : {2, 4, 8, 16}) {
    for_each_layout(lanes, [](const PanelLayout& layout) {
      const Index rows = layout.gates * layout.units;
      CHECK(layout.columns() >= rows);
      CHECK_EQUAL(layout.columns(), layout.all_blocks() * layout.width());
      Index found = 0;
      for (Index block = 0; block < layout.all_blocks(); ++block) {
        for (Index j = 0; j < layout.width(); ++j) {
          const Index row = layout.row(block, j);
          if (row < 0) continue;
          CHECK(row < rows);
          CHECK_EQUAL(layout.column(row), block * layout.width() + j);
          ++found;
        }
      }
      CHECK_EQUAL(found, rows);
    });
  }
}

// What kernels/panel.hpp says.
TEST(blocks_of_gates_and_of_a_matrix) {
  const PanelLayout gates = PanelLayout::of_gates(4, 10, 8);
  CHECK_EQUAL(gates.blocks(), 2);
  CHECK_EQUAL(gates.width(), 32);
  CHECK_EQUAL(gates.row(0, 8 + 3), 10 + 3);   // unit 3 of gate 1
  CHECK_EQUAL(gates.row(1, 24 + 1), 30 + 9);  // unit 9 of gate 3
  CHECK_EQUAL(gates.row(1, 24 + 2), -1);
  const PanelLayout matrix = PanelLayout::of_matrix(3, 40, 8);
  CHECK_EQUAL(matrix.blocks(), 2);
  CHECK_EQUAL(matrix.parts(), 3);
  CHECK_EQUAL(matrix.width(), 32);
  CHECK_EQUAL(matrix.row(3, 5), 40 + 32 + 5);  // the second block of gate 1
  CHECK_EQUAL(matrix.row(3, 8), -1);
}

// Groups of inputs, filled up with zeros; of a matrix unit, whole tiles.
TEST(panels_of_small_weights) {
  const Index lanes = kernels<float>().lanes;
  for_each_layout(lanes, [&](const PanelLayout& layout) {
    const Index rows = layout.gates * layout.units;
    for (const Index K : {1, 2, 3, 4, 5, 9, 35, 69}) {
      NOTE("K = " << K);
      std::vector<std::uint16_t> wide(static_cast<std::size_t>(rows * K));
      std::vector<std::int8_t> narrow(wide.size());
      for (std::size_t n = 0; n < wide.size(); ++n) {
        wide[n] = static_cast<std::uint16_t>(n * 977 + 1);
        narrow[n] = static_cast<std::int8_t>(n * 37 + 1);
      }
      std::vector<float> scales;
      for (Index row = 0; row < rows; ++row) scales.push_back(static_cast<float>(row + 1));
      for (const Arithmetic arithmetic : {Arithmetic::kBfloat16Weights, Arithmetic::kInt8Weights,
                                          Arithmetic::kBfloat16, Arithmetic::kInt8}) {
        const bool int8 = is_int8(arithmetic);
        const SmallMatrix matrix{int8 ? static_cast<const void*>(narrow.data()) : wide.data(),
                                 int8 ? scales.data() : nullptr};
        const WeightPanel<float> panel(layout, K, arithmetic, matrix);
        const Panel<float> view = panel.view();
        CHECK(view.arithmetic == arithmetic);
        const bool tiled = panel_kernels<float>(arithmetic).tiled;
        const Index group = inputs_in_group(arithmetic), needed = (K + group - 1) / group;
        const Index groups = tiled ? whole_tiles(needed) : needed, size = groups * group;
        for (Index column = 0; column < layout.columns(); ++column) {
          const Index block = column / layout.width(), j = column % layout.width();
          const Index row = layout.row(block, j);
          std::int32_t sum = 0;
          for (Index k = 0; k < size; ++k) {
            const bool exists = row >= 0 && k < K;
            const auto at = static_cast<std::size_t>(exists ? row * K + k : 0);
            // The first of a pair of bfloat16 is in the upper half.
            const Index in_group = int8 ? k % group : group - 1 - k % group;
            const Index in_block = tiled ? (j / lanes * groups + k / group) * lanes + j % lanes
                                         : k / group * layout.width() + j;
            const Index place = block * size * layout.width() + in_block * group;
            if (int8) {
              const int want = exists ? narrow[at] : 0;
              CHECK_EQUAL(static_cast<const std::int8_t*>(view.data)[place + in_group], want);
              sum += want;
            } else {
              CHECK_EQUAL(static_cast<const std::uint16_t*>(view.data)[place + in_group],
                          exists ? wide[at] : 0);
            }
          }
          if (int8) CHECK_EQUAL(view.scales[column], row >= 0 ? static_cast<float>(row + 1) : 0);
          if (arithmetic == Arithmetic::kInt8) CHECK_EQUAL(view.offsets[column], -128 * sum);
        }
      }
    }
  });
}

TEST(panels_float32) { check_panels<float>(); }

TEST(panels_float64) { check_panels<double>(); }

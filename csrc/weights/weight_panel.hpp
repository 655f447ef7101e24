// Weights packed for tile kernels (kernels/panel.hpp): which weight stands where, in how many
// bytes. Nobody else knows the layout.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/panel.hpp"
#include "runtime/buffer.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

/// Which rows of a matrix the columns of a panel's blocks are. The matrix has the rows of some
/// gates, gate after gate; a block has the same units of one or more of them, and where it does not
/// have them all, the blocks of the first gates come first.
struct PanelLayout {
  Index gates;           // of the matrix
  Index units;           // rows of each gate
  Index block_units;     // units in a block
  Index gates_in_block;  // of these units

  PanelLayout(Index gates_, Index units_, Index block_units_, Index gates_in_block_)
      : gates(gates_),
        units(units_),
        block_units(block_units_),
        gates_in_block(gates_in_block_),
        blocks_((units + block_units - 1) / block_units),
        parts_(gates / gates_in_block) {}
  /// All gates of as many units as a vector has lanes.
  static PanelLayout of_gates(Index gates, Index units, Index lanes) {
    return {gates, units, lanes, gates};
  }
  /// A plain matrix, gate after gate, in blocks of four vectors.
  static PanelLayout of_matrix(Index gates, Index units, Index lanes) {
    return {gates, units, 4 * lanes, 1};
  }

  Index width() const { return block_units * gates_in_block; }
  /// The blocks of all units of the gates that share a block.
  Index blocks() const { return blocks_; }
  /// The times that these follow one another.
  Index parts() const { return parts_; }
  Index all_blocks() const { return parts_ * blocks_; }
  /// Columns of all blocks.
  Index columns() const { return all_blocks() * width(); }
  /// The matrix row of column j of a block; -1: none.
  Index row(Index block, Index j) const {
    const Index unit = block % blocks() * block_units + j % block_units;
    const Index gate = block / blocks() * gates_in_block + j / block_units;
    return unit < units ? gate * units + unit : -1;
  }
  /// Where a matrix row is among the columns of all blocks.
  Index column(Index row) const {
    const Index gate = row / units, unit = row % units;
    const Index block = gate / gates_in_block * blocks() + unit / block_units;
    return block * width() + gate % gates_in_block * block_units + unit % block_units;
  }

 private:
  Index blocks_, parts_;  // asked for at each step of a stream: not divided again
};

/// A matrix [gates * units, K], packed.
template <class T>
class WeightPanel {
 public:
  WeightPanel() = default;

  /// matrix: [gates * units] rows of K, in.
  WeightPanel(const PanelLayout& layout, Index K, const T* matrix) : WeightPanel(layout, K) {
    in_region([&] {
      SmallItems asks;
      for (Index block = 0; block < layout.all_blocks(); ++block) {
        if (asks.interrupted_before(K * layout.width())) return;
        pack_block(block, [&](Index j) {
          const Index row = layout.row(block, j);
          return row < 0 ? nullptr : matrix + row * K;
        });
      }
    });
  }

  /// The same with other values: change(row, values) changes the [K] values of a matrix row.
  template <class Change>
  WeightPanel changed(Change change) const {
    WeightPanel other(layout_, K_);
    Buffer<T> rows(layout_.width(), K_);  // of one block
    in_region([&] {
      SmallItems asks;
      for (Index block = 0; block < layout_.all_blocks(); ++block) {
        if (asks.interrupted_before(K_ * layout_.width())) return;
        unpack_block(block, rows.data());
        for (Index j = 0; j < layout_.width(); ++j) {
          const Index row = layout_.row(block, j);
          if (row >= 0) change(row, rows.data() + j * K_);
        }
        other.pack_block(block, [&](Index j) {
          return layout_.row(block, j) < 0 ? nullptr : rows.data() + j * K_;
        });
      }
    });
    return other;
  }

  /// The panel of the transposed rows first <= row < end, a plain matrix of K columns: what
  /// multiplies gradients of them.
  WeightPanel transposed(Index first, Index end) const {
    WeightPanel other(PanelLayout::of_matrix(1, K_, kernels<T>().lanes), end - first);
    in_region([&] {
      SmallItems asks;
      // All rows of some inputs before the next: their lines stay near until each lane is read.
      for (Index k = 0; k < other.layout_.columns(); k += kLine) {
        if (asks.interrupted_before((end - first) * kLine)) return;
        transpose_line(k, first, end, other);
      }
    });
    return other;
  }

  WeightPanel clone() const {
    WeightPanel other;
    other.layout_ = layout_;
    other.K_ = K_;
    other.values_ = values_.clone();
    return other;
  }

  Panel<T> view() const { return values_.data(); }
  const PanelLayout& layout() const { return layout_; }
  Index K() const { return K_; }

 private:
  WeightPanel(const PanelLayout& layout, Index K)
      : layout_(layout), K_(K), values_(layout.all_blocks(), K * layout.width()) {}

  /// row_of(j): the [K] values of column j of a block; null: zeros.
  ///
  /// A cache line of each column at a time: going down the columns side by side, lines that are
  /// powers of two apart drive each other out (8 times slower at H = 1024).
  template <class RowOf>
  void pack_block(Index block, RowOf row_of) {
    const Index width = layout_.width();
    T* const panel = values_.data() + block * K_ * width;
    std::vector<const T*> rows(static_cast<std::size_t>(width));
    for (Index j = 0; j < width; ++j) rows[static_cast<std::size_t>(j)] = row_of(j);
    for (Index first = 0; first < K_; first += kLine) {
      const Index n = std::min(kLine, K_ - first);
      for (Index j = 0; j < width; ++j) {
        const T* const row = rows[static_cast<std::size_t>(j)];
        T* const to = panel + first * width + j;
        if (row == nullptr) {
          for (Index k = 0; k < n; ++k) to[k * width] = T(0);
        } else if (n == kLine) {
          for (Index k = 0; k < kLine; ++k) to[k * width] = row[first + k];
        } else {
          for (Index k = 0; k < n; ++k) to[k * width] = row[first + k];
        }
      }
    }
  }
  /// rows: [width, K] out: a block's columns.
  void unpack_block(Index block, T* rows) const {
    const Index width = layout_.width();
    const T* const panel = values_.data() + block * K_ * width;
    for (Index first = 0; first < K_; first += kLine) {
      const Index n = std::min(kLine, K_ - first);
      for (Index j = 0; j < width; ++j) {
        for (Index k = 0; k < n; ++k) rows[j * K_ + first + k] = panel[(first + k) * width + j];
      }
    }
  }

  /// The inputs k <= j < k + kLine of some rows, into their columns of the other panel.
  void transpose_line(Index k, Index first, Index end, WeightPanel& other) const {
    const Index width = other.layout_.width(), stride = layout_.width();
    T* to = other.values_.data() + k / width * other.K_ * width + k % width;
    const Index n = std::clamp<Index>(K_ - k, 0, kLine);
    for (Index row = first, some; row < end; row += some) {
      // Neighbouring columns of one block.
      const Index unit = row % layout_.units, in_block = unit % layout_.block_units;
      some = std::min({end - row, layout_.units - unit, layout_.block_units - in_block});
      const Index column = layout_.column(row);
      const T* from =
          values_.data() + (column / stride * K_ + std::min(k, K_ - 1)) * stride + column % stride;
      for (Index r = 0; r < some; ++r, ++from, to += width) {
        if (n == kLine) {
          for (Index j = 0; j < kLine; ++j) to[j] = from[j * stride];
        } else {
          for (Index j = 0; j < n; ++j) to[j] = from[j * stride];
          for (Index j = n; j < kLine; ++j) to[j] = T(0);
        }
      }
    }
  }

  static constexpr Index kLine = 64 / sizeof(T);  // of a cache line

  PanelLayout layout_{0, 0, 1, 1};
  Index K_ = 0;
  Buffer<T> values_;  // [all_blocks][K][width]
};

}  // namespace fastlstm

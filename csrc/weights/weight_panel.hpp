// Weights packed for tile kernels (kernels/panel.hpp): which weight stands where, in how many
// bytes. Nobody else knows the layout.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "fastlstm/parameters.hpp"
#include "kernels/panel.hpp"
#include "runtime/buffer.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/spare.hpp"
#include "runtime/targets.hpp"
#include "schedule/shares.hpp"
#include "weights/items.hpp"

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
  /// Where one panel after another of the same layout leaves its memory; null: nowhere.
  using SpareMemory = std::shared_ptr<Spare<Buffer<T>>>;

  WeightPanel() = default;

  /// matrix: [gates * units] rows of K, in.
  WeightPanel(const PanelLayout& layout, Index K, const T* matrix, const SpareMemory& spare = {})
      : WeightPanel(layout, K, spare) {
    for_each_item(layout.all_blocks(), K * layout.width(), [&](Index block) {
      pack_block(block, [&](Index j) { return matrix + layout.row(block, j) * K; });
    });
  }

  /// The same of small weights. What is said of the other values of a panel is not for these.
  WeightPanel(const PanelLayout& layout, Index K, Arithmetic arithmetic, const SmallMatrix& matrix)
      : layout_(layout), K_(K), small_(std::make_unique<Small>()) {
    Small& small = *small_;
    small.arithmetic = arithmetic;
    const Index in_bytes = (is_int8(arithmetic) ? 1 : 2) * inputs_in_group(arithmetic);
    small.bytes.resize(layout.all_blocks(), groups() * layout.width() * in_bytes);
    if (is_int8(arithmetic)) small.scales.resize(layout.columns());
    if (arithmetic == Arithmetic::kInt8) small.offsets.resize(layout.columns());
    for_each_item(layout.all_blocks(), K * layout.width(), [&](Index block) {
      if (is_int8(arithmetic)) {
        pack_int8(block, static_cast<const std::int8_t*>(matrix.values), matrix.scales);
      } else {
        pack_bfloat16(block, static_cast<const std::uint16_t*>(matrix.values));
      }
    });
  }

  /// The same with other values: change(row, values) changes the [K] values of a matrix row.
  template <class Change>
  WeightPanel changed(Change change) const {
    WeightPanel other(layout_, K_, SpareMemory());
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
        other.pack_block(block, [&](Index j) { return rows.data() + j * K_; });
      }
    });
    return other;
  }

  /// The panel of the transposed rows first <= row < end, a plain matrix of K columns: what
  /// multiplies gradients of them.
  WeightPanel transposed(Index first, Index end, const SpareMemory& spare = {}) const {
    const Index lanes = kernels<T>().lanes, groups = pieces(layout_.units, lanes);  // of a gate
    WeightPanel other(PanelLayout::of_matrix(1, K_, lanes), end - first, spare);
    for_each_item(layout_.gates * groups, K_ * lanes, [&](Index group) {
      const Index gate = group / groups * layout_.units;
      const Piece some = piece(layout_.units, group % groups, lanes);
      const Index from = std::max(first, gate + some.first);
      const Index to = std::min(end, gate + some.first + some.size);
      if (from < to) transpose_into(other, from, to - from, from - first);
    });
    return other;
  }

  WeightPanel clone() const {
    WeightPanel other;
    if (values_ == nullptr) return other;  // it has none, or small ones
    other.layout_ = layout_;
    other.K_ = K_;
    other.values_.reset(new Buffer<T>(values_->clone()));
    return other;
  }

  Panel<T> view() const {
    Panel<T> panel;
    if (small_ != nullptr) {
      panel.data = small_->bytes.data();
      panel.arithmetic = small_->arithmetic;
      panel.scales = small_->scales.data();
      panel.offsets = small_->offsets.data();
    } else if (values_ != nullptr) {
      panel.data = values_->data();
    }
    return panel;
  }
  const PanelLayout& layout() const { return layout_; }
  Index K() const { return K_; }

 private:
  WeightPanel(const PanelLayout& layout, Index K, const SpareMemory& spare)
      : layout_(layout),
        K_(K),
        values_(spare != nullptr ? spare->take().release() : new Buffer<T>, {spare}) {
    values_->reserve(layout.all_blocks(), K * layout.width());
  }

  /// Small weights, and what belongs to each column.
  struct Small {
    Arithmetic arithmetic;
    Buffer<char> bytes;            // [all_blocks][groups of K][width] of a group each
    Buffer<float> scales;          // int8: [columns]
    Buffer<std::int32_t> offsets;  // kInt8: [columns]
  };

  /// The groups of K inputs.
  Index groups() const { return pieces(K_, inputs_in_group(small_->arithmetic)); }

  void pack_bfloat16(Index block, const std::uint16_t* matrix) {
    const Index width = layout_.width();
    auto* const panel =
        reinterpret_cast<std::uint32_t*>(small_->bytes.data()) + block * groups() * width;
    for (Index j = 0; j < width; ++j) {
      const Index row = layout_.row(block, j);
      for (Index g = 0; g < groups(); ++g) {
        std::uint32_t pair = 0;
        if (row >= 0) pair = std::uint32_t{matrix[row * K_ + 2 * g]} << 16;
        if (row >= 0 && 2 * g + 1 < K_) pair |= matrix[row * K_ + 2 * g + 1];
        panel[g * width + j] = pair;
      }
    }
  }
  void pack_int8(Index block, const std::int8_t* matrix, const float* scales) {
    const Index width = layout_.width(), group = inputs_in_group(small_->arithmetic);
    const Index size = groups() * group;  // of a column
    auto* const panel = reinterpret_cast<std::int8_t*>(small_->bytes.data()) + block * size * width;
    for (Index j = 0; j < width; ++j) {
      const Index row = layout_.row(block, j), column = block * width + j;
      std::int32_t sum = 0;
      for (Index k = 0; k < size; ++k) {
        const std::int8_t value = row >= 0 && k < K_ ? matrix[row * K_ + k] : std::int8_t{0};
        panel[(k / group * width + j) * group + k % group] = value;
        sum += value;
      }
      small_->scales.data()[column] = row >= 0 ? scales[row] : 0;
      if (small_->offsets.size() > 0) small_->offsets.data()[column] = -128 * sum;
    }
  }

  /// row_of(j): the [K] values of column j of a block; those of the rows after it follow.
  template <class RowOf>
  void pack_block(Index block, RowOf row_of) {
    const Index width = layout_.width(), lanes = kernels<T>().lanes;
    for (Index j = 0; j < width; j += lanes) {
      const Index row = layout_.row(block, j);
      const Index rows = row < 0 ? 0 : std::min(lanes, layout_.units - row % layout_.units);
      kernels<T>().transpose_rows({rows, K_, rows > 0 ? row_of(j) : nullptr, K_,
                                   values_->data() + block * K_ * width + j, width});
    }
  }
  /// rows: [width, K] out: a block's columns.
  void unpack_block(Index block, T* rows) const {
    const Index width = layout_.width();
    const T* const panel = values_->data() + block * K_ * width;
    for (Index first = 0; first < K_; first += kLine) {
      const Index n = std::min(kLine, K_ - first);
      for (Index j = 0; j < width; ++j) {
        for (Index k = 0; k < n; ++k) rows[j * K_ + first + k] = panel[(first + k) * width + j];
      }
    }
  }

  /// Some rows, neighbouring columns of one block, as those from `to` on of another panel.
  void transpose_into(WeightPanel& other, Index row, Index some, Index to) const {
    const Index stride = layout_.width(), width = other.layout_.width();
    const Index lanes = kernels<T>().lanes, column = layout_.column(row);
    const T* const from = values_->data() + column / stride * K_ * stride + column % stride;
    for (Index k = 0; k < other.layout_.columns(); k += lanes) {
      const Index inputs = std::clamp<Index>(K_ - k, 0, lanes);
      kernels<T>().transpose_rows(
          {inputs, some, inputs > 0 ? from + k * stride : nullptr, stride,
           other.values_->data() + (k / width * other.K_ + to) * width + k % width, width});
    }
  }

  static constexpr Index kLine = 64 / sizeof(T);  // of a cache line

  PanelLayout layout_{0, 0, 1, 1};
  Index K_ = 0;
  std::unique_ptr<Buffer<T>, LeaveFor<Buffer<T>>> values_;  // [all_blocks][K][width]
  std::unique_ptr<Small> small_;                            // in their place
};

}  // namespace fastlstm

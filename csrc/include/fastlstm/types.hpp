// Sizes and views that every public header shares.
//
// One alphabet everywhere: T time steps, B batch, I input size, H hidden size, L layers,
// D directions (1 or 2), P width of h (the projection's size, or H without one).
#pragma once

#include <cstdint>

namespace fastlstm {

using Index = std::int64_t;

/// The most parts that a cell's state may have: h, and what else a cell remembers.
constexpr Index kMostStateParts = 4;

/// A sequence of rows of contiguous features, in time-major, batch-first or packed order.
///
/// Row (t, b) starts at data + t * stride_t + b * stride_b (strides count elements). Packed, the
/// rows that live at step 0 come first, then those of step 1, ..., stride_b apart, and in each step
/// the longest sequence first, of two that are as long the one that is first in the batch: the
/// order of PyTorch's PackedSequence, where the lengths of the batch do not increase.
template <class T>
struct SequenceView {
  T* data = nullptr;
  Index stride_t = 0;
  Index stride_b = 0;
  bool packed = false;

  /// Rows of width elements, packed.
  static SequenceView packed_rows(T* data, Index width) { return {data, 0, width, true}; }

  /// Not of packed rows.
  T* row(Index t, Index b) const { return data + t * stride_t + b * stride_b; }
};

}  // namespace fastlstm

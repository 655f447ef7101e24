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

/// A sequence of rows of contiguous features, in time-major or batch-first order.
/// Row (t, b) starts at data + t * stride_t + b * stride_b (strides count elements).
template <class T>
struct SequenceView {
  T* data = nullptr;
  Index stride_t = 0;
  Index stride_b = 0;

  T* row(Index t, Index b) const { return data + t * stride_t + b * stride_b; }
};

}  // namespace fastlstm

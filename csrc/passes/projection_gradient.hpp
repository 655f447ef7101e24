// The projection of h in the backward pass, W_hr: gradients of o tanh(c) differ from those of h,
// and its weights' gradient needs both o tanh(c) and the gradient of h. On BLAS.
#pragma once

#include <algorithm>

#include "runtime/blas.hpp"
#include "runtime/room.hpp"
#include "schedule/parts.hpp"
#include "weights/cell_weights.hpp"

namespace fastlstm {

template <class T>
class ProjectionGradient {
 public:
  ProjectionGradient(const CellWeights<T>& weights, Index B, Index block_rows, Room& room)
      : w_(weights) {
    if (!w_.projects) return;
    room.add(d_hidden_, B, w_.H);
    room.add(hidden_, block_rows, w_.H);
    room.add(d_h_, block_rows, w_.P);
  }

  bool projects() const { return w_.projects; }

  /// The gradients of sorted rows first <= b < end before the projection. d_h: [B] of ld_d_h
  /// elements, in; in_block: the block's row of sorted row 0.
  void step(const T* d_h, Index ld_d_h, Index in_block, Index first, Index end) noexcept {
    const Index H = w_.H, P = w_.P;
    for (Index b = first; b < end; ++b) {
      std::copy_n(d_h + b * ld_d_h, P, d_h_.data() + (in_block + b) * P);
    }
    gemm<T>(end - first, H, P, {d_h + first * ld_d_h, ld_d_h}, {w_.W_hr_rows.data(), H}, 0,
            d_hidden_.data() + first * H, H);
  }
  const T* d_hidden() const { return d_hidden_.data(); }  // [B, H]

  /// Where a step leaves h before the projection: [H] of each row of the block; null without.
  T* hidden(Index in_block) { return w_.projects ? hidden_.data() + in_block * w_.H : nullptr; }

  /// d_weight += the gradient from n rows of a block; null: not asked for.
  void add_gradient(Index n, T* d_weight) noexcept {
    if (d_weight == nullptr) return;
    const Index H = w_.H, P = w_.P;
    in_parts_of_rows(P, H * n, [&](Index first, Index rows) {
      gemm<T>(rows, H, n, {d_h_.data() + first, P, true}, {hidden_.data(), H}, 1,
              d_weight + first * H, H);
    });
  }

 private:
  const CellWeights<T>& w_;
  Buffer<T> d_hidden_;  // [B, H]
  Buffer<T> hidden_;    // [block rows, H]
  Buffer<T> d_h_;       // [block rows, P]
};

}  // namespace fastlstm

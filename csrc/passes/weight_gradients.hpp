// The products of the backward pass over all rows of a block of steps: gradients of W, R and x.
#pragma once

#include <vector>

#include "cells/cell.hpp"
#include "runtime/room.hpp"
#include "schedule/shares.hpp"

namespace fastlstm {

/// What the steps of a block leave for them.
template <class T>
struct BlockGradients {
  Index first_row, rows;  // packed
  const T* d_gates;       // [rows, G H] of W x
  const T* d_from_h;      // the same of R h
};

template <class T>
class WeightGradients {
 public:
  struct Outputs {
    const T* x;       // [rows of the sequence, I] in
    T* d_x;           // the same, out; null: not computed
    bool add_to_d_x;  // d_x: in and out
    T* d_W;           // [G H, I] added to; null: not computed
    T* d_R;           // [G H, P] the same
  };

  WeightGradients(const CellWeights<T>& weights, const Outputs& outputs,
                  std::vector<RInputs<T>> R_inputs, int threads, Index block_rows, Room& room);

  /// To be called before the tasks of a block.
  void begin(const BlockGradients<T>& block);
  Index tasks() const { return of_W_ + of_R_ + of_rows_; }
  /// The tasks that come before all small ones, of other parameters.
  Index first_tasks() const { return d_x_first_ ? of_rows_ : 0; }
  /// Task k of the block, on any thread: the one of this rank. The bits of results do not depend on
  /// the threads.
  void run(Index k, int rank) noexcept;

 private:
  /// Whether the gradient of a weight matrix with so many columns is computed by our own kernel.
  static bool on_tiles(Index columns);
  /// A thread's room for that.
  static Index room_values(Index columns, Index block_rows);
  /// The pieces of the gradient of a weight matrix, with so many columns in all.
  Index weight_pieces(Index columns) const;
  Index weight_piece_columns(Index columns) const;
  Index weight_piece_rows(Index columns) const;
  /// Piece k of: d_weight += d_sums^T values, of its rows first <= j < end. d_sums: [n, G H];
  /// values: [n, columns]; d_weight: [G H, columns]; room: the thread's part of room_.
  void add_products(const T* d_sums, Index k, Index first, Index end, const T* values,
                    Index columns, T* d_weight, T* room) const noexcept;
  /// Whether the product's rows are those of d_x, or are to be added to it or cut.
  bool writes_d_x() const;
  /// d_x = d_gates W, or d_x += d_gates W, for some rows of the block.
  void d_x_product(Piece p) noexcept;

  const CellWeights<T>& w_;
  const Outputs out_;
  const std::vector<RInputs<T>> R_inputs_;
  const int threads_;
  Buffer<T> d_x_;  // [block rows] of I padded to whole blocks of a panel; empty if not needed
  const Index ld_room_;
  Buffer<T> room_;  // [threads] of ld_room: for the kernel of products on tiles
  // Of the block in work:
  BlockGradients<T> block_{};
  Index of_W_ = 0, of_R_ = 0, of_rows_ = 0;  // tasks
  bool d_x_first_ = false;
};

}  // namespace fastlstm

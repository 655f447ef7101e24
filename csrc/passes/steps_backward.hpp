// The steps of the backward pass of one layer and direction: the gradient of the state goes from
// each step to the one before.
#pragma once

#include <memory>

#include "cells/cell.hpp"
#include "passes/layers.hpp"
#include "passes/projection_gradient.hpp"

namespace fastlstm {

/// What the forward pass left, and gradients that come and go. Rows are packed, or sorted [B].
template <class T>
struct StepsBackwardCall {
  const T* h_0 = nullptr;       // [B, P] in
  const T* memory_0 = nullptr;  // [B, M] in
  const T* output =
      nullptr;  // packed rows of ld_output elements; in: P of each, what forward wrote
  Index ld_output = 0;
  const T* gates = nullptr;     // [rows, gates_width] in, as saved
  const T* memory = nullptr;    // [rows, M] in, as saved
  const T* d_output = nullptr;  // as output; in; null: zeros
  T* d_h = nullptr;             // [B, P] in: gradient of h_n; out: of h_0
  T* d_memory = nullptr;        // [B, M] in: the same of the memory; out
  T* d_h_past_R = nullptr;  // [B, H] in and out: the part of d_h that did not come through R, where
                            // the cell keeps it apart (Cell::keeps_h_apart); null otherwise
  T* d_h_steps = nullptr;   // [rows, P] out: d_h as it comes to each step; null: not asked for
  T* d_memory_steps = nullptr;  // [rows, M] out: the same of the memory
};

template <class T>
class StepsBackward {
 public:
  /// shape: less what only this class knows: ld_d_h and the masks.
  StepsBackward(const Layers<T>& layers, BackwardShape<T> shape, const CellMasks<T>& masks,
                const StepsBackwardCall<T>& call, Room& room);

  /// Step t of a block for the rows of a task, or those that live of them. All threads that share
  /// it call it: what is not products with R is the first one's.
  void step(const StepBlock& block, Index t, Index task, Piece rows, const Share& share) noexcept;

  /// Writes the gradient of h_0 where the call wants it.
  void finish();

  // What the steps of a block leave, for gradients of parameters.
  const T* d_gates() const { return d_gates_.data(); }  // [block rows, G H] of W x
  const T* h_prev() const { return h_prev_.data(); }    // [block rows, P] what R read
  const BackwardCell<T>& cell() const { return *cell_; }
  /// Adds those of all parameters but W and R.
  void add_gradients(Index rows, const CellParams<T>& d) noexcept;

 private:
  /// What rows first <= b < end of a step came from: those before `carried` from packed row
  /// `row + b`, the others (which started here) from the initial state.
  struct PreviousRows {
    Index carried;
    Index row;
  };
  PreviousRows previous_rows(Index t, Index first, Index end) const;
  /// Gradients that reach step t, and h'.
  void begin(Index t, const PreviousRows& previous, Index in_block, Index first,
             Index end) noexcept;
  /// What zoneout keeps from going through the cell.
  void keep_h(Index t, Index first, Index end) noexcept;
  /// What R read, and its gradient; what zoneout sends a step back.
  void end(T* h_prev, Index first, Index end) noexcept;

  const CellWeights<T>& w_;
  const RowSchedule& rows_;
  const bool backward_;
  const Index gates_width_;
  const CellMasks<T> masks_;
  const StepsBackwardCall<T> call_;
  const Index ld_d_h_;
  Buffer<T> d_h_;      // [B] of ld_d_h: gradient of h, from the steps after
  Buffer<T> d_gates_;  // [block rows, G H]
  Buffer<T> h_prev_;   // [block rows, P]
  // Regularisation; empty without:
  Buffer<T> keep_c_;    // [B, H] zoneout of one step
  Buffer<T> d_kept_h_;  // [B, P] the part of the gradient of h that zoneout sends a step back
  Buffer<T> h_mask_;    // [B, P] recurrent dropout
  ProjectionGradient<T> projection_;
  std::unique_ptr<BackwardCell<T>> cell_;
};

}  // namespace fastlstm

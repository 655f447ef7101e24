// The parameters of one layer and direction, copied into the layout that the kernels want.
#pragma once

#include <memory>

#include "fastlstm/stack.hpp"
#include "rnn/cell_kernels.hpp"
#include "runtime/buffer.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

/// Columns in whole blocks of four vectors: those of the panels for the backward pass.
template <class T>
Index backward_columns(Index columns) {
  const Index width = 4 * kernels<T>().lanes;
  return (columns + width - 1) / width * width;
}

/// The weights of a cell's input.
template <class T>
struct InputWeights {
  Buffer<T> W;      // [G H, I]
  Buffer<T> panel;  // [blocks][I][V][lanes]
  FilledOnce<T> backward_panel;
};

template <class T>
struct CellWeights {
  /// params: read during the construction only. input: of other weights, which are the same; null:
  /// those of params. Weight dropout draws R alone anew for each call.
  CellWeights(const StackConfig& config, Index layer, const CellParams<const T>& params,
              std::shared_ptr<InputWeights<T>> input = nullptr);

  Index I;  // this layer's input size
  Index H;
  Index P;
  Index C;   // width of c: H, or 0 for cells without
  Index GH;  // rows of W and R: gates times H
  Index SH;  // gates that training saves of each row: saved_gates times H
  bool projects;
  CellKernels<T> cell;
  std::shared_ptr<InputWeights<T>> input;
  Buffer<T> R;             // [G H, P]
  Buffer<T> bias;          // [G H] the sum of both biases; zeros without
  Buffer<T> bias_h;        // GRU: [H] of R_n h, not in the sum, padded to whole blocks; else empty
  Buffer<T> W_hr;          // [P, H]; empty without a projection
  Buffer<T> peephole;      // [3] of H padded to whole vectors: of i, f, o; empty without
  Buffer<T> norm_values;   // [10H] what norm points to; empty without
  LstmNorm<T> norm{};      // of layer normalisation; its bias is that of the gates
  StepOptions<T> options;  // not used where they are plain
  bool plain;

  // The same for tile kernels (kernels/arguments.hpp says how panels look); empty on targets that
  // do their products with BLAS.
  Index blocks = 0;       // of units
  Index width = 0;        // columns of a block: V * lanes
  Index parts = 1;        // panels of so many blocks, one after another: gates of a cell in halves
  Index proj_blocks = 0;  // of the projection's columns
  Buffer<T> R_panel;      // [blocks][P][V][lanes]
  Buffer<T> bias_panel;   // [blocks][V][lanes]
  Buffer<T> W_hr_panel;   // [proj_blocks][H][4][lanes]

  /// The options for a step of this cell; null: none.
  const StepOptions<T>* step_options() const { return plain ? nullptr : &options; }

  /// For d_h = d_gates R and d_x = d_gates W on tile kernels: [blocks of columns][G H][4][lanes].
  /// Packed when first asked for, since inference never is. Safe from several threads.
  const T* R_backward_panel() const;
  const T* W_backward_panel() const;

 private:
  void pack_panels();

  mutable FilledOnce<T> R_backward_panel_;
};

}  // namespace fastlstm

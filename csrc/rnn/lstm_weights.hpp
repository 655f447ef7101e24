// The parameters of one layer and direction, copied into the layout that the kernels want.
#pragma once

#include <mutex>

#include "fastlstm/lstm.hpp"
#include "runtime/buffer.hpp"

namespace fastlstm {

template <class T>
struct LstmWeights {
  /// params: read during the construction only.
  LstmWeights(const LstmConfig& config, Index layer, const LstmParams<const T>& params);

  Index I;  // this layer's input size
  Index H;
  Index P;
  bool projects;
  Buffer<T> W;     // [4H, I]
  Buffer<T> R;     // [4H, P]
  Buffer<T> bias;  // [4H] the sum of both biases; zeros without
  Buffer<T> W_hr;  // [P, H]; empty without a projection

  // The same for tile kernels (kernels/arguments.hpp says how panels look); empty on targets that
  // do their products with BLAS.
  Index blocks = 0;       // of units
  Index proj_blocks = 0;  // of the projection's columns
  Buffer<T> W_panel;      // [blocks][I][4][lanes]
  Buffer<T> R_panel;      // [blocks][P][4][lanes]
  Buffer<T> bias_panel;   // [blocks][4][lanes]
  Buffer<T> W_hr_panel;   // [proj_blocks][H][4][lanes]

  /// For d_h = d_gates R on tile kernels: [blocks of P columns][4H][4][lanes]. Packed when first
  /// asked for, since inference never is. Safe from several threads.
  const T* R_backward_panel() const;

 private:
  void pack_panels();

  mutable std::once_flag packed_for_backward_;
  mutable Buffer<T> R_backward_panel_;
};

}  // namespace fastlstm

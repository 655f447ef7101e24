// The parameters of one layer and direction, copied into the layout that the kernels want.
#pragma once

#include <memory>
#include <vector>

#include "fastlstm/config.hpp"
#include "fastlstm/parameters.hpp"
#include "runtime/buffer.hpp"
#include "runtime/spare.hpp"
#include "weights/weight_panel.hpp"

namespace fastlstm {

/// What the weights of a cell look like to its kernels.
template <class T>
struct WeightShape {
  PanelLayout layout;  // of W and R
  /// Gates, from the first, whose products with R the backward pass does in one go; the others in
  /// another.
  Index R_gates_at_once;
  /// Gates, up to the last, whose bias_hh is not in the sum, since something stands between.
  Index gates_of_bias_h = 0;
  /// Whether the bias is added to W x by the products.
  bool bias_in_products = true;
  /// The parameters that are neither weights of products nor biases, as the cell's kernels want
  /// them; null: there are none.
  Buffer<T> (*pack_others)(const StackConfig& config, const CellParams<const T>& params) = nullptr;
};

/// The memory of a cell's panels, for one after another with other parameters. Places for the large
/// ones; the two of R_backward for those of the first gates and the others.
template <class T>
struct SparePanels {
  using Place = std::shared_ptr<Spare<Buffer<T>>>;

  Place W = make(), W_backward = make(), R = make(), R_backward[2] = {make(), make()};

  /// No places: memory is released with each panel.
  static SparePanels none() {
    SparePanels panels;
    panels.W = panels.W_backward = panels.R = panels.R_backward[0] = panels.R_backward[1] = nullptr;
    return panels;
  }

 private:
  static Place make() { return std::make_shared<Spare<Buffer<T>>>(); }
};

/// The weights of a cell's input.
template <class T>
struct InputWeights {
  WeightPanel<T> W;                       // [G H, I]
  FilledOnce<WeightPanel<T>> W_backward;  // [I, G H]
};

template <class T>
struct CellWeights {
  /// params, small: read during the construction only. small: null, or the weights.
  CellWeights(const StackConfig& config, const WeightShape<T>& shape, Index layer,
              const CellParams<const T>& params, const SparePanels<T>& spare,
              const SmallWeights* small);
  /// The same with another R, for weight dropout. Shares the weights of the input.
  CellWeights(const CellWeights& other, WeightPanel<T> other_R);

  Index I;  // this layer's input size
  Index H;
  Index P;
  Index M;   // values of the state's parts besides h
  Index GH;  // rows of W and R: gates times H
  bool projects;
  WeightShape<T> shape;
  std::shared_ptr<InputWeights<T>> input;
  WeightPanel<T> R;      // [G H, P]
  WeightPanel<T> W_hr;   // [P, H]; empty without a projection
  Buffer<T> bias;        // [G H] the sum of both biases; zeros without
  Buffer<T> bias_panel;  // the same as a panel; empty where products do not add it
  Buffer<T> bias_h;      // of gates_of_bias_h gates, padded to whole blocks; empty without
  Buffer<T> W_hr_rows;   // [P, H] for products on BLAS; empty without, or where weights are small
  Buffer<T> others;      // as the cell packs them

  /// Rows of R whose gradients are multiplied with it in one go: as many from the first.
  Index R_rows_at_once() const { return shape.R_gates_at_once * H; }
  /// For d_h = d_gates R (of the first rows and of the others) and d_x = d_gates W. Packed when
  /// first asked for, since inference never is. Safe from several threads.
  const std::vector<WeightPanel<T>>& R_backward() const;
  const WeightPanel<T>& W_backward() const;

 private:
  const SparePanels<T> spare_;
  mutable FilledOnce<std::vector<WeightPanel<T>>> R_backward_;
};

/// Columns in whole blocks of a plain matrix: what the products of the backward pass write.
template <class T>
Index backward_columns(Index columns) {
  return PanelLayout::of_matrix(1, columns, kernels<T>().lanes).columns();
}

/// The bytes of a cell's R, and its projection, packed for training: of weight dropout.
template <class T>
Index bytes_of_R(const StackConfig& config, const WeightShape<T>& shape);

}  // namespace fastlstm

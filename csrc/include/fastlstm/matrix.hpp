// Products of a linear layer, for C++ callers: forward and backward, without a BLAS. Each element
// is summed in one order: the same bits for any number of threads and of rows.
#pragma once

#include <memory>

#include "fastlstm/types.hpp"

namespace fastlstm {

template <class T>
class WeightPanel;

/// A matrix W, packed for products with it from the right. It does not change.
template <class T>
class PackedMatrix {
 public:
  /// W: [rows, columns] in, read during the construction only.
  PackedMatrix(Index rows, Index columns, const T* W);

  Index rows() const { return rows_; }
  Index columns() const { return columns_; }

  /// The transposed matrix, packed anew.
  PackedMatrix transposed() const;

  /// y = x W^T + bias. x: [n, columns] in. bias: [rows] in; null: zeros. y: [n, rows] out, not x.
  void multiply(Index n, const T* x, const T* bias, T* y) const;

 private:
  PackedMatrix(Index rows, Index columns, std::shared_ptr<const WeightPanel<T>> panel);

  Index rows_, columns_;
  std::shared_ptr<const WeightPanel<T>> panel_;
};

/// d_W += d_y^T x. d_y: [n, rows] in; x: [n, columns] in; d_W: [rows, columns] in and out, no part
/// of either.
template <class T>
void add_products(Index n, Index rows, Index columns, const T* d_y, const T* x, T* d_W);

/// sums += the sums of the columns of values. values: [n, columns] in; sums: [columns] in and out.
template <class T>
void add_sums(Index n, Index columns, const T* values, T* sums);

}  // namespace fastlstm

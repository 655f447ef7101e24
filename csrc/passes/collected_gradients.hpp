// What CollectedGradients holds, for the passes that add to it.
#pragma once

#include <memory>

#include "fastlstm/collected.hpp"
#include "runtime/buffer.hpp"
#include "weights/cell_weights.hpp"

namespace fastlstm {

template <class T>
struct CollectedGradients<T>::State {
  StackConfig config;
  CellParams<T> d;
  std::shared_ptr<const CellWeights<T>> weights;  // of the last pass: the products ask for sizes
  Index rows = 0;                                 // that are there
  Buffer<T> x, h;               // [capacity, I] and [capacity, P]: what W and R multiplied
  Buffer<T> d_gates, d_from_h;  // [capacity, G H] gradients of W x and of R h; the second is empty
                                // where it is the first
  bool apart = false;           // whether it is not

  /// Makes room for n more rows; multiplies those that are there where they are many.
  void prepare(const std::shared_ptr<const CellWeights<T>>& of_pass, Index n);
  /// from_h: gates where the gradients are the same.
  void add(Index n, const T* x_rows, const T* h_rows, const T* gates, const T* from_h);
  void multiply();
};

}  // namespace fastlstm

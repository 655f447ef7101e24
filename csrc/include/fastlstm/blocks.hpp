// What stands around recurrent layers, beside products (matrix.hpp): losses over many classes, sums
// of gradients by row, dropout and pooling. Rows are divided among threads, and none is split: the
// same bits for any number of threads.
#pragma once

#include <cstdint>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// The cross-entropy of softmax(logits) and one class for each row, with label smoothing:
///   loss = weight_y (1 - smoothing) (-log p_y) + smoothing / V sum_c weight_c (-log p_c)
template <class T>
struct CrossEntropyRows {
  Index n, V;
  double smoothing;
  double factor;                // of gradients
  const T* logits;              // [n, V] in
  const Index* classes;         // [n] in: y < V; below zero: the row does not count
  const double* class_weights;  // [V] in; null: ones
  double* losses;               // [n] out; zero where the row does not count
  T* d_logits;                  // [n, V] out: of the sum of losses, times factor; may be logits
};
template <class T>
void cross_entropy_rows(const CrossEntropyRows<T>& call);

/// sums[g] = the sum of the rows values[order[k]] for first[g] <= k < first[g + 1].
/// first: [groups + 1] in, ascending; order: in; values: rows of `width` in; sums: [groups, width]
/// out.
template <class T>
void sum_rows(Index groups, Index width, const Index* first, const Index* order, const T* values,
              T* sums);

/// y = x times the mask of dropout, which is drawn from (seed, row, column) as a layer's.
/// x: [n, width] in; y: the same, out; may be x.
template <class T>
void drop(Index n, Index width, std::uint64_t seed, double p, const T* x, T* y);

/// Of each sequence the largest value of each feature, and its step. A NaN is larger than any
/// number. lengths: [B] in; of no steps: zeros, and step -1. x: rows of `width`, in; largest: [B,
/// width] out; at: the same.
template <class T>
void max_over_time(Index B, Index width, const Index* lengths, const SequenceView<const T>& x,
                   T* largest, Index* at);

/// Of each sequence the sum of each feature. x: rows of `width`, in; sums: [B, width] out.
template <class T>
void sum_over_time(Index B, Index width, const Index* lengths, const SequenceView<const T>& x,
                   T* sums);

}  // namespace fastlstm

// A linear-chain conditional random field over the tags of sequences, for C++ callers. The score of
// a path y of a sequence of T steps is
//   start_{y_0} + sum_t emission_t{y_t} + sum_t transitions_{y_{t-1} y_t} + end_{y_{T-1}},
// and its probability exp(score) / Z, with Z the sum over all paths.
//
// Rows are independent of each other but for the sums of the parameters' gradients, which are
// grouped by B alone: the same bits for any number of threads.
#pragma once

#include "fastlstm/types.hpp"

namespace fastlstm {

template <class T>
struct CrfCall {
  Index steps;  // T
  Index B;
  Index n;                          // tags
  const Index* lengths;             // [B] 0 <= length <= steps; null: all are of all steps
  SequenceView<const T> emissions;  // features: n
  const T *start, *end;             // [n] in
  const T* transitions;             // [n, n] in: from and to
};

/// Gradients of scale times the sum of all losses. All are written.
template <class T>
struct CrfGradients {
  double scale;
  SequenceView<T> d_emissions;  // features: n; zero past an end. Not the emissions
  T *d_start, *d_end;           // [n]
  T* d_transitions;             // [n, n]
};

/// losses: [B] out: log Z less the score of the tags; 0 of a sequence without steps.
/// tags: one a step, 0 <= tag < n; what is past an end is not read.
template <class T>
void crf_loss(const CrfCall<T>& call, SequenceView<const Index> tags,
              const CrfGradients<T>& gradients, double* losses);

/// p: features: n, out: the probability of each tag at each step; zero past an end.
template <class T>
void crf_marginals(const CrfCall<T>& call, SequenceView<T> p);

/// tags: out: the path with the highest score, of equal ones that with the lowest tags at its end;
/// -1 past an end.
template <class T>
void crf_decode(const CrfCall<T>& call, SequenceView<Index> tags);

}  // namespace fastlstm

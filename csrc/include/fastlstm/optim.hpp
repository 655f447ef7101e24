// The arithmetic of an optimiser's step over large arrays, for C++ callers. Elements are
// independent of each other, or summed in pieces that do not depend on the number of threads: the
// same bits for any number.
#pragma once

#include "fastlstm/types.hpp"

namespace fastlstm {

/// One step of Adam (python/fastlstm/optim.py says how, and what the numbers are):
///   g = g + decay p
///   m = beta1 m + (1 - beta1) g
///   v = beta2 v + (1 - beta2) g g
///   p = p shrink - step m / (sqrt(v) / root + eps)
template <class T>
struct AdamStep {
  Index n;
  double beta1, beta2, eps, decay, shrink, root, step;
  const T* p;  // [n] in
  const T* g;  // [n] in
  T* m;        // [n] in and out
  T* v;        // [n] in and out
  T* p_new;    // [n] out; may be p
};

/// The sum of squares of x[0 .. n), in float64.
template <class T>
double sum_of_squares(Index n, const T* x);

/// y = x factor, multiplied in float64. y: [n] out, not x.
template <class T>
void scale(Index n, const T* x, double factor, T* y);

template <class T>
void adam(const AdamStep<T>& step);

}  // namespace fastlstm

// A step of a linear-chain CRF (Lafferty, McCallum, Pereira 2001).
//
// The sum over the tags before a step is a product of a row and a matrix of exponentials: n
// exponentials and n logarithms a step, where a sum of n^2 exponentials would need as many.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Below it a sum of products that are at most 1 has lost digits, since some of them were flushed.
template <class T>
constexpr T kLeastCrfSum = sizeof(T) == 4 ? T(1e-24) : T(1e-280);

/// Calls done(j, sums) with V vectors of the row times the matrix, from column j on.
template <int V, class T, class Done>
FASTLSTM_INLINE void row_times_columns(Index n, Index width, const T* row, const T* matrix, Index j,
                                       Done done) {
  constexpr int kChains = 4 / V;  // so that sums need not wait for each other
  Vec<T> sums[4] = {};
  Index i = 0;
  for (; i + kChains <= n; i += kChains) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const T* at = matrix + (i + k / V) * width + j + k % V * Vec<T>::kLanes;
      sums[k] = fma(Vec<T>::broadcast(row[i + k / V]), Vec<T>::load(at), sums[k]);
    }
  }
  for (; i < n; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < V; ++k) {
      const T* at = matrix + i * width + j + k * Vec<T>::kLanes;
      sums[k] = fma(Vec<T>::broadcast(row[i]), Vec<T>::load(at), sums[k]);
    }
  }
  if constexpr (V == 1) sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma GCC unroll 4
  for (int k = 0; k < V; ++k) done(j + k * Vec<T>::kLanes, sums[k]);
}

/// row: [n] in; matrix: [n, width] in. Calls done(j, sums) for all vectors of the product.
template <class T, class Done>
FASTLSTM_INLINE void row_times_matrix(Index n, Index width, const T* row, const T* matrix,
                                      Done done) {
  Index j = 0;
  for (; j + 4 * Vec<T>::kLanes <= width; j += 4 * Vec<T>::kLanes) {
    row_times_columns<4>(n, width, row, matrix, j, done);
  }
  for (; j < width; j += Vec<T>::kLanes) row_times_columns<1>(n, width, row, matrix, j, done);
}

template <class T>
FASTLSTM_INLINE T smallest_lane(Vec<T> v) {
  return -largest_lane(Vec<T>::broadcast(0) - v);
}

/// exp(x) and log(x) of one value.
template <class T>
FASTLSTM_INLINE T exp_of(T x) {
  return exp(Vec<T>::broadcast(x)).raw[0];
}
template <class T>
FASTLSTM_INLINE T log_of(T x) {
  return log(Vec<T>::broadcast(x)).raw[0];
}

/// log sum_i exp(alpha_i + scores_ij).
template <class T>
FASTLSTM_NOINLINE T log_sum_before(const CrfTransitions<T>& transitions, const T* alpha, Index j) {
  const T* column = transitions.scores + j;
  T most = -kInfinity<T>;
  for (Index i = 0; i < transitions.n; ++i) {
    const T x = alpha[i] + column[i * transitions.width];
    most = x > most ? x : most;
  }
  if (most == -kInfinity<T>) return most;
  T sum = 0;
  for (Index i = 0; i < transitions.n; ++i) {
    sum += exp_of(alpha[i] + column[i * transitions.width] - most);
  }
  return most + log_of(sum);
}

/// The largest of a row becomes 0. Returns what it was; where all are -inf they stay, and it is 0.
template <class T>
FASTLSTM_INLINE T subtract_largest(Index width, T largest, T* row) {
  const T scale = largest == -kInfinity<T> ? T(0) : largest;
  const Vec<T> shift = Vec<T>::broadcast(scale);
  for (Index j = 0; j < width; j += Vec<T>::kLanes) (Vec<T>::load(row + j) - shift).store(row + j);
  return scale;
}

template <class T>
void crf_step(const CrfStep<T>& arguments) noexcept {
  const CrfStep<T> s = arguments;
  const CrfTransitions<T> transitions = *s.transitions;
  const Index n = transitions.n, width = transitions.width;
  Vec<T> least = Vec<T>::broadcast(1);
  Vec<T> largest = Vec<T>::broadcast(-kInfinity<T>);
  row_times_matrix(
      n, width, s.a, transitions.weights, [&](Index j, Vec<T> sums) FASTLSTM_INLINE_LAMBDA {
        sums.store(s.sums + j);
        least = min(sums, least);
        const Vec<T> alpha =
            log(sums) + Vec<T>::load(transitions.most + j) + Vec<T>::load(s.emission + j);
        alpha.store(s.alpha_next + j);
        largest = max(alpha, largest);
      });
  T most = largest_lane(largest);
  if (unlikely(smallest_lane(least) < kLeastCrfSum<T>)) {
    most = -kInfinity<T>;
    for (Index j = 0; j < n; ++j) {
      if (s.sums[j] < kLeastCrfSum<T>) {
        s.sums[j] = 0;
        s.alpha_next[j] = log_sum_before(transitions, s.alpha, j) + s.emission[j];
      }
      most = s.alpha_next[j] > most ? s.alpha_next[j] : most;
    }
  }
  *s.scale = subtract_largest(width, most, s.alpha_next);
  for (Index j = 0; j < width; j += Vec<T>::kLanes) {
    exp(Vec<T>::load(s.alpha_next + j)).store(s.a_next + j);
  }
}

template <class T>
void crf_step_backward(const CrfStepBackward<T>& arguments) noexcept {
  const CrfStepBackward<T> s = arguments;
  const CrfTransitions<T> transitions = *s.transitions;
  const Index n = transitions.n, width = transitions.width;
  Vec<T> least = Vec<T>::broadcast(1);
  for (Index j = 0; j < width; j += Vec<T>::kLanes) {
    const Vec<T> sums = Vec<T>::load(s.sums + j);
    least = min(sums, least);
    (Vec<T>::load(s.p_next + j) / sums).store(s.q + j);
  }
  const bool sums_lack = smallest_lane(least) <= 0;
  if (unlikely(sums_lack)) {
    for (Index j = 0; j < n; ++j) {
      if (s.sums[j] == 0) s.q[j] = 0;
    }
  }
  row_times_matrix(n, width, s.q, transitions.weights_T,
                   [&](Index i, Vec<T> sums)
                       FASTLSTM_INLINE_LAMBDA { (Vec<T>::load(s.a + i) * sums).store(s.p + i); });
  if (!unlikely(sums_lack)) return;
  for (Index j = 0; j < n; ++j) {
    if (s.sums[j] != 0 || s.p_next[j] == 0) continue;
    const T all = log_sum_before(transitions, s.alpha, j);
    for (Index i = 0; i < n; ++i) {
      const T share = exp_of(s.alpha[i] + transitions.scores[i * width + j] - all);
      s.p[i] += s.p_next[j] * share;
      s.counts[i * width + j] += s.p_next[j] * share;
    }
  }
}

template <class T>
void crf_best_step(const CrfBestStep<T>& arguments) noexcept {
  const CrfBestStep<T> s = arguments;
  const CrfTransitions<T> transitions = *s.transitions;
  const Index n = transitions.n, width = transitions.width;
  const Vec<T> nothing = Vec<T>::broadcast(-kInfinity<T>);
  Vec<T> largest = nothing;
  for (Index j = 0; j < width; j += Vec<T>::kLanes) {
    Vec<T> best = nothing, other = nothing;
    const T* column = transitions.scores + j;
    Index i = 0;
    for (; i + 2 <= n; i += 2) {
      best = max(Vec<T>::broadcast(s.best[i]) + Vec<T>::load(column + i * width), best);
      other = max(Vec<T>::broadcast(s.best[i + 1]) + Vec<T>::load(column + (i + 1) * width), other);
    }
    if (i < n) best = max(Vec<T>::broadcast(s.best[i]) + Vec<T>::load(column + i * width), best);
    best = max(other, best) + Vec<T>::load(s.emission + j);
    best.store(s.best_next + j);
    largest = max(best, largest);
  }
  *s.scale = subtract_largest(width, largest_lane(largest), s.best_next);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

#include "fastlstm/blocks.hpp"

#include <algorithm>
#include <cmath>

#include "fastlstm/runtime.hpp"
#include "passes/masks.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"
#include "schedule/shares.hpp"

namespace fastlstm {

namespace {

/// Calls body(k) for 0 <= k < n, each on one thread, in pieces of rows of `width` values, of about
/// kPieceValues each.
template <class Body>
void for_each_row(Index n, Index width, const Body& body) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a piece
  const Index rows = std::max<Index>(1, kPieceValues / std::max<Index>(width, 1));
  const Index tasks = pieces(n, rows);
  const Index per_thread = static_cast<Index>(tuning().pieces_per_thread);
  TeamLease team(static_cast<int>(std::clamp<Index>(tasks / per_thread, 1, num_threads())));
  team.run_tasks(tasks, [&](Index task, int) noexcept {
    const Piece p = piece(n, task, rows);
    if (interrupted_before(p.size * width)) return;
    for (Index k = p.first; k < p.first + p.size; ++k) body(k);
  });
}

/// The weights in the loss of a row of class y: of that class alone, of each class by its share in
/// smoothing, and of all together.
template <class T>
struct ClassWeights {
  ClassWeights(const CrossEntropyRows<T>& c, Index y)
      : weights(c.class_weights),
        each(c.smoothing / static_cast<double>(c.V)),
        of_y((1 - c.smoothing) * (weights != nullptr ? weights[y] : 1)),
        all(of_y) {
    for (Index k = 0; each > 0 && k < c.V; ++k) all += of(k);
  }
  double of(Index k) const { return weights != nullptr ? each * weights[k] : each; }

  const double* weights;
  double each, of_y, all;
};

/// The loss of a row, and its gradients.
template <class T>
void cross_entropy_row(const CrossEntropyRows<T>& c, Index row) {
  const Index V = c.V, y = c.classes[row];
  const T* const logits = c.logits + row * V;
  T* const d = c.d_logits + row * V;
  c.losses[row] = 0;
  if (y < 0) {
    std::fill_n(d, V, T(0));
    return;
  }
  const ClassWeights<T> weights(c, y);
  // Before exp takes the place of the logits: how far they are from that of y, not from zero, so
  // that no digits are lost where all are large.
  const auto of_y = static_cast<double>(logits[y]);
  const double near = std::isfinite(of_y) ? of_y : 0;
  double loss = weights.of_y > 0 ? -weights.of_y * (of_y - near) : 0;
  for (Index k = 0; weights.each > 0 && k < V; ++k) {
    if (weights.of(k) > 0) loss -= weights.of(k) * (static_cast<double>(logits[k]) - near);
  }
  T most = 0;
  double sum = 0;
  kernels<T>().softmax_row({V, logits, d, &most, &sum});
  c.losses[row] = loss + weights.all * (static_cast<double>(most) - near + std::log(sum));
  const T scale = static_cast<T>(c.factor * weights.all / sum);
  for (Index k = 0; k < V; ++k) d[k] *= scale;
  d[y] -= static_cast<T>(c.factor * weights.of_y);
  for (Index k = 0; weights.each > 0 && k < V; ++k) {
    d[k] -= static_cast<T>(c.factor * weights.of(k));
  }
}

}  // namespace

template <class T>
void cross_entropy_rows(const CrossEntropyRows<T>& call) {
  for_each_row(call.n, call.V, [&](Index row) { cross_entropy_row(call, row); });
}

template <class T>
void sum_rows(Index groups, Index width, const Index* first, const Index* order, const T* values,
              T* sums) {
  for_each_row(groups, width, [&](Index g) {
    T* const sum = sums + g * width;
    std::copy_n(values + order[first[g]] * width, width, sum);
    for (Index k = first[g] + 1; k < first[g + 1]; ++k) {
      const T* const row = values + order[k] * width;
      for (Index j = 0; j < width; ++j) sum[j] += row[j];
    }
  });
}

template <class T>
void drop(Index n, Index width, std::uint64_t seed, double p, const T* x, T* y) {
  for_each_row(n, width, [&](Index row) {
    kernels<T>().dropout_row({width, seed, mask_stream(MaskKind::kDropout, 0),
                              static_cast<std::uint64_t>(row), p, x + row * width,
                              y + row * width});
  });
}

template <class T>
void max_over_time(Index B, Index width, const Index* lengths, const SequenceView<const T>& x,
                   T* largest, Index* at) {
  const Index steps = B > 0 ? *std::max_element(lengths, lengths + B) : 0;
  for_each_row(B, width * std::max<Index>(steps, 1), [&](Index b) {
    T* const best = largest + b * width;
    Index* const step = at + b * width;
    std::fill_n(best, width, T(0));
    std::fill_n(step, width, Index{-1});
    if (lengths[b] == 0) return;
    std::copy_n(x.row(0, b), width, best);
    std::fill_n(step, width, Index{0});
    for (Index t = 1; t < lengths[b]; ++t) {
      const T* const row = x.row(t, b);
      for (Index j = 0; j < width; ++j) {
        const bool more = !(row[j] <= best[j]) && !std::isnan(best[j]);  // the first NaN stays
        best[j] = more ? row[j] : best[j];
        step[j] = more ? t : step[j];
      }
    }
  });
}

template <class T>
void sum_over_time(Index B, Index width, const Index* lengths, const SequenceView<const T>& x,
                   T* sums) {
  const Index steps = B > 0 ? *std::max_element(lengths, lengths + B) : 0;
  for_each_row(B, width * std::max<Index>(steps, 1), [&](Index b) {
    T* const sum = sums + b * width;
    std::fill_n(sum, width, T(0));
    for (Index t = 0; t < lengths[b]; ++t) {
      const T* const row = x.row(t, b);
      for (Index j = 0; j < width; ++j) sum[j] += row[j];
    }
  });
}

#define FASTLSTM_INSTANTIATE(T)                                                                \
  template void cross_entropy_rows<T>(const CrossEntropyRows<T>&);                             \
  template void sum_rows<T>(Index, Index, const Index*, const Index*, const T*, T*);           \
  template void drop<T>(Index, Index, std::uint64_t, double, const T*, T*);                    \
  template void max_over_time<T>(Index, Index, const Index*, const SequenceView<const T>&, T*, \
                                 Index*);                                                      \
  template void sum_over_time<T>(Index, Index, const Index*, const SequenceView<const T>&, T*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

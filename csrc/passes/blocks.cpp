#include "fastlstm/blocks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fastlstm/runtime.hpp"
#include "passes/masks.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"
#include "schedule/shares.hpp"

namespace fastlstm {

namespace {

/// Calls body(piece) for pieces of n rows of `width` values, of about kPieceValues each.
template <class Body>
void for_each_piece(Index n, Index width, const Body& body) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a piece
  const Index rows = std::max<Index>(1, kPieceValues / std::max<Index>(width, 1));
  const Index tasks = pieces(n, rows);
  const Index per_thread = static_cast<Index>(tuning().pieces_per_thread);
  TeamLease team(static_cast<int>(std::clamp<Index>(tasks / per_thread, 1, num_threads())));
  team.run_tasks(tasks, [&](Index task, int) noexcept {
    const Piece p = piece(n, task, rows);
    if (!interrupted_before(p.size * width)) body(p);
  });
}

/// Calls body(k) for 0 <= k < n, each on one thread.
template <class Body>
void for_each_row(Index n, Index width, const Body& body) {
  for_each_piece(n, width, [&](const Piece& p) {
    for (Index k = p.first; k < p.first + p.size; ++k) body(k);
  });
}

/// Sums and the like side by side: one would wait for itself.
constexpr Index kAtOnce = 16;

/// The largest of some numbers; NaN do not count.
template <class T>
T largest_of(Index n, const T* x) {
  T largest[kAtOnce];
  std::fill_n(largest, kAtOnce, -std::numeric_limits<T>::infinity());
  Index k = 0;
  for (; k + kAtOnce <= n; k += kAtOnce) {
    for (Index j = 0; j < kAtOnce; ++j) largest[j] = x[k + j] > largest[j] ? x[k + j] : largest[j];
  }
  for (Index j = 0; k + j < n; ++j) largest[j] = std::max(largest[j], x[k + j]);
  for (Index half = kAtOnce / 2; half > 0; half /= 2) {
    for (Index j = 0; j < half; ++j) largest[j] = std::max(largest[j], largest[j + half]);
  }
  return largest[0];
}

template <class T>
double sum_of(Index n, const T* x) {
  double sums[kAtOnce] = {};
  Index k = 0;
  for (; k + kAtOnce <= n; k += kAtOnce) {
    for (Index j = 0; j < kAtOnce; ++j) sums[j] += static_cast<double>(x[k + j]);
  }
  for (Index j = 0; k + j < n; ++j) sums[j] += static_cast<double>(x[k + j]);
  for (Index half = kAtOnce / 2; half > 0; half /= 2) {
    for (Index j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
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

/// Before exp: d = logits less their largest, and the loss but for the logarithm of exp's sum.
template <class T>
void begin_cross_entropy(const CrossEntropyRows<T>& c, Index row) {
  const Index V = c.V, y = c.classes[row];
  const T* const logits = c.logits + row * V;
  T* const d = c.d_logits + row * V;
  c.losses[row] = 0;
  if (y < 0) {
    std::fill_n(d, V, T(0));
    return;
  }
  const ClassWeights<T> weights(c, y);
  const T most = largest_of(V, logits);
  const auto below = [&](Index k) {
    return static_cast<double>(logits[k]) - static_cast<double>(most);
  };
  double loss = weights.of_y > 0 ? -weights.of_y * below(y) : 0;
  for (Index k = 0; weights.each > 0 && k < V; ++k) {
    if (weights.of(k) > 0) loss -= weights.of(k) * below(k);
  }
  c.losses[row] = loss;
  for (Index k = 0; k < V; ++k) d[k] = logits[k] - most;
}

/// After exp: the loss, and the gradients.
template <class T>
void end_cross_entropy(const CrossEntropyRows<T>& c, Index row) {
  const Index V = c.V, y = c.classes[row];
  T* const d = c.d_logits + row * V;
  if (y < 0) {
    std::fill_n(d, V, T(0));
    return;
  }
  const ClassWeights<T> weights(c, y);
  const double sum = sum_of(V, d);
  c.losses[row] += weights.all * std::log(sum);
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
  for_each_piece(call.n, call.V, [&](const Piece& p) {
    for (Index k = p.first; k < p.first + p.size; ++k) begin_cross_entropy(call, k);
    T* const d = call.d_logits + p.first * call.V;
    kernels<T>().exp_values({p.size * call.V, d, d});  // at once: rows of few classes are short
    for (Index k = p.first; k < p.first + p.size; ++k) end_cross_entropy(call, k);
  });
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

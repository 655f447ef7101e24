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

/// Calls body(k) for 0 <= k < n, each on one thread, in pieces of about kPieceValues values of the
/// n * width in all.
template <class Body>
void for_each_row(Index n, Index width, const Body& body) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a row
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
  return *std::max_element(largest, largest + kAtOnce);
}

template <class T>
double sum_of(Index n, const T* x) {
  double sums[kAtOnce] = {};
  Index k = 0;
  for (; k + kAtOnce <= n; k += kAtOnce) {
    for (Index j = 0; j < kAtOnce; ++j) sums[j] += static_cast<double>(x[k + j]);
  }
  for (Index j = 0; k + j < n; ++j) sums[j] += static_cast<double>(x[k + j]);
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

template <class T>
void cross_entropy_row(const CrossEntropyRows<T>& c, Index row) {
  const Index V = c.V, y = c.classes[row];
  const T* const logits = c.logits + row * V;
  T* const d = c.d_logits + row * V;
  if (y < 0) {
    c.losses[row] = 0;
    std::fill_n(d, V, T(0));
    return;
  }
  const auto weight = [&](Index k) { return c.class_weights != nullptr ? c.class_weights[k] : 1; };
  const double each = c.smoothing / static_cast<double>(V), of_y = (1 - c.smoothing) * weight(y);
  const T most = largest_of(V, logits);
  const auto below = [&](Index k) {
    return static_cast<double>(logits[k]) - static_cast<double>(most);
  };
  const double below_y = below(y);
  double all_weights = of_y, smooth = 0;  // smooth: of the classes' weights times their logits
  if (each > 0) {
    for (Index k = 0; k < V; ++k) {
      all_weights += each * weight(k);
      if (weight(k) > 0) smooth += each * weight(k) * below(k);
    }
  }
  for (Index k = 0; k < V; ++k) d[k] = logits[k] - most;
  kernels<T>().exp_values({V, d, d});
  const double sum = sum_of(V, d);
  c.losses[row] = all_weights * std::log(sum) - smooth - (of_y > 0 ? of_y * below_y : 0);
  const T scale = static_cast<T>(c.factor * all_weights / sum);
  for (Index k = 0; k < V; ++k) d[k] *= scale;
  d[y] -= static_cast<T>(c.factor * of_y);
  if (each > 0) {
    for (Index k = 0; k < V; ++k) d[k] -= static_cast<T>(c.factor * each * weight(k));
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

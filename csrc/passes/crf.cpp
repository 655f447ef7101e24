#include "fastlstm/crf.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "kernels/arguments.hpp"
#include "runtime/buffer.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

/// Rows whose counts of transitions are summed together: a task each, whatever the threads.
constexpr Index kMostGroups = 16;
/// What a step takes beside its products, in as many of them: exp, log and sums over lanes.
constexpr Index kStepProducts = 2000;

/// The parameters as kernels read them.
template <class T>
class Tables {
 public:
  explicit Tables(const CrfCall<T>& call)
      : n(call.n),
        width((n + kernels<T>().lanes - 1) / kernels<T>().lanes * kernels<T>().lanes),
        scores_(n, width),
        most_(width),
        start_(call.start),
        end_(call.end) {
    for (Index i = 0; i < n; ++i) {
      T* const row = scores_.data() + i * width;
      std::copy_n(call.transitions + i * n, n, row);
      std::fill(row + n, row + width, T(0));
    }
  }

  /// What sums over paths need, and the search for the best does not.
  void add_weights() {
    weights_.resize(n, width);
    weights_T_.resize(n, width);
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    std::fill_n(most_.data(), width, kNothing);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < width; ++j) {
        most_.data()[j] = std::max(most_.data()[j], scores_.data()[i * width + j]);
      }
    }
    for (Index j = 0; j < width; ++j) {
      if (most_.data()[j] == kNothing) most_.data()[j] = 0;
    }
    T* const weights = weights_.data();
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < width; ++j) {
        weights[i * width + j] = scores_.data()[i * width + j] - most_.data()[j];
      }
    }
    kernels<T>().exp_values({n * width, weights, weights});
    weights_T_.fill_zero();
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) weights_T_.data()[j * width + i] = weights[i * width + j];
    }
  }

  CrfTransitions<T> transitions() const {
    return {n, width, scores_.data(), most_.data(), weights_.data(), weights_T_.data()};
  }
  /// row: [width] out: the emissions of a step.
  void take(const T* emissions, T* row) const {
    std::copy_n(emissions, n, row);
    std::fill(row + n, row + width, T(kLogNothing));
  }
  void add_start(T* row) const {
    for (Index j = 0; j < n; ++j) row[j] += start_[j];
  }
  void add_end(T* row) const {
    for (Index j = 0; j < n; ++j) row[j] += end_[j];
  }

  const Index n, width;

 private:
  Buffer<T> scores_, most_, weights_, weights_T_;
  const T *start_, *end_;
};

/// The largest of a row becomes 0, as in the steps' kernels; returns what it was.
template <class T>
T subtract_largest(Index n, T* row) {
  T most = -std::numeric_limits<T>::infinity();
  for (Index j = 0; j < n; ++j) most = row[j] > most ? row[j] : most;
  if (most == -std::numeric_limits<T>::infinity()) return 0;
  for (Index j = 0; j < n; ++j) row[j] -= most;
  return most;
}

/// What a thread needs for one sequence after the other.
template <class T>
struct Sequence {
  Sequence(const Tables<T>& tables, Index steps)
      : width(tables.width),
        alpha(steps, width),
        a(steps, width),
        sums(steps, width),
        q(steps, width),
        p(2, width),
        emission(width),
        outer(outer_products_room(steps, width, kernels<T>().lanes)) {}

  T* row(Buffer<T>& of, Index t) { return of.data() + t * width; }

  const Index width;
  Buffer<T> alpha, a, sums, q;  // [T, width] as in CrfStep and CrfStepBackward
  Buffer<T> p;                  // [2, width]
  Buffer<T> emission;           // [width]
  Buffer<T> outer;              // of add_outer_products
};

/// log Z of a sequence of at least one step, which leaves in `own` what the way back needs, and in
/// p's row 0 the probabilities of the last tag.
template <class T>
double run_forward(const CrfCall<T>& call, const Tables<T>& tables, Index b, Index length,
                   Sequence<T>& own) {
  const CrfTransitions<T> transitions = tables.transitions();
  const Index n = tables.n, width = tables.width;
  T* const first = own.row(own.alpha, 0);
  tables.take(call.emissions.row(0, b), first);
  tables.add_start(first);
  double log_z = static_cast<double>(subtract_largest(n, first));
  kernels<T>().exp_values({width, first, own.row(own.a, 0)});
  for (Index t = 1; t < length; ++t) {
    if (interrupted(static_cast<double>(n * width))) return log_z;
    tables.take(call.emissions.row(t, b), own.emission.data());
    T scale = 0;
    kernels<T>().crf_step({&transitions, own.emission.data(), own.row(own.alpha, t - 1),
                           own.row(own.a, t - 1), own.row(own.sums, t), own.row(own.alpha, t),
                           own.row(own.a, t), &scale});
    log_z += static_cast<double>(scale);
  }
  T* const p = own.p.data();
  std::copy_n(own.row(own.alpha, length - 1), width, p);
  tables.add_end(p);
  T most = 0;
  double sum = 0;
  kernels<T>().softmax_row({width, p, p, &most, &sum});
  for (Index j = 0; j < width; ++j) p[j] = static_cast<T>(static_cast<double>(p[j]) / sum);
  return log_z + static_cast<double>(most) + std::log(sum);
}

/// Calls each_step(t, p) for the probabilities p: [n] of the tags at each step, from the end. Adds
/// to the counts of transitions: those in CrfStepBackward::counts, and sums of a_i q_j.
template <class T, class EachStep>
void run_backward(const Tables<T>& tables, Index length, Sequence<T>& own, T* counts, T* products,
                  EachStep each_step) {
  const CrfTransitions<T> transitions = tables.transitions();
  const Index width = tables.width;
  T *p_next = own.p.data(), *p = p_next + width;
  each_step(length - 1, p_next);
  for (Index t = length - 1; t > 0; --t) {
    if (interrupted(static_cast<double>(tables.n * width))) return;
    kernels<T>().crf_step_backward({&transitions, own.row(own.alpha, t - 1), own.row(own.a, t - 1),
                                    own.row(own.sums, t), p_next, own.row(own.q, t), p, counts});
    std::swap(p, p_next);
    each_step(t - 1, p_next);
  }
  if (products == nullptr || length < 2) return;
  kernels<T>().add_outer_products({length - 1, tables.n, width, own.a.data(), width,
                                   own.row(own.q, 1), width, products, width, own.outer.data()});
}

template <class T>
Index length_of(const CrfCall<T>& call, Index b) {
  return call.lengths != nullptr ? call.lengths[b] : call.steps;
}

/// Calls body(g, b, length, own) for the rows b of each of a number of groups g.
/// Own: what a thread needs, made of the tables and the number of steps.
template <class Own, class T, class Body>
void for_each_row(const CrfCall<T>& call, const Tables<T>& tables, Index groups, Body body) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a group
  const double products = static_cast<double>(call.steps * call.B) *
                          static_cast<double>(call.n * tables.width + kStepProducts);
  const double threads = products / tuning().products_per_thread;
  TeamLease team(static_cast<int>(
      std::clamp(threads, 1.0, static_cast<double>(std::clamp<Index>(groups, 1, num_threads())))));
  std::vector<Own> own;
  own.reserve(static_cast<std::size_t>(team.threads()));
  for (int thread = 0; thread < team.threads(); ++thread) own.emplace_back(tables, call.steps);
  team.run_tasks(groups, [&](Index g, int rank) noexcept {
    for (Index b = g * call.B / groups; b < (g + 1) * call.B / groups; ++b) {
      body(g, b, length_of(call, b), own[static_cast<std::size_t>(rank)]);
    }
  });
}

template <class T>
void zero_after(const CrfCall<T>& call, Index b, Index length, SequenceView<T> values) {
  for (Index t = length; t < call.steps; ++t) std::fill_n(values.row(t, b), call.n, T(0));
}

template <class T>
double score_of(const CrfCall<T>& call, SequenceView<const Index> tags, Index b, Index length) {
  Index tag = *tags.row(0, b);
  double score = static_cast<double>(call.start[tag]) + call.emissions.row(0, b)[tag];
  for (Index t = 1; t < length; ++t) {
    const Index before = std::exchange(tag, *tags.row(t, b));
    score += static_cast<double>(call.transitions[before * call.n + tag]);
    score += static_cast<double>(call.emissions.row(t, b)[tag]);
  }
  return score + static_cast<double>(call.end[tag]);
}

/// The parameters' gradients, from those of the emissions and the groups' counts.
template <class T>
void sum_gradients(const CrfCall<T>& call, const Tables<T>& tables, SequenceView<const Index> tags,
                   const CrfGradients<T>& gradients, Index groups, const Buffer<T>& counts,
                   const Buffer<T>& products) {
  const Index n = call.n, width = tables.width;
  std::vector<double> start(static_cast<std::size_t>(n)), end(start), transitions(start);
  transitions.assign(static_cast<std::size_t>(n * n), 0);
  for (Index i = 0; i < n; ++i) {
    double* const sums = &transitions[static_cast<std::size_t>(i * n)];
    for (Index g = 0; g < groups; ++g) {
      const T* const product = products.data() + (g * n + i) * width;
      for (Index j = 0; j < n; ++j) sums[j] += static_cast<double>(product[j]);
    }
    const T* const weights = tables.transitions().weights + i * width;
    for (Index j = 0; j < n; ++j) sums[j] *= static_cast<double>(weights[j]);
    for (Index g = 0; g < groups; ++g) {
      const T* const count = counts.data() + (g * n + i) * width;
      for (Index j = 0; j < n; ++j) sums[j] += static_cast<double>(count[j]);
    }
  }
  for (Index b = 0; b < call.B; ++b) {
    const Index length = length_of(call, b);
    if (length == 0) continue;
    // The score is a sum: what moves the first emissions moves the start's scores alike.
    const T* const first = gradients.d_emissions.row(0, b);
    const T* const last = gradients.d_emissions.row(length - 1, b);
    for (Index j = 0; j < n; ++j) {
      start[static_cast<std::size_t>(j)] += static_cast<double>(first[j]);
      end[static_cast<std::size_t>(j)] += static_cast<double>(last[j]);
    }
    for (Index t = 1; t < length; ++t) {
      transitions[static_cast<std::size_t>(*tags.row(t - 1, b) * n + *tags.row(t, b))] -= 1;
    }
  }
  for (Index j = 0; j < n; ++j) {
    gradients.d_start[j] = static_cast<T>(start[static_cast<std::size_t>(j)]);
    gradients.d_end[j] = static_cast<T>(end[static_cast<std::size_t>(j)]);
  }
  for (Index k = 0; k < n * n; ++k) {
    gradients.d_transitions[k] =
        static_cast<T>(gradients.scale * transitions[static_cast<std::size_t>(k)]);
  }
}

/// What the search for the best path needs.
template <class T>
struct Search {
  Search(const Tables<T>& tables, Index steps)
      : best(steps, tables.width), emission(tables.width) {}

  Buffer<T> best;      // [T, width]
  Buffer<T> emission;  // [width]
};

template <class T>
void search(const CrfCall<T>& call, const Tables<T>& tables, Index b, Index length,
            SequenceView<Index> tags, Search<T>& own) {
  const CrfTransitions<T> transitions = tables.transitions();
  const Index n = tables.n, width = tables.width;
  T* best = own.best.data();
  tables.take(call.emissions.row(0, b), best);
  tables.add_start(best);
  subtract_largest(n, best);
  for (Index t = 1; t < length; ++t, best += width) {
    if (interrupted(static_cast<double>(n * width))) return;
    tables.take(call.emissions.row(t, b), own.emission.data());
    T scale = 0;
    kernels<T>().crf_best_step({&transitions, own.emission.data(), best, best + width, &scale});
  }
  tables.add_end(best);
  Index tag = std::max_element(best, best + n) - best;
  *tags.row(length - 1, b) = tag;
  for (Index t = length - 2; t >= 0; --t) {
    best -= width;
    Index from = 0;
    for (Index i = 1; i < n; ++i) {
      const auto at = [&](Index k) { return best[k] + call.transitions[k * n + tag]; };
      if (at(i) > at(from)) from = i;
    }
    *tags.row(t, b) = tag = from;
  }
}

}  // namespace

template <class T>
void crf_loss(const CrfCall<T>& call, SequenceView<const Index> tags,
              const CrfGradients<T>& gradients, double* losses) {
  Tables<T> tables(call);
  tables.add_weights();
  const Index groups = std::min(call.B, kMostGroups), n = call.n, width = tables.width;
  Buffer<T> counts(groups * n, width), products(groups * n, width);
  counts.fill_zero();
  products.fill_zero();
  const T scale = static_cast<T>(gradients.scale);
  for_each_row<Sequence<T>>(
      call, tables, groups, [&](Index g, Index b, Index length, Sequence<T>& own) noexcept {
        zero_after(call, b, length, gradients.d_emissions);
        losses[b] = 0;
        if (length == 0) return;
        losses[b] = run_forward(call, tables, b, length, own) - score_of(call, tags, b, length);
        run_backward(tables, length, own, counts.data() + g * n * width,
                     products.data() + g * n * width, [&](Index t, const T* p) {
                       T* const d = gradients.d_emissions.row(t, b);
                       for (Index j = 0; j < n; ++j) d[j] = scale * p[j];
                       d[*tags.row(t, b)] -= scale;
                     });
      });
  sum_gradients(call, tables, tags, gradients, groups, counts, products);
}

template <class T>
void crf_marginals(const CrfCall<T>& call, SequenceView<T> p) {
  Tables<T> tables(call);
  tables.add_weights();
  const Index groups = std::min(call.B, kMostGroups), n = call.n, width = tables.width;
  Buffer<T> counts(groups * n, width);  // nobody asks for them
  for_each_row<Sequence<T>>(
      call, tables, groups, [&](Index g, Index b, Index length, Sequence<T>& own) noexcept {
        zero_after(call, b, length, p);
        if (length == 0) return;
        run_forward(call, tables, b, length, own);
        run_backward(tables, length, own, counts.data() + g * n * width, static_cast<T*>(nullptr),
                     [&](Index t, const T* of_tags) { std::copy_n(of_tags, n, p.row(t, b)); });
      });
}

template <class T>
void crf_decode(const CrfCall<T>& call, SequenceView<Index> tags) {
  const Tables<T> tables(call);
  for_each_row<Search<T>>(call, tables, call.B,
                          [&](Index, Index b, Index length, Search<T>& own) noexcept {
                            if (length > 0) search(call, tables, b, length, tags, own);
                            for (Index t = length; t < call.steps; ++t) *tags.row(t, b) = -1;
                          });
}

#define FASTLSTM_INSTANTIATE(T)                                                                   \
  template void crf_loss<T>(const CrfCall<T>&, SequenceView<const Index>, const CrfGradients<T>&, \
                            double*);                                                             \
  template void crf_marginals<T>(const CrfCall<T>&, SequenceView<T>);                             \
  template void crf_decode<T>(const CrfCall<T>&, SequenceView<Index>);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

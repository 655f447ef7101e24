// Steps of a linear-chain CRF.
#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

/// Transitions as kernels read them, made of random scores between -spread and spread.
template <class T>
struct Transitions {
  Transitions(Index n_, Index lanes, double spread, Random& random)
      : n(n_),
        width((n + lanes - 1) / lanes * lanes),
        scores(random.values<T>(n * width, -spread, spread)),
        most(std::vector<T>(static_cast<std::size_t>(width), T(0))),
        weights(n * width),
        weights_T(n * width) {
    for (Index j = 0; j < n; ++j) {
      most[j] = scores[j];
      for (Index i = 1; i < n; ++i) most[j] = std::max(most[j], scores[i * width + j]);
    }
    std::fill_n(weights.data(), n * width, T(1));
    std::fill_n(weights_T.data(), n * width, T(0));
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) {
        weights[i * width + j] = std::exp(scores[i * width + j] - most[j]);
        weights_T[j * width + i] = weights[i * width + j];
      }
    }
  }
  CrfTransitions<T> view() const {
    return {n, width, scores.data(), most.data(), weights.data(), weights_T.data()};
  }
  /// A row of width values: n of them, and what stands for nothing.
  Guarded<T> row(const std::vector<T>& values) const {
    Guarded<T> all(width);
    std::fill_n(all.data(), width, T(kLogNothing));
    std::copy(values.begin(), values.end(), all.data());
    return all;
  }

  Index n, width;
  Guarded<T> scores, most, weights, weights_T;
};

/// Calls body(transitions, alpha, a, emission, exact sums' logarithms) for sizes and spreads.
/// alpha: spread as far apart, so that with the largest most exponentials are zero.
template <class T, class Body>
void for_each_crf(const KernelTable<T>& table, Body body) {
  for (const double spread : {2.0, 300.0}) {
    for (const Index n : {1, 2, 3, 5, 8, 15, 17, 33, 70}) {
      NOTE("n = " << n << ", spread = " << spread);
      Random random(static_cast<unsigned>(n));
      const Transitions<T> transitions(n, table.lanes, spread, random);
      std::vector<T> before = random.values<T>(n, -spread, 0);
      before[static_cast<std::size_t>(n / 2)] = 0;
      const Guarded<T> alpha = transitions.row(before);
      const Guarded<T> emission = transitions.row(random.values<T>(n, -spread, spread));
      Guarded<T> a(transitions.width);
      for (Index i = 0; i < transitions.width; ++i) {
        a[i] = alpha[i] < std::log(std::numeric_limits<T>::min()) ? T(0) : std::exp(alpha[i]);
      }
      std::vector<Exact> sums;
      for (Index j = 0; j < n; ++j) {
        Exact most = -kInfinity<T>, sum = 0;
        const auto at = [&](Index i) {
          return Exact(alpha[i]) + Exact(transitions.scores[i * transitions.width + j]);
        };
        for (Index i = 0; i < n; ++i) most = std::max(most, at(i));
        for (Index i = 0; i < n; ++i) sum += std::exp(at(i) - most);
        sums.push_back(most + std::log(sum));
      }
      body(transitions, alpha, a, emission, sums, static_cast<T>(spread), random);
    }
  }
}

}  // namespace

KERNEL_TEST(crf_step) {
  for_each_crf(table, [&](const Transitions<T>& transitions, const Guarded<T>& alpha,
                          const Guarded<T>& a, const Guarded<T>& emission,
                          const std::vector<Exact>& log_sums, T spread, Random&) {
    const Index n = transitions.n, width = transitions.width;
    const CrfTransitions<T> view = transitions.view();
    Guarded<T> sums(width), alpha_next(width), a_next(width);
    T scale = 0;
    table.crf_step({&view, emission.data(), alpha.data(), a.data(), sums.data(), alpha_next.data(),
                    a_next.data(), &scale});
    sums.check_guards();
    alpha_next.check_guards();
    a_next.check_guards();
    Exact most = -kInfinity<T>;
    for (Index j = 0; j < n; ++j) {
      most = std::max(most, log_sums[static_cast<std::size_t>(j)] + Exact(emission[j]));
    }
    const T tolerance = 16 * kEpsilon<T> * (1 + spread);
    CHECK_CLOSE(scale, most, tolerance);
    for (Index j = 0; j < n; ++j) {
      const Exact want = log_sums[static_cast<std::size_t>(j)] + Exact(emission[j]) - Exact(scale);
      CHECK_CLOSE(alpha_next[j], want, tolerance);
      CHECK_CLOSE(a_next[j], std::exp(Exact(alpha_next[j])), 2 * kEpsilon<T>);
    }
    for (Index j = n; j < width; ++j) CHECK_EQUAL(a_next[j], T(0));
  });
}

KERNEL_TEST(crf_step_backward) {
  for_each_crf(table, [&](const Transitions<T>& transitions, const Guarded<T>& alpha,
                          const Guarded<T>& a, const Guarded<T>& emission,
                          const std::vector<Exact>& log_sums, T spread, Random& random) {
    const Index n = transitions.n, width = transitions.width;
    const CrfTransitions<T> view = transitions.view();
    Guarded<T> sums(width), alpha_next(width), a_next(width);
    T scale = 0;
    table.crf_step({&view, emission.data(), alpha.data(), a.data(), sums.data(), alpha_next.data(),
                    a_next.data(), &scale});
    Guarded<T> p_next(std::vector<T>(static_cast<std::size_t>(width), T(0)));
    for (Index j = 0; j < n; ++j) p_next[j] = static_cast<T>(random.uniform(0, 1));
    Guarded<T> q(width), p(width);
    Guarded<T> counts(std::vector<T>(static_cast<std::size_t>(n * width), T(0.25)));
    table.crf_step_backward({&view, alpha.data(), a.data(), sums.data(), p_next.data(), q.data(),
                             p.data(), counts.data()});
    q.check_guards();
    p.check_guards();
    counts.check_guards();
    const T tolerance = 64 * kEpsilon<T> * (1 + spread);
    std::vector<Exact> want_p(static_cast<std::size_t>(n), 0);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) {
        const Exact share = std::exp(Exact(alpha[i]) + Exact(transitions.scores[i * width + j]) -
                                     log_sums[static_cast<std::size_t>(j)]);
        want_p[static_cast<std::size_t>(i)] += share * Exact(p_next[j]);
        // Each transition is counted in one of two ways.
        const Exact count = Exact(counts[i * width + j]) - 0.25L +
                            Exact(a[i]) * Exact(transitions.weights[i * width + j]) * Exact(q[j]);
        CHECK_CLOSE(count, share * Exact(p_next[j]), tolerance);
      }
    }
    for (Index i = 0; i < n; ++i) {
      CHECK_CLOSE(p[i], want_p[static_cast<std::size_t>(i)],
                  tolerance * static_cast<T>(1 + want_p[static_cast<std::size_t>(i)]));
    }
  });
}

KERNEL_TEST(crf_best_step) {
  for_each_crf(table,
               [&](const Transitions<T>& transitions, const Guarded<T>& best, const Guarded<T>&,
                   const Guarded<T>& emission, const std::vector<Exact>&, T spread, Random&) {
                 const Index n = transitions.n, width = transitions.width;
                 const CrfTransitions<T> view = transitions.view();
                 Guarded<T> next(width);
                 T scale = 0;
                 table.crf_best_step({&view, emission.data(), best.data(), next.data(), &scale});
                 next.check_guards();
                 std::vector<T> want;
                 for (Index j = 0; j < n; ++j) {
                   T most = -kInfinity<T>;
                   for (Index i = 0; i < n; ++i) {
                     most = std::max(most, best[i] + transitions.scores[i * width + j]);
                   }
                   want.push_back(most + emission[j]);
                 }
                 CHECK_EQUAL(scale, *std::max_element(want.begin(), want.end()));
                 for (Index j = 0; j < n; ++j) {
                   CHECK_CLOSE(next[j], Exact(want[static_cast<std::size_t>(j)]) - Exact(scale),
                               4 * kEpsilon<T> * spread);
                 }
               });
}

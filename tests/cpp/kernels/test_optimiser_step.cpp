// Optimisers: the norm of gradients, and steps.
#include "kernel_tests.hpp"

using namespace fastlstm;

KERNEL_TEST(sum_squares) {
  for (const Index n : {0, 1, 7, 31, 32, 33, 1000}) {
    NOTE("n = " << n);
    Random random(static_cast<unsigned>(n));
    const Guarded<T> x(random.values<T>(n, -1, 1));
    Exact want = 0;
    for (Index k = 0; k < n; ++k) want += Exact(x[k]) * Exact(x[k]);
    double sum = -1;
    table.sum_squares({n, x.data(), &sum});
    CHECK(std::abs(Exact(sum) - want) <= 1e-14 * want);
  }
}

KERNEL_TEST(scale_values) {
  for (const Index n : kSizes) {
    NOTE("n = " << n);
    Random random(static_cast<unsigned>(n));
    const Guarded<T> x(random.values<T>(n, -1, 1));
    Guarded<T> y(n);
    table.scale_values({n, 0.3, x.data(), y.data()});
    y.check_guards();
    for (Index k = 0; k < n; ++k) CHECK(y[k] == static_cast<T>(static_cast<double>(x[k]) * 0.3));
  }
}

KERNEL_TEST(adam_step) {
  const double beta1 = 0.9, beta2 = 0.99, eps = 1e-3, shrink = 0.99, root = 0.3, step = 0.05;
  for (const double decay : {0.0, 0.1}) {
    for (const Index n : kSizes) {
      NOTE("decay = " << decay << ", n = " << n);
      Random random(static_cast<unsigned>(n));
      const Guarded<T> p(random.values<T>(n, -1, 1)), g(random.values<T>(n, -1, 1));
      const std::vector<T> m = random.values<T>(n, -1, 1), v = random.values<T>(n, 0, 1);
      Guarded<T> m_new(m), v_new(v), p_new(n);
      table.adam_step({n, beta1, beta2, eps, decay, shrink, root, step, p.data(), g.data(),
                       m_new.data(), v_new.data(), p_new.data()});
      m_new.check_guards();
      v_new.check_guards();
      p_new.check_guards();
      for (Index k = 0; k < n; ++k) {
        const Exact gradient = Exact(g[k]) + decay * p[k];
        const Exact m_want = beta1 * m[static_cast<std::size_t>(k)] + (1 - beta1) * gradient;
        const Exact v_want =
            beta2 * v[static_cast<std::size_t>(k)] + (1 - beta2) * gradient * gradient;
        CHECK_CLOSE(m_new[k], m_want, 8 * kEpsilon<T>);
        CHECK_CLOSE(v_new[k], v_want, 8 * kEpsilon<T>);
        const Exact size = m_want / (std::sqrt(v_want) / root + eps);
        CHECK_CLOSE(p_new[k], shrink * p[k] - step * size, 32 * kEpsilon<T>);
      }
    }
  }
}

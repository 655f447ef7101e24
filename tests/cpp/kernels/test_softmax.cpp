// Softmax of rows.
#include "kernel_tests.hpp"

using namespace fastlstm;

KERNEL_TEST(softmax_row) {
  for (const Index n : {0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 53, 1000, 3001}) {
    NOTE("n = " << n);
    Random random(static_cast<unsigned>(n));
    const Guarded<T> x(random.values<T>(n, -80, -60));  // all negative: no zero may count as one
    Guarded<T> y(n), in_place(std::vector<T>(x.data(), x.data() + n));
    T most = 0, again = 0;
    double sum = -1, sum_again = -1;
    table.softmax_row({n, x.data(), y.data(), &most, &sum});
    table.softmax_row({n, in_place.data(), in_place.data(), &again, &sum_again});
    y.check_guards();
    in_place.check_guards();
    CHECK(same_bits(y, in_place));
    CHECK(most == again && sum == sum_again);
    T largest = -kInfinity<T>;
    for (Index k = 0; k < n; ++k) largest = std::max(largest, x[k]);
    CHECK_EQUAL(most, largest);
    Exact total = 0;
    for (Index k = 0; k < n; ++k) {
      const Exact want = std::exp(Exact(x[k]) - Exact(largest));
      total += want;
      CHECK_CLOSE(y[k], want, 16 * kEpsilon<T>);
    }
    CHECK(std::abs(Exact(sum) - total) <= 16 * kEpsilon<T> * total);
  }
}

TABLE_TEST(softmax_of_special_values) {
  for (const Index n : {5, 40}) {
    std::vector<T> x(static_cast<std::size_t>(n), T(1)), y(x);
    T most = 0;
    double sum = 0;
    const auto run = [&] { table.softmax_row({n, x.data(), y.data(), &most, &sum}); };
    x[3] = -kInfinity<T>;
    run();
    CHECK_EQUAL(y[3], T(0));
    CHECK(sum == static_cast<double>(n - 1));
    x[2] = kNaN<T>;
    run();
    CHECK(std::isnan(y[2]));
    CHECK(std::isnan(sum));
    std::fill(x.begin(), x.end(), -kInfinity<T>);
    run();
    CHECK(std::isnan(sum));
  }
}

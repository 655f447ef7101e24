// Products of linear layers, and what else stands around recurrent ones: against plain loops,
// within their memory, for any number of threads.
#include <algorithm>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "fastlstm/blocks.hpp"
#include "fastlstm/matrix.hpp"
#include "fastlstm/runtime.hpp"
#include "runtime/targets.hpp"

using namespace fastlstm;

namespace {

template <class T>
constexpr double kTolerance = sizeof(T) == 4 ? 1e-4 : 1e-12;  // of sums of some hundred products

/// y[i, j] = start + sum_k a(i, k) b(j, k), in double.
template <class A, class B>
double product(Index K, A a, B b) {
  double sum = 0;
  for (Index k = 0; k < K; ++k) sum += static_cast<double>(a(k)) * static_cast<double>(b(k));
  return sum;
}

template <class T>
void check_products(Index n, Index rows, Index columns, Random& random) {
  NOTE("n = " << n << ", rows = " << rows << ", columns = " << columns);
  const Guarded<T> W(random.values<T>(rows * columns, -1, 1)), bias(random.values<T>(rows, -1, 1)),
      x(random.values<T>(n * columns, -1, 1)), d_y(random.values<T>(n * rows, -1, 1));
  const PackedMatrix<T> packed(rows, columns, W.data());
  std::vector<std::vector<T>> results;
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    Guarded<T> y(n * rows), d_x(n * columns), d_W(rows * columns), d_b(rows);
    packed.multiply(n, x.data(), bias.data(), y.data());
    packed.transposed().multiply(n, d_y.data(), nullptr, d_x.data());
    std::fill_n(d_W.data(), d_W.size(), T(0.5));
    add_products(n, rows, columns, d_y.data(), x.data(), d_W.data());
    std::fill_n(d_b.data(), d_b.size(), T(0.5));
    add_sums(n, rows, d_y.data(), d_b.data());
    for (const Guarded<T>* array : {&y, &d_x, &d_W, &d_b}) array->check_guards();
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < rows; ++j) {
        const double want =
            static_cast<double>(bias[j]) + product(
                                               columns, [&](Index k) { return x[i * columns + k]; },
                                               [&](Index k) { return W[j * columns + k]; });
        CHECK_CLOSE(y[i * rows + j], want, kTolerance<T>);
      }
      for (Index j = 0; j < columns; ++j) {
        const double want = product(
            rows, [&](Index k) { return d_y[i * rows + k]; },
            [&](Index k) { return W[k * columns + j]; });
        CHECK_CLOSE(d_x[i * columns + j], want, kTolerance<T>);
      }
    }
    for (Index i = 0; i < rows; ++i) {
      const auto gradient = [&](Index k) { return d_y[k * rows + i]; };
      CHECK_CLOSE(d_b[i], 0.5 + product(n, gradient, [](Index) { return 1; }), kTolerance<T>);
      for (Index j = 0; j < columns; ++j) {
        const double want = 0.5 + product(n, gradient, [&](Index k) { return x[k * columns + j]; });
        CHECK_CLOSE(d_W[i * columns + j], want, kTolerance<T>);
      }
    }
    std::vector<T> all;
    for (const Guarded<T>* array : {&y, &d_x, &d_W, &d_b}) {
      all.insert(all.end(), array->data(), array->data() + array->size());
    }
    results.push_back(all);
  }
  CHECK(results[0] == results[1]);  // whatever the threads
}

template <class T>
void check_all_products() {
  const Index lanes = kernels<T>().lanes;
  Random random(1);
  for (const Index rows : {Index{1}, 4 * lanes - 1, 4 * lanes, 20 * lanes + 3}) {
    for (const Index n : {Index{0}, Index{1}, Index{65}}) check_products<T>(n, rows, 37, random);
  }
  check_products<T>(70, 5, 16 * lanes + 1, random);
}

template <class T>
void check_drop_and_sums() {
  Random random(2);
  constexpr Index n = 50, width = 600;
  const Guarded<T> x(random.values<T>(n * width, 1, 2));
  Guarded<T> once(n * width), again(n * width);
  set_num_threads(1);
  drop(n, width, 7, 0.5, x.data(), once.data());
  set_num_threads(3);
  drop(n, width, 7, 0.5, x.data(), again.data());
  once.check_guards();
  Index kept = 0;
  for (Index k = 0; k < n * width; ++k) {
    CHECK_EQUAL(once[k], again[k]);
    CHECK(once[k] == T(0) || once[k] == 2 * x[k]);
    kept += once[k] != T(0);
  }
  CHECK_CLOSE(kept, n * width / 2, 500);  // about six standard deviations

  const std::vector<Index> first = {0, 1, 4}, order = {3, 0, 3, 49};
  Guarded<T> sums(2 * width);
  sum_rows(2, width, first.data(), order.data(), x.data(), sums.data());
  sums.check_guards();
  for (Index j = 0; j < width; ++j) {
    CHECK_EQUAL(sums[j], x[3 * width + j]);
    CHECK_EQUAL(sums[width + j], x[j] + x[3 * width + j] + x[49 * width + j]);
  }
}

}  // namespace

TEST(products_float32) { check_all_products<float>(); }
TEST(products_float64) { check_all_products<double>(); }
TEST(drop_and_sums_float32) { check_drop_and_sums<float>(); }
TEST(drop_and_sums_float64) { check_drop_and_sums<double>(); }

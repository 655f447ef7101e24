// exp, log, sigmoid and tanh of arrays; random choices, dropout, sums of columns.
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernel_tests.hpp"
#include "philox.hpp"

using namespace fastlstm;

namespace {

Exact exact_exp(Exact x) { return std::exp(x); }

/// Denormals count as zero.
template <class T>
Exact exact_log(Exact x) {
  return std::abs(x) < Exact(std::numeric_limits<T>::min()) ? -kInfinity<T> : std::log(x);
}

/// The distance from one float to the next at this value; denormals count as zero.
template <class T>
Exact ulp(Exact value) {
  const Exact magnitude = std::max(std::abs(value), Exact(std::numeric_limits<T>::min()));
  return std::ldexp(Exact(1), std::ilogb(magnitude) + 1 - std::numeric_limits<T>::digits);
}

/// Every k-th bit pattern, so that all exponents and both signs occur, and a dense middle.
template <class T>
std::vector<T> range_of_values() {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits kStep = std::numeric_limits<Bits>::max() / 100003;
  std::vector<T> values;
  for (Bits k = 0; k < 100003; ++k) {
    const Bits bits = k * kStep;
    T value;
    std::memcpy(&value, &bits, sizeof value);
    values.push_back(value);
  }
  Random random(1);
  const std::vector<T> middle = random.values<T>(100000, -110, 110);
  values.insert(values.end(), middle.begin(), middle.end());
  return values;
}

template <class T>
void check_map(void (*kernel)(const MapValues<T>&) noexcept, Exact (*exact)(Exact),
               double most_ulp) {
  const std::vector<T> x = range_of_values<T>();
  std::vector<T> y(x.size());
  kernel({static_cast<Index>(x.size()), x.data(), y.data()});
  for (std::size_t k = 0; k < x.size(); ++k) {
    NOTE("x = " << x[k]);
    const Exact want = exact(x[k]);
    if (std::isnan(want)) {
      CHECK(std::isnan(y[k]));
    } else if (std::abs(want) > Exact(std::numeric_limits<T>::max())) {
      CHECK_EQUAL(y[k], static_cast<T>(std::copysign(kInfinity<T>, want)));
    } else if (std::abs(want) < Exact(std::numeric_limits<T>::min())) {
      CHECK_CLOSE(y[k], want, Exact(std::numeric_limits<T>::min()));
    } else {
      CHECK_CLOSE(y[k], want, most_ulp * ulp<T>(want));
    }
  }
  for (const Index n : kSizes) {
    NOTE("n = " << n);
    Guarded<T> from(std::vector<T>(x.end() - n, x.end())), to(n);
    kernel({n, from.data(), to.data()});
    to.check_guards();
    // A value has the same bits wherever it stands, and in place.
    CHECK(std::memcmp(to.data(), y.data() + y.size() - n, to.size() * sizeof(T)) == 0);
    kernel({n, from.data(), from.data()});
    from.check_guards();
    CHECK(std::memcmp(to.data(), from.data(), to.size() * sizeof(T)) == 0);
  }
}

template <class T>
T map_one(void (*kernel)(const MapValues<T>&) noexcept, T x) {
  T y;
  kernel({1, &x, &y});
  return y;
}

}  // namespace

KERNEL_TEST(exp_values) {
  const auto kernel = table.exp_values;
  check_map<T>(kernel, exact_exp, 1.0);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(1));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), kInfinity<T>);
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(0));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

KERNEL_TEST(log_values) {
  const auto kernel = table.log_values;
  check_map<T>(kernel, exact_log<T>, 1.0);
  CHECK_EQUAL(map_one<T>(kernel, 1), T(0));
  CHECK_EQUAL(map_one<T>(kernel, 0), -kInfinity<T>);
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), kInfinity<T>);
  CHECK(std::isnan(map_one<T>(kernel, -1)));
  CHECK(std::isnan(map_one<T>(kernel, -kInfinity<T>)));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

KERNEL_TEST(sigmoid_values) {
  const auto kernel = table.sigmoid_values;
  check_map<T>(kernel, exact_sigmoid, 2.5);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(0.5));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), T(1));
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(0));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

KERNEL_TEST(tanh_values) {
  const auto kernel = table.tanh_values;
  check_map<T>(kernel, exact_tanh, 2.5);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(0));
  CHECK(std::signbit(map_one<T>(kernel, T(-0.0))));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), T(1));
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(-1));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

KERNEL_TEST(add_column_sums) {
  const auto kernel = table.add_column_sums;
  for (const Index rows : {0, 1, 63, 64, 65, 200}) {
    for (const Index columns : kSizes) {
      NOTE("rows = " << rows << ", columns = " << columns);
      Random random(static_cast<unsigned>(columns));
      const Guarded<T> values(random.values<T>(rows * columns, -1, 1));
      const std::vector<T> before = random.values<T>(columns, -1, 1);
      Guarded<T> sums(before);
      kernel({rows, columns, values.data(), sums.data()});
      sums.check_guards();
      for (Index k = 0; k < columns; ++k) {
        Exact want = before[static_cast<std::size_t>(k)];
        for (Index row = 0; row < rows; ++row) want += values[row * columns + k];
        CHECK_CLOSE(sums[k], want, 4 * kEpsilon<T> * static_cast<T>(64 + rows / 64));
      }
    }
  }
}

KERNEL_TEST(bernoulli_row) {
  constexpr std::uint64_t kSeed = 0x123456789abcdef0;
  constexpr std::uint64_t kRow = 0x300000005;
  constexpr std::uint32_t kStream = 0xC0000002;
  for (const double p : {0.0, 0.25, 0.9, 1.0}) {
    for (const Index first : {0, 8}) {
      for (const Index columns : kSizes) {
        NOTE("p = " << p << ", first = " << first << ", columns = " << columns);
        Guarded<T> y(columns);
        table.bernoulli_row({columns, first, kSeed, kStream, kRow, p, y.data()});
        y.check_guards();
        for (Index k = 0; k < columns; ++k) {
          std::uint32_t bits[4];
          philox_4x32(kSeed, kRow, static_cast<std::uint32_t>((first + k) / 4), kStream, bits);
          CHECK_EQUAL(y[k], bits[(first + k) % 4] < p * 4294967296.0 ? T(1) : T(0));
        }
      }
    }
  }
}

KERNEL_TEST(dropout_row) {
  const auto kernel = table.dropout_row;
  constexpr std::uint64_t kSeed = 0x123456789abcdef0;
  constexpr std::uint64_t kRow = 0x300000005;
  constexpr std::uint32_t kLayer = 2;
  for (const double p : {0.0, 0.25, 0.5, 0.9, 1.0}) {
    for (const Index columns : kSizes) {
      NOTE("p = " << p << ", columns = " << columns);
      Random random(3);
      const Guarded<T> x(random.values<T>(columns, 1, 2));
      Guarded<T> y(columns), in_place(x);
      kernel({columns, kSeed, kLayer, kRow, p, x.data(), y.data()});
      kernel({columns, kSeed, kLayer, kRow, p, in_place.data(), in_place.data()});
      y.check_guards();
      in_place.check_guards();
      for (Index k = 0; k < columns; ++k) {
        std::uint32_t bits[4];
        philox_4x32(kSeed, kRow, static_cast<std::uint32_t>(k / 4), kLayer, bits);
        const bool kept = bits[k % 4] < (1 - p) * 4294967296.0;
        CHECK_EQUAL(y[k] != 0, kept);
        CHECK_CLOSE(y[k], kept ? x[k] / (1 - Exact(p)) : 0, 4 * kEpsilon<T> * std::abs(y[k]));
        CHECK_EQUAL(in_place[k], y[k]);
      }
    }
  }
  // The part that becomes zero is p.
  constexpr Index kMany = 100000;
  const std::vector<T> ones(kMany, T(1));
  std::vector<T> y(kMany);
  kernel({kMany, kSeed, kLayer, kRow, 0.3, ones.data(), y.data()});
  const auto zeros = std::count(y.begin(), y.end(), T(0));
  CHECK_CLOSE(static_cast<double>(zeros) / kMany, 0.3, 0.006);  // four standard deviations
}

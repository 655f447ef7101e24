// What the tests of kernels share: a test for each kernel, values in higher precision, sizes.
//
// KERNEL_TEST(NAME) tests the kernel NAME of the list; it runs for both tables of every target:
//
//   KERNEL_TEST(scale_values) {
//     table.scale_values({...});  // table: const KernelTable<T>&
//   }
//
// A kernel of the list without one, and not TESTED_WITH another, is an undefined symbol to the
// linker (every_kernel.cpp). A test of what several kernels share, or of an option, is a
// TABLE_TEST.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "kernels/list.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

/// A target's tables.
struct Tables {
  const char* target;
  const KernelTable<float>* float32;
  const KernelTable<double>* float64;
  const PanelKernels<float>* small[kArithmetics];  // by arithmetic; null for kFull
};

/// Of the target that FASTLSTM_ISA names, or of all that this CPU runs. Without sanitizers and
/// emulators they include "wide", the shapes of AVX-512 on any CPU (wide_target.cpp).
const std::vector<Tables>& tested_tables();

template <class Check>
void for_each_table(Check check) {
  const FlushDenormals flush_denormals;  // as inside every call
  for (const Tables& tables : tested_tables()) {
    NOTE("target " << tables.target);
    check(*tables.float32);
    check(*tables.float64);
  }
}

#define FASTLSTM_DECLARE_TESTED(name, Arguments) extern const bool name;
namespace tested {
FASTLSTM_KERNELS(FASTLSTM_DECLARE_TESTED)
}
#undef FASTLSTM_DECLARE_TESTED

}  // namespace fastlstm

/// A test that runs for both tables of every target.
#define TABLE_TEST(name)                                                      \
  template <class T>                                                          \
  static void check_##name(const fastlstm::KernelTable<T>& table);            \
  TEST(name) {                                                                \
    fastlstm::for_each_table([](const auto& table) { check_##name(table); }); \
  }                                                                           \
  template <class T>                                                          \
  static void check_##name(const fastlstm::KernelTable<T>& table)

#define KERNEL_TEST(name)                   \
  const bool fastlstm::tested::name = true; \
  TABLE_TEST(name)

/// The kernel is tested by another's test, in the same file: they are halves of one step.
#define TESTED_WITH(name, other) const bool fastlstm::tested::name = fastlstm::tested::other

using fastlstm::Index;

using Exact = long double;

// Around the vector widths w = 2, 4, 8, 16: 1, w - 1, w, w + 1, 3w + 5.
inline const Index kSizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 29, 53};

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T kEpsilon = std::numeric_limits<T>::epsilon();

inline Exact exact_sigmoid(Exact x) { return 1 / (1 + std::exp(-x)); }
inline Exact exact_tanh(Exact x) { return std::tanh(x); }

/// Rows in memory of their own each, and the pointers to them.
template <class T>
struct Rows {
  Rows(Random& random, Index rows, Index width) {
    for (Index row = 0; row < rows; ++row) {
      values.emplace_back(random.values<T>(width, -1, 1));
      pointers.push_back(values.back().data());
    }
  }
  void check_guards() const {
    for (const Guarded<T>& row : values) row.check_guards();
  }
  T at(Index row, Index k) const { return values[static_cast<std::size_t>(row)][k]; }

  std::vector<Guarded<T>> values;
  std::vector<T*> pointers;
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.size() == b.size() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Heights below, at and above a tile's, for all targets.
inline const Index kRows[] = {1, 2, 3, 4, 5, 6, 7, 8, 13};

/// Calls body(rows, H, random) for numbers of rows and sizes.
template <class Body>
void for_each_size(Body body) {
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      NOTE("rows = " << rows << ", H = " << H);
      Random random(static_cast<unsigned>(100 * rows + H));
      body(rows, H, random);
    }
  }
}

inline Exact exact_activation(const fastlstm::Activation& f, Exact x) {
  using fastlstm::ActivationKind;
  switch (f.kind) {
    case ActivationKind::kAffine:
      return f.alpha * x + f.beta;
    case ActivationKind::kRelu:
      return std::max(x, Exact(0));
    case ActivationKind::kLeakyRelu:
      return x < 0 ? f.alpha * x : x;
    case ActivationKind::kThresholdedRelu:
      return x < f.alpha ? 0 : x;
    case ActivationKind::kTanh:
      return exact_tanh(x);
    case ActivationKind::kScaledTanh:
      return f.alpha * exact_tanh(f.beta * x);
    case ActivationKind::kSigmoid:
      return exact_sigmoid(x);
    case ActivationKind::kHardSigmoid:
      return std::clamp(f.alpha * x + f.beta, Exact(0), Exact(1));
    case ActivationKind::kElu:
      return x < 0 ? f.alpha * std::expm1(x) : x;
    case ActivationKind::kSoftsign:
      return x / (1 + std::abs(x));
    case ActivationKind::kSoftplus:
      return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
  return 0;
}

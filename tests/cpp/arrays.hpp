// Arrays for tests: guarded against writing past their ends, and filled with reproducible values.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "fastlstm/types.hpp"

/// n elements between two guards that must stay as they are. AddressSanitizer also sees reads past
/// the ends, if the memory ends there: with it there are no guards. The guards' odd width keeps the
/// elements off vector boundaries.
template <class T>
class Guarded {
 public:
  explicit Guarded(fastlstm::Index n)
      : n_(static_cast<std::size_t>(n)), memory_(n_ + 2 * kGuard, kMark) {}
  template <class Values>
  explicit Guarded(const Values& values) : Guarded(static_cast<fastlstm::Index>(values.size())) {
    std::copy(values.begin(), values.end(), data());
  }

  T* data() { return memory_.data() + kGuard; }
  const T* data() const { return memory_.data() + kGuard; }
  std::size_t size() const { return n_; }
  T& operator[](fastlstm::Index k) { return data()[k]; }
  T operator[](fastlstm::Index k) const { return data()[k]; }

  void check_guards() const {
    for (std::size_t k = 0; k < kGuard; ++k) {
      CHECK(memory_[k] == kMark);
      CHECK(memory_[kGuard + n_ + k] == kMark);
    }
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kGuard = 0;
#else
  static constexpr std::size_t kGuard = 33;
#endif
  static constexpr T kMark = T(-12345.0);
  std::size_t n_;
  std::vector<T> memory_;
};

/// Random values, the same in every run.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}

  double uniform(double from, double to) {
    // Not std::uniform_real_distribution, whose values depend on the library.
    return from + (to - from) * static_cast<double>(engine_()) / 4294967296.0;
  }
  template <class T>
  std::vector<T> values(fastlstm::Index n, double from, double to) {
    std::vector<T> v(static_cast<std::size_t>(n));
    for (T& value : v) value = static_cast<T>(uniform(from, to));
    return v;
  }

 private:
  std::mt19937 engine_;
};

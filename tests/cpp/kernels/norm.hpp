// Layer normalisation in higher precision.
#pragma once

#include <vector>

#include "kernel_tests.hpp"

/// A row less its mean, over its deviation, and that.
struct ExactNorm {
  explicit ExactNorm(const std::vector<Exact>& row) {
    Exact mean = 0, variance = 0;
    for (const Exact x : row) mean += x / static_cast<Exact>(row.size());
    for (const Exact x : row) variance += (x - mean) * (x - mean) / static_cast<Exact>(row.size());
    deviation = std::sqrt(variance + Exact(fastlstm::kNormEpsilon));
    for (const Exact x : row) values.push_back((x - mean) / deviation);
  }
  /// The gradient of the row, from that of the values.
  std::vector<Exact> backward(const std::vector<Exact>& d) const {
    Exact sum = 0, along = 0;
    for (std::size_t k = 0; k < d.size(); ++k) {
      sum += d[k] / static_cast<Exact>(d.size());
      along += d[k] * values[k] / static_cast<Exact>(d.size());
    }
    std::vector<Exact> of_row;
    for (std::size_t k = 0; k < d.size(); ++k) {
      of_row.push_back((d[k] - sum - values[k] * along) / deviation);
    }
    return of_row;
  }
  Exact operator[](Index k) const { return values[static_cast<std::size_t>(k)]; }

  Exact deviation;
  std::vector<Exact> values;
};

/// n values from `at` on.
template <class T>
std::vector<Exact> row_of(const Guarded<T>& values, Index at, Index n) {
  return {values.data() + at, values.data() + at + n};
}

/// The gates of a row of sums, one after another.
template <class T>
std::vector<Exact> gates_of(const Guarded<T>& sums, Index at, Index H,
                            const fastlstm::GateStrides& strides, Index lanes) {
  std::vector<Exact> row;
  for (Index gate = 0; gate < 4; ++gate) {
    for (Index j = 0; j < H; ++j) {
      row.push_back(sums[at + gate * strides.gate + j / lanes * strides.vector + j % lanes]);
    }
  }
  return row;
}

/// Calls body(rows, H, random, strides, width) for sizes, and for sums gate after gate and as tiles
/// write them, with rows of `width` elements.
template <class T, class Body>
void for_each_norm_size(const fastlstm::KernelTable<T>& table, Body body) {
  const Index lanes = table.lanes;
  for_each_size([&](Index rows, Index H, Random& random) {
    body(rows, H, random, fastlstm::GateStrides{H, lanes}, 4 * H);
    const Index blocks = (H + lanes - 1) / lanes;
    body(rows, H, random, fastlstm::GateStrides{lanes, 4 * lanes}, 4 * blocks * lanes);
  });
}

// Small kernels on plain arrays.
#pragma once

#include "kernels/arguments.hpp"
#include "runtime/philox.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void exp_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(exp(load(m.x + k)), m.y + k); });
}

template <class T>
void sigmoid_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(sigmoid(load(m.x + k)), m.y + k); });
}

template <class T>
void tanh_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(tanh(load(m.x + k)), m.y + k); });
}

template <class T>
void add_column_sums(const AddColumnSums<T>& s) noexcept {
  // Two levels of sums keep the rounding error small: it grows with kGroup + rows / kGroup.
  constexpr Index kGroup = 64;
  for (Index first = 0; first < s.rows; first += kGroup) {
    const Index end = first + kGroup < s.rows ? first + kGroup : s.rows;
    for_each_vector<T>(s.columns, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      Vec<T> group = Vec<T>::broadcast(0);
      for (Index row = first; row < end; ++row)
        group = group + load(s.values + row * s.columns + k);
      store(load(s.sums + k) + group, s.sums + k);
    });
  }
}

template <class T>
void dropout_row(const DropoutRow<T>& d) noexcept {
  // A column is kept when its 32 random bits are below (1 - p) 2^32.
  const double keep = (1.0 - d.p) * 4294967296.0;
  const T scale = d.p < 1.0 ? T(1.0 / (1.0 - d.p)) : T(0);
  for (Index first = 0; first < d.columns; first += 4) {
    uint32_t random[4];
    philox_4x32(d.seed, d.row, uint32_t(first / 4), d.layer, random);
    const Index n = d.columns - first < 4 ? d.columns - first : 4;
    for (Index k = 0; k < n; ++k) {
      d.y[first + k] = random[k] < keep ? d.x[first + k] * scale : T(0);
    }
  }
}

template <class T>
void bernoulli_row(const BernoulliRow<T>& b) noexcept {
  const double most = b.p * 4294967296.0;
  for (Index first = 0; first < b.columns; first += 4) {
    uint32_t random[4];
    philox_4x32(b.seed, b.row, uint32_t((b.first + first) / 4), b.stream, random);
    const Index n = b.columns - first < 4 ? b.columns - first : 4;
    for (Index k = 0; k < n; ++k) b.y[first + k] = random[k] < most ? T(1) : T(0);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

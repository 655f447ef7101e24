// Layer normalisation of rows (Ba, Kiros, Hinton 2016).
#pragma once

#include "kernels/arguments.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// What normalises the values of a row: (x - mean) * scale.
template <class T>
struct Moments {
  T mean, scale;

  FASTLSTM_INLINE Vec<T> normalised(Vec<T> x) const {
    return (x - Vec<T>::broadcast(mean)) * Vec<T>::broadcast(scale);
  }
};

/// The same of several vectors.
template <int Parts, class T>
FASTLSTM_INLINE T sum_of_vectors(const Vec<T> (&v)[Parts]) {
  if constexpr (Parts == 4) {
    return sum_of_lanes((v[0] + v[1]) + (v[2] + v[3]));
  } else {
    static_assert(Parts == 1);
    return sum_of_lanes(v[0]);
  }
}

/// The moments of any row, one value at a time in float64: of values so large that their squares
/// are infinite, or so nearly equal that the rounding of their mean counts. The values are divided
/// by a power of two near the largest, and the mean is corrected by the mean of what is left: equal
/// values give zero. NaN where a difference is beyond T's range, or the scale is denormal.
template <int Parts, class T, class At>
FASTLSTM_NOINLINE Moments<T> careful_moments(Index H, At at) {
  constexpr Index kLanes = Vec<T>::kLanes;
  const auto for_each = [&](auto body) FASTLSTM_INLINE_LAMBDA {
    for (int k = 0; k < Parts; ++k) {
      for (Index j = 0; j < H; ++j) body(double(at(k, j / kLanes * kLanes)[j % kLanes]));
    }
  };
  const auto larger = [](double x, double most) FASTLSTM_INLINE_LAMBDA {
    return magnitude(x) > most ? magnitude(x) : most;
  };
  double most = 0;
  for_each([&](double x) { most = larger(x, most); });
  uint64_t bits;
  memcpy(&bits, &most, sizeof bits);
  bits &= uint64_t(0x7FF) << 52;
  double unit;  // the power of two
  memcpy(&unit, &bits, sizeof unit);
  const double n = double(Parts * H);
  double mean = 0, left = 0, squares = 0, farthest = 0;
  for_each([&](double x) { mean += x / unit; });
  mean /= n;
  for_each([&](double x) {
    const double d = x / unit - mean;
    left += d;
    squares += d * d;
    farthest = larger(d, farthest);
  });
  left /= n;
  const double variance = squares / n - left * left;  // of equal values, rounding below zero
  const double deviation = unit * square_root(variance > 0 ? variance : 0);
  const double scale =
      deviation < 1e100 ? 1 / square_root(deviation * deviation + kNormEpsilon) : 1 / deviation;
  constexpr double kLeastScale = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022;
  constexpr double kMost = sizeof(T) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
  if (scale < kLeastScale || farthest * unit > kMost) mean = kNaN<double>;
  return {T((mean + left) * unit), T(scale)};
}

/// The moments of a row in Parts parts of H values. at(k, j): where value j of part k stands, for j
/// that start a vector; it holds copies, since careful_moments is not inlined (below).
///
/// The order of the sums follows from Parts and H alone. The mean comes first: the difference of
/// two sums would lose the digits of a variance that is small beside the mean.
template <int Parts, class T, class At>
FASTLSTM_INLINE Moments<T> moments(Index H, At at) {
  const T n = T(Parts * H);
  Vec<T> sums[Parts] = {};
  for_each_vector<T>(H, [&](Index j, auto load, auto) FASTLSTM_INLINE_LAMBDA {
#pragma GCC unroll 4
    for (int k = 0; k < Parts; ++k) sums[k] = sums[k] + load(at(k, j));
  });
  const T mean = sum_of_vectors(sums) / n;
  T means[Vec<T>::kLanes];  // loaded as values are, it is zero where they do not exist
  Vec<T>::broadcast(mean).store(means);
  Vec<T> squares[Parts] = {};
  for_each_vector<T>(H, [&](Index j, auto load, auto) FASTLSTM_INLINE_LAMBDA {
#pragma GCC unroll 4
    for (int k = 0; k < Parts; ++k) {
      const Vec<T> x = load(at(k, j)) - load(means);
      squares[k] = fma(x, x, squares[k]);
    }
  });
  const T variance = sum_of_vectors(squares) / n;
  constexpr T kMost = sizeof(T) == 4 ? T(0x1p120) : T(0x1p1016);
  const bool usual = mean * mean * T(0x1p-20) <= variance && variance <= kMost;
  if (unlikely(!usual)) return careful_moments<Parts, T>(H, at);
  return {mean, T(1 / square_root(double(variance) + kNormEpsilon))};
}

/// The place in a row of sums of unit j of a gate; j starts a vector.
template <class T>
FASTLSTM_INLINE Index gate_at(const GateStrides& strides, Index gate, Index j) {
  return gate * strides.gate + j / Vec<T>::kLanes * strides.vector;
}

/// The moments of the sums of all four gates of a row.
template <class T>
FASTLSTM_INLINE Moments<T> gate_moments(const T* row, Index H, GateStrides strides) {
  return moments<4, T>(H, [=](int gate, Index j) FASTLSTM_INLINE_LAMBDA {
    return row + gate_at<T>(strides, gate, j);
  });
}

/// Calls body(first, n) for groups of at most kNormRows rows.
template <class Body>
FASTLSTM_INLINE void for_each_norm_rows(Index rows, Body body) {
  for (Index first = 0; first < rows; first += kNormRows) {
    body(first, rows - first < kNormRows ? rows - first : kNormRows);
  }
}

// Below, what a loop over units reads is copied to local variables first: for the compiler, a store
// of a vector may change all that has an address.

/// Calls body(row, moments_of(row)) for all rows.
template <class MomentsOf, class Body>
FASTLSTM_INLINE void with_moments(Index rows, MomentsOf moments_of, Body body) {
  for_each_norm_rows(rows, [&](Index first, Index n) FASTLSTM_INLINE_LAMBDA {
    decltype(moments_of(first)) moments[kNormRows];
    for (Index r = 0; r < n; ++r) moments[r] = moments_of(first + r);
    for (Index r = 0; r < n; ++r) body(first + r, moments[r]);
  });
}

template <class T>
void normalise_sums(const NormaliseSums<T>& arguments) noexcept {
  const NormaliseSums<T> s = arguments;
  const Index H = s.H;
  const auto moments_of = [&](Index row) FASTLSTM_INLINE_LAMBDA {
    return gate_moments<T>(s.sums + row * s.ld, H, s.strides);
  };
  with_moments(s.rows, moments_of, [&](Index row, Moments<T> m) FASTLSTM_INLINE_LAMBDA {
    T* sums = s.sums + row * s.ld;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
#pragma GCC unroll 4
      for (int gate = 0; gate < 4; ++gate) {
        T* at = sums + gate_at<T>(s.strides, gate, j);
        const Vec<T> bias = s.bias != nullptr ? load(s.bias + gate * H + j) : Vec<T>::broadcast(0);
        store(fma(m.normalised(load(at)), load(s.gain + gate * H + j), bias), at);
      }
    });
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// Rows become columns, without arithmetic: how weights are packed.
//
// As many rows as a vector has lanes pass through the registers: vectors of rows that are 1, 2, 4,
// ... apart exchange halves of their lanes.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <int... k>
struct LaneList {};
/// 0, ..., n - 1
template <int n, int... k>
struct LanesBelow : LanesBelow<n - 1, n - 1, k...> {};
template <int... k>
struct LanesBelow<0, k...> {
  using List = LaneList<k...>;
};

/// Of each 2 * distance lanes, the upper half of a and the lower half of b change places.
template <int distance, class T, int... k>
FASTLSTM_INLINE void exchange(Vec<T>& a, Vec<T>& b, LaneList<k...>) {
  constexpr int kLanes = Vec<T>::kLanes;
  const auto low = picked<((k & distance) != 0 ? kLanes + k - distance : k)...>(a.raw, b.raw);
  const auto high = picked<((k & distance) != 0 ? kLanes + k : k + distance)...>(a.raw, b.raw);
  a.raw = low;
  b.raw = high;
}

template <int distance, class T>
FASTLSTM_INLINE void exchange_all(Vec<T> (&v)[Vec<T>::kLanes]) {
  if constexpr (distance < Vec<T>::kLanes) {
#pragma GCC unroll 16
    for (int k = 0; k < Vec<T>::kLanes; ++k) {
      if ((k & distance) == 0) {
        exchange<distance>(v[k], v[k + distance], typename LanesBelow<Vec<T>::kLanes>::List());
      }
    }
    exchange_all<2 * distance>(v);
  }
}

/// Some columns of at most as many rows, at most as many as lanes; load(row, column) gives the
/// values of a row from a column on.
template <class T, class Load>
FASTLSTM_INLINE void transpose_square(const TransposeRows<T>& p, Index column, Index columns,
                                      Load load) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> v[kLanes];
  if (p.rows == kLanes) {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) v[r] = load(p.from + r * p.ld_from + column);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) {
      v[r] = Vec<T>::broadcast(0);
      if (r < p.rows) v[r] = load(p.from + r * p.ld_from + column);
    }
  }
  exchange_all<1>(v);
  T* const to = p.to + column * p.ld_to;
  if (columns == kLanes) {
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) v[k].store(to + k * p.ld_to);
  } else {
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) {
      if (k < columns) v[k].store(to + k * p.ld_to);
    }
  }
}

template <class T>
void transpose_rows(const TransposeRows<T>& p) noexcept {
  constexpr Index kLanes = Vec<T>::kLanes;
  const auto load = [](const T* from) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(from); };
  Index column = 0;
  for (; column + kLanes <= p.columns; column += kLanes) {
    transpose_square(p, column, kLanes, load);
  }
  if (column == p.columns) return;
  if (column > 0) {  // the last ones, some of them once more
    transpose_square(p, p.columns - kLanes, kLanes, load);
    return;
  }
  const Index n = p.columns;
  transpose_square(
      p, 0, n, [n](const T* from) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load_first(from, n); });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

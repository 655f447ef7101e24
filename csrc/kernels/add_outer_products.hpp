// The gradient of a weight matrix: sums of outer products of the gradients of its pre-activations
// and the values that it multiplied.
//
// The values are copied into a panel that stays in the L1 cache while all rows of the weights pass.
// The gradients are read where they are, as columns: a tile uses a part of each cache line of
// theirs, and the line's way from the L2 cache is hidden by the products (512 terms, 1024 rows, 256
// columns on Zen 4: 113 GFLOP/s of 115 with AVX-512, OpenBLAS 95 to 102).
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// to: [rows] of ld_to elements, out: n of each; from: the same, in.
template <class T>
FASTLSTM_INLINE void copy_block(Index rows, Index n, const T* from, Index ld_from, T* to,
                                Index ld_to) {
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < n; ++j) to[r * ld_to + j] = from[r * ld_from + j];
  }
}

/// The columns first <= j < first + n, at most V vectors.
template <int V, class T>
FASTLSTM_NOINLINE void add_outer_columns(const AddOuterProducts<T>& p, Index first, Index n) {
  constexpr Index kLanes = Vec<T>::kLanes, kWidth = V * kLanes;
  constexpr Index kTerms = 128;  // of a group: 32 KB of AVX-512's panels
  constexpr int kMostRows = tile_rows(V) < 12 ? tile_rows(V) : 12;
  alignas(64) T panel[kTerms * kWidth];
  alignas(64) T edge[kMostRows * kWidth];  // of out, where its rows end within the vectors
  if (n < kWidth) {
    memset(panel, 0, sizeof panel);
    memset(edge, 0, sizeof edge);
  }
  const Index tiles = (p.rows + kMostRows - 1) / kMostRows;
  for (Index term = 0; term < p.n; term += kTerms) {
    const Index terms = p.n - term < kTerms ? p.n - term : kTerms;
    copy_block(terms, n, p.values + term * p.ld_values + first, p.ld_values, panel, kWidth);
    for (Index k = 0; k < tiles; ++k) {
      const Index row = p.rows * k / tiles;
      const Index rows = p.rows * (k + 1) / tiles - row;
      T* out = p.out + row * p.ld_out + first;
      T* whole = n < kWidth ? edge : out;
      const Index ld = n < kWidth ? kWidth : p.ld_out;
      if (n < kWidth) copy_block(rows, n, out, p.ld_out, edge, kWidth);
      with_constant_rows<kMostRows>(rows, [&](auto height) FASTLSTM_INLINE_LAMBDA {
        Tile<T, V, height.value, 1> tile;
        tile.set_zero();
        tile.multiply_columns(p.d_sums + term * p.ld_d_sums + row, p.ld_d_sums, panel, terms);
        tile.add_to(whole, ld);
      });
      if (n < kWidth) copy_block(rows, n, edge, kWidth, out, p.ld_out);
    }
  }
}

template <class T>
void add_outer_products(const AddOuterProducts<T>& p) noexcept {
  constexpr Index kLanes = Vec<T>::kLanes;
  Index first = 0;
  for (; p.columns - first > 2 * kLanes; first += 4 * kLanes) {
    const Index left = p.columns - first;
    add_outer_columns<4>(p, first, left < 4 * kLanes ? left : 4 * kLanes);
  }
  const Index left = p.columns - first;
  if (left > kLanes) {
    add_outer_columns<2>(p, first, left);
  } else if (left > 0) {
    add_outer_columns<1>(p, first, left);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// The gradient of a weight matrix: sums of outer products of the gradients of its pre-activations
// and the values that it multiplied.
//
// The values of up to 256 columns are copied into panels of 32 KB (float32, AVX-512). The gradients
// are read where they are, as columns: a tile uses a part of each cache line of theirs, and the
// line's way is hidden by the products of the first panel, which copy it for the tile's others.
// Emerald Rapids, 256 terms, one panel at a time and four: 2048 rows, 512 columns 123 and 147
// GFLOP/s; 4096 and 1024, whose gradients are in the L3 cache, 95 and 145.
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

/// Brings what is to be written at the end of a tile into the cache while the tile is computed.
template <class T>
FASTLSTM_INLINE void prefetch_rows(Index rows, Index n, const T* values, Index ld) {
  constexpr Index kLine = 64 / sizeof(T);
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < n; j += kLine) fetch_to_write(values + r * ld + j);
  }
}

/// The columns first <= j < first + n.
template <int V, class T>
FASTLSTM_NOINLINE void add_outer_columns(const AddOuterProducts<T>& p, Index first, Index n) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  constexpr Index kCopied = 8;  // terms at once
  constexpr int kMostRows = tile_rows(V) < kOuterRows ? tile_rows(V) : kOuterRows;
  const Index most_terms = p.n < kOuterTerms ? p.n : kOuterTerms;
  const Index ld_panel = most_terms * kWidth;
  T* const edge = p.room;  // [kMostRows][kWidth] of out, where its rows end within the vectors
  T* const panels = edge + kMostRows * kWidth;  // [n / kWidth, rounded up] of ld_panel
  T* const copy = panels + (n + kWidth - 1) / kWidth * ld_panel;  // [most_terms][kMostRows]
  if (n % kWidth != 0) {
    memset(panels + n / kWidth * ld_panel, 0, size_t(ld_panel) * sizeof(T));
    memset(edge, 0, kMostRows * kWidth * sizeof(T));
  }
  for (Index term = 0; term < p.n; term += kOuterTerms) {
    const Index terms = p.n - term < kOuterTerms ? p.n - term : kOuterTerms;
    const T* const values = p.values + term * p.ld_values + first;
    const T* const from = p.d_sums + term * p.ld_d_sums;
    for (Index j = 0; j < n; j += kWidth) {
      copy_block(terms, n - j < kWidth ? n - j : kWidth, values + j, p.ld_values,
                 panels + j / kWidth * ld_panel, kWidth);
    }
    for_each_row_tile<kMostRows>(p.rows, [&](Index row, auto height) FASTLSTM_INLINE_LAMBDA {
      constexpr int kRows = height.value;
      for (Index j = 0; j < n; j += kWidth) {
        const Index width = n - j < kWidth ? n - j : kWidth;
        const T* const panel = panels + j / kWidth * ld_panel;
        T* const out = p.out + row * p.ld_out + first + j;
        prefetch_rows(kRows, width, out, p.ld_out);
        Tile<T, V, kRows, 1> tile;
        tile.set_zero();
        if (j > 0) {
          tile.multiply_columns(copy, kRows, panel, terms);
        } else if (n <= kWidth) {
          tile.multiply_columns(from + row, p.ld_d_sums, panel, terms);
        } else {
          // The lines' way from the L2 cache is hidden by the products, then copied.
          for (Index t = 0; t < terms; t += kCopied) {
            const Index m = terms - t < kCopied ? terms - t : kCopied;
            const T* const columns = from + t * p.ld_d_sums + row;
            tile.multiply_columns(columns, p.ld_d_sums, panel + t * kWidth, m);
            for (Index i = 0; i < m; ++i) {
              memcpy(copy + (t + i) * kRows, columns + i * p.ld_d_sums, kRows * sizeof(T));
            }
          }
        }
        if (width == kWidth) {
          tile.add_to(out, p.ld_out);
        } else {
          copy_block(kRows, width, out, p.ld_out, edge, kWidth);
          tile.add_to(edge, kWidth);
          copy_block(kRows, width, edge, kWidth, out, p.ld_out);
        }
      }
    });
  }
}

template <class T>
void add_outer_products(const AddOuterProducts<T>& p) noexcept {
  constexpr Index kLanes = Vec<T>::kLanes, kMost = kOuterVectors * kLanes;
  Index first = 0;
  for (; p.columns - first > 2 * kLanes; first += kMost) {
    const Index left = p.columns - first;
    add_outer_columns<4>(p, first, left < kMost ? left : kMost);
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

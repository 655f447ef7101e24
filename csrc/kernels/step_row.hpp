// One time step of one row that saves nothing, as of a stream: the sums of a group of blocks stay
// in registers from the products to the gates.
//
// The way from a gate to h is a chain of some 140 cycles. So h of a group comes after the products
// of the next one, which the CPU does meanwhile; and what does not fill a group comes first, since
// nothing hides the last one's chain. LSTM, I = 1, ns a step in a block, Zen 4 with AVX-512, beside
// step_tile_with: H = 8 60 and 92, H = 16 68 and 92, H = 32 134 and 172, H = 64 520 and 736, H = 96
// 1266 and 1528; from H = 128 on memory decides.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/convert_rows.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Whether a step is of one row, has no options and nothing else to do.
template <class T>
FASTLSTM_INLINE bool is_plain_row(const CellStepTile<T>& s) {
  return s.rows == 1 && s.options == nullptr && s.gates == nullptr && s.ahead == nullptr;
}

/// Writes h of the units of one vector.
template <class T>
FASTLSTM_INLINE void write_row_h(const CellStepTile<T>& s, Vec<T> h, Index unit) {
  h.store(s.h + unit);
  if (s.output != nullptr) store_left(h, s.output[0] + unit, s.H - unit);
}

/// The sums of a row's products. x: the row, as W takes it; sums: out.
template <class W, class T, int V, int Blocks, class Rows>
FASTLSTM_INLINE void multiply_row(Tile<T, V, 1, Blocks>& sums, const Rows& x, Index K,
                                  const Panel<T>& panel, Index block, const T* bias) {
  sums.template begin<W>(panel, block, bias);
  sums.template multiply<W>(x.rows, 0,
                            stored<W>(panel) + block * groups_of<W>(K) * V * Vec<T>::kLanes, K);
  sums.template end<W>(panel, block, bias, x.scales);
}

template <class W, class T, int V, int Blocks, class Rows>
FASTLSTM_NOINLINE void store_row(T* out, const Rows& x, Index K, const Panel<T>& panel, Index block,
                                 const T* bias) {
  Tile<T, V, 1, Blocks> sums;
  multiply_row<W>(sums, x, K, panel, block, bias);
  sums.store(out, 0);
}

/// The same beside sums that are there already. Small weights take registers: in one function GCC
/// 12 keeps sums on the stack in their loop.
template <class W, class T, int V, int Blocks, class Rows>
FASTLSTM_INLINE void multiply_row_apart(Tile<T, V, 1, Blocks>& sums, const Rows& x, Index K,
                                        const Panel<T>& panel, Index block, const T* bias) {
  if constexpr (is_small(W::kArithmetic)) {
    T out[V * Blocks * Vec<T>::kLanes];
    store_row<W, T, V, Blocks>(out, x, K, panel, block, bias);
    sums.load(out, 0);
  } else {
    multiply_row<W>(sums, x, K, panel, block, bias);
  }
}

/// The products of a group of blocks, and what the cell keeps of them until h. x, h: the row, as W
/// takes it; kept: [Blocks] out
template <int Blocks, class W, class Cell, class T, class Rows>
FASTLSTM_INLINE void start_blocks(const CellStepTile<T>& s, const Rows& x, const Rows& h,
                                  Index block, typename Cell::Kept* kept) {
  constexpr int V = Cell::kVectors;
  Tile<T, V, 1, Blocks> from_x, from_h;
  multiply_row_apart<W>(from_h, h, s.P, s.R, block, static_cast<const T*>(nullptr));
  if (s.x == nullptr) {
    from_x.load(s.projected + block * V * Vec<T>::kLanes, 0);
  } else {
    multiply_row_apart<W>(from_x, x, s.I, s.W, block, s.bias);
  }
#pragma GCC unroll 4
  for (int b = 0; b < Blocks; ++b) {
    kept[b] = Cell::start(s, block + b, &from_x.sum[0][b * V], &from_h.sum[0][b * V]);
  }
}

template <int Blocks, class Cell, class T>
FASTLSTM_INLINE void finish_blocks(const CellStepTile<T>& s, Index block,
                                   const typename Cell::Kept* kept) {
#pragma GCC unroll 4
  for (int b = 0; b < Blocks; ++b) Cell::finish(s, block + b, kept[b]);
}

/// The first group, and the others.
template <int First, int Others, class W, class Cell, class T, class Rows>
FASTLSTM_INLINE void step_row_in_groups(const CellStepTile<T>& s, const Rows& x, const Rows& h) {
  // Where a group begins after which so many blocks are left.
  const auto before = [&](Index left, Index blocks) FASTLSTM_INLINE_LAMBDA {
    return s.down ? s.first_block + left : s.end_block - left - blocks;
  };
  Index left = s.end_block - s.first_block - First;
  typename Cell::Kept first[First];
  const Index first_block = before(left, First);
  start_blocks<First, W, Cell>(s, x, h, first_block, first);
  if (left == 0) return finish_blocks<First, Cell>(s, first_block, first);
  typename Cell::Kept kept[Others];
  left -= Others;
  Index block = before(left, Others);
  start_blocks<Others, W, Cell>(s, x, h, block, kept);
  finish_blocks<First, Cell>(s, first_block, first);
  while (left > 0) {
    typename Cell::Kept later[Others];
    left -= Others;
    const Index block_after = before(left, Others);
    start_blocks<Others, W, Cell>(s, x, h, block_after, later);
    finish_blocks<Others, Cell>(s, block, kept);
#pragma GCC unroll 4
    for (int b = 0; b < Others; ++b) kept[b] = later[b];
    block = block_after;
  }
  finish_blocks<Others, Cell>(s, block, kept);
}

/// Cell: kVectors in a block, start(s, block, x, h) makes a Kept of both parts of its sums, and
/// finish(s, block, kept) writes h.
template <class Cell, class W, class T>
FASTLSTM_INLINE void step_row(const CellStepTile<T>& s) {
  // Two blocks, for more FMAs at a time than one has; but with vectors of a line, an FMA a cycle,
  // the four of a block suffice, and where R does not fit the L1 cache, a block that was read last
  // is still there when the next step goes the other way.
  constexpr Index kL1 = 32 << 10;
  const Index blocks = s.end_block - s.first_block;
  const Index bytes = blocks * groups_of<W>(s.P) * Cell::kVectors * Vec<T>::kLanes *
                      static_cast<Index>(sizeof(typename W::Stored));
  if (blocks == 0) return;
  using Rows = typename RowsOf<W, T>::Type;
  const Index of_x = s.x != nullptr ? 1 : 0;
  const Rows x(of_x, s.I, s.x, s.room);
  const Rows h(1, s.P, &s.h_prev, kConverts<W> ? room_after(s.room, of_x, s.I) : nullptr);
  if (FASTLSTM_VECTOR_BYTES == 64 && bytes > kL1) {
    step_row_in_groups<1, 1, W, Cell>(s, x, h);
  } else if (blocks % 2 == 0) {
    step_row_in_groups<2, 2, W, Cell>(s, x, h);
  } else {
    step_row_in_groups<1, 2, W, Cell>(s, x, h);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

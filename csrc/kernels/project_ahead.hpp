// A step of one row waits for the memory that R comes from: half of the CPU's multiplications are
// idle (AVX-512 on Zen 4: the L2 cache gives half a vector a cycle, and one FMA could be done).
// This does a part of the input projection of later steps meanwhile.
//
// Measured on Zen 4, one thread, T = 100, whole calls of an LSTM: H = 64 57 -> 61 GFLOP/s, H = 128
// 68 -> 76, H = 256 67 -> 69, H = 512 65 -> 72.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Whether the registers hold two blocks of a step and one of kAheadSteps later ones.
constexpr bool kProjectsAhead = kRegisters == 32;

/// A block of the later steps and the next inputs of it. body(tile, x, weights) multiplies them.
template <int V, class W, class T, class Body>
FASTLSTM_INLINE void with_ahead_tile(const CellStepTile<T>& s, Index inputs, Body body) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  ProjectAhead<T>& ahead = *s.ahead;
  T* out = ahead.out + ahead.block * kWidth;
  Tile<T, V, kAheadSteps, 1> tile;
  if (ahead.k == 0) {
    tile.set(s.bias + ahead.block * kWidth);
  } else {
    tile.load(out, ahead.ld_out);
  }
  const T* x[kAheadSteps];
  for (Index r = 0; r < kAheadSteps; ++r) x[r] = ahead.x[r] + ahead.k;
  body(tile, x, stored<W>(s.W) + (ahead.block * s.I + ahead.k) * kWidth);
  tile.store(out, ahead.ld_out);
  ahead.k += inputs;
  if (ahead.k == s.I) {
    ahead.k = 0;
    ++ahead.block;
  }
}

/// from_h = h' R for the blocks first <= b < end of one row, [blocks][V][lanes].
template <int V, class W, class T>
FASTLSTM_NOINLINE void multiply_row_and_project_ahead(const CellStepTile<T>& s, Index first,
                                                      Index end, T* from_h) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  using Stored = typename W::Stored;
  const Stored* const all_R = stored<W>(s.R);
  const T* const h[1] = {s.h_prev};
  Index block = first;
  for (; block + 2 <= end && s.ahead->block < s.end_block; block += 2) {
    const Stored* R[2] = {all_R + block * s.P * kWidth, all_R + (block + 1) * s.P * kWidth};
    Tile<T, V, 1, 2> tile;
    tile.set_zero();
    // Two inputs of this step for each of the later ones: the same number of products.
    const Index left = s.I - s.ahead->k, inputs = left < s.P / 2 ? left : s.P / 2;
    with_ahead_tile<V, W>(s, inputs,
                          [&](auto& later, const T* const* x, const Stored* weights)
                              FASTLSTM_INLINE_LAMBDA {
                                for (Index j = 0; j < inputs; ++j) {
                                  tile.template multiply_one<W>(h, R, 2 * j);
                                  tile.template multiply_one<W>(h, R, 2 * j + 1);
                                  later.template multiply_one<W>(x, &weights, j);
                                }
                              });
    for (Index k = 2 * inputs; k < s.P; ++k) tile.template multiply_one<W>(h, R, k);
    tile.store(from_h + (block - first) * kWidth, 0);
  }
  if (block == end) return;
  multiply_panel<V, W, T>(1, block, end, s.P, h, nullptr, s.R, nullptr,
                          from_h + (block - first) * kWidth, 0, false);
}

/// What is left of the projection.
template <int V, class W, class T>
FASTLSTM_NOINLINE void finish_ahead(const CellStepTile<T>& s) {
  while (s.ahead->block < s.end_block) {
    const Index inputs = s.I - s.ahead->k;
    with_ahead_tile<V, W>(
        s, inputs,
        [&](auto& later, const T* const* x, const typename W::Stored* weights)
            FASTLSTM_INLINE_LAMBDA { later.template multiply<W>(x, 0, weights, inputs); });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// One time step of any cell on tiles: the sums of all gates of the same units end together, and the
// cell's equations finish them while they are in the L1 cache.
//
// x W and h R are summed apart and added at the end: small products with h would lose their last
// bits in a sum that the input has made large. It halves the error of float32 pre-activations
// (LSTM, H = 64).
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/project_ahead.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

// Blocks of units whose sums are kept until the equations finish them: enough that the CPU
// overlaps them, and few enough (24 KB with AVX-512) to stay in the L1 cache.
constexpr Index kBlocksAtOnce = 48;

/// Both parts of the pre-activations of some rows and blocks.
template <class T, int V>
struct TileSums {
  const T* from_x;  // [rows] of ld_x elements in: bias + x W, [blocks][V][lanes] of each
  Index ld_x;
  T* from_h;  // [rows][blocks][V][lanes] in: h R; may be overwritten
  Index first_row, rows;
  Index first_block, blocks;

  /// Calls body(row, block, x, h) with both parts of one block, [V][lanes].
  template <class Body>
  FASTLSTM_INLINE void for_each_block(Body body) const {
    constexpr Index kWidth = V * Vec<T>::kLanes;
    T* h = from_h;
    for (Index row = 0; row < rows; ++row) {
      for (Index b = 0; b < blocks; ++b, h += kWidth) {
        body(first_row + row, first_block + b, from_x + row * ld_x + b * kWidth, h);
      }
    }
  }
};

/// Brings what the next blocks of units will save into the cache: its lines come from afar, and the
/// equations would wait for them (LSTM, B = 32, H = 128 to 512: training +1 to 2 %).
template <class T>
FASTLSTM_INLINE void fetch_to_save(T* next, int gates, Index H) {
  for (int gate = 0; gate < gates; ++gate) __builtin_prefetch(next + gate * H, 1);
}

/// finish(sums): the cell's equations, writes all results.
template <int V, class T, class Finish>
FASTLSTM_INLINE void step_tile(const CellStepTile<T>& s, Finish finish) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  alignas(64) T from_x[kBlocksAtOnce * kWidth];
  alignas(64) T from_h[kBlocksAtOnce * kWidth];
  const T* h_prev[kBlocksAtOnce];
  const Index groups = (s.rows + kBlocksAtOnce - 1) / kBlocksAtOnce;
  for (Index group = 0; group < groups; ++group) {
    const Index row = s.rows * group / groups;
    const Index rows = s.rows * (group + 1) / groups - row;
    for (Index r = 0; r < rows; ++r) h_prev[r] = s.h_prev + (row + r) * s.ld_h_prev;
    const Index most_blocks = kBlocksAtOnce / rows;
    for (Index block = s.first_block; block < s.end_block; block += most_blocks) {
      const Index end = block + most_blocks < s.end_block ? block + most_blocks : s.end_block;
      const Index ld = (end - block) * kWidth;
      const T* const next_R = s.R + (end < s.end_block ? end : s.first_block) * s.P * kWidth;
      const T* const next = s.x != nullptr ? s.W + block * s.I * kWidth : next_R;
      if (kProjectsAhead && s.ahead != nullptr) {
        multiply_row_and_project_ahead<V>(s, block, end, from_h);
      } else {
        multiply_panel<V, T>(rows, block, end, s.P, h_prev, s.R, nullptr, from_h, ld, next);
      }
      TileSums<T, V> sums{from_x, ld, from_h, row, rows, block, end - block};
      if (s.x != nullptr) {
        multiply_panel<V, T>(rows, block, end, s.I, s.x + row, s.W, s.bias, from_x, ld, next_R);
      } else {
        sums.from_x = s.projected + row * s.ld_projected + block * kWidth;
        sums.ld_x = s.ld_projected;
      }
      finish(sums);
    }
  }
  if (kProjectsAhead && s.ahead != nullptr && s.ahead->last_step) finish_ahead<V>(s);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

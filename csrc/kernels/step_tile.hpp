// One time step of any cell on tiles: the sums of all gates of the same units end together, and the
// cell's equations finish them while they are in the L1 cache.
//
// x W and h R are summed apart and added at the end: small products with h would lose their last
// bits in a sum that the input has made large. It halves the error of float32 pre-activations
// (LSTM, H = 64).
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/convert_rows.hpp"
#include "kernels/project_ahead.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Both parts of the pre-activations of some rows and blocks.
template <class T, int V>
struct TileSums {
  const T* from_x;  // [rows] of ld_x elements in: bias + x W, [blocks][V][lanes] of each
  Index ld_x;
  T* from_h;  // [rows][blocks][V][lanes] in: h R; may be overwritten
  Index first_row, rows;
  Index first_block, blocks;
  Index to_next;  // from a block to that of the sums that follow

  /// Calls body(row, block, x, h) with both parts of one block, [V][lanes].
  template <class Body>
  FASTLSTM_INLINE void for_each_unit_block(Body body) const {
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
  for (int gate = 0; gate < gates; ++gate) fetch_to_write(next + gate * H);
}

/// finish(sums): the cell's equations, writes all results.
///
/// A step that goes down reads W before R, too, since the one before has read it last. Each product
/// fetches the panel that follows, as far as it is known: where the step after goes down, it begins
/// with what is there.
template <int V, class W, class T, class Finish>
FASTLSTM_INLINE void step_tile(const CellStepTile<T>& s, Finish finish) {
  using Stored = typename W::Stored;
  constexpr Index kWidth = V * Vec<T>::kLanes;
  T* const from_x = s.sums;
  T* const from_h = from_x + step_sums(s.rows, s.end_block - s.first_block, kWidth) / 2;
  const T* h_prev[kRowsAtOnce];
  const Stored *const all_W = stored<W>(s.W), *const all_R = stored<W>(s.R);
  PanelProducts<W> products;
  const Index groups = (s.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  for (Index group = 0; group < groups; ++group) {
    const Index row = s.rows * group / groups;
    const Index rows = s.rows * (group + 1) / groups - row;
    for (Index r = 0; r < rows; ++r) h_prev[r] = s.h_prev + (row + r) * s.ld_h_prev;
    const Index of_x = s.x != nullptr ? rows : 0;
    using Rows = typename RowsOf<W, T>::Type;
    const Rows x(of_x, s.I, of_x > 0 ? s.x + row : nullptr, s.room);
    const Rows h(rows, s.P, h_prev, kConverts<W> ? room_after(s.room, of_x, s.I) : nullptr);
    const Index most_blocks = kBlocksAtOnce / rows;
    for (Index left = s.end_block - s.first_block; left > 0;) {
      const Index blocks = left < most_blocks ? left : most_blocks;
      const Index block = s.down ? s.first_block + left - blocks : s.end_block - left;
      const Index end = block + blocks, ld = blocks * kWidth;
      const Index begin = s.down ? end - 1 : block, after = s.down ? block - 1 : end;
      left -= blocks;
      TileSums<T, V> sums{from_x, ld, from_h, row, rows, block, blocks, s.down ? -blocks : blocks};
      const auto multiply_x = [&](const Stored* next_R) FASTLSTM_INLINE_LAMBDA {
        products.template multiply<V, T>(rows, block, end, s.I, x.rows, x.scales, s.W, s.bias,
                                         from_x, ld, s.down, next_R);
      };
      const auto multiply_h = [&](const Stored* next) FASTLSTM_INLINE_LAMBDA {
        products.template multiply<V, T>(rows, block, end, s.P, h.rows, h.scales, s.R, nullptr,
                                         from_h, ld, s.down, next);
      };
      const auto of_R = [&](Index b) FASTLSTM_INLINE_LAMBDA {
        return all_R + b * groups_of<W>(s.P) * kWidth;
      };
      const auto of_W = [&](Index b) FASTLSTM_INLINE_LAMBDA {
        return all_W + b * groups_of<W>(s.I) * kWidth;
      };
      if (s.x == nullptr) {
        sums.from_x = s.projected + row * s.ld_projected + block * kWidth;
        sums.ld_x = s.ld_projected;
        const Stored* const next = left > 0 ? of_R(after) : nullptr;
        if constexpr (kProjectsAhead && !is_small(W::kArithmetic)) {
          if (s.ahead != nullptr) {
            multiply_row_and_project_ahead<V, W>(s, block, end, from_h);
          } else {
            multiply_h(next);
          }
        } else {
          multiply_h(next);
        }
      } else if (s.down) {
        multiply_x(of_R(begin));
        multiply_h(left > 0 ? of_W(after) : nullptr);
      } else {
        multiply_h(of_W(begin));
        multiply_x(of_R(left > 0 ? after : s.first_block));
      }
      finish(sums);
    }
  }
  if constexpr (kProjectsAhead && !is_small(W::kArithmetic)) {
    if (s.ahead != nullptr && s.ahead->last_step) finish_ahead<V, W>(s);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

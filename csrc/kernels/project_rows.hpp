// Many rows times a panel: an input projection over a chunk of time, or the projection of h.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// One tile of project_rows, for the inputs first <= k < end.
template <class T, int Rows, int Blocks>
FASTLSTM_INLINE void project_tile(const ProjectRows<T>& p, Index row, Index block, Index first,
                                  Index end) {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  T* out = p.out + row * p.ld_out + block * kWidth;
  Tile<T, Rows, Blocks> tile;
  if (first > 0) {
    tile.load(out, p.ld_out);
  } else if (p.bias != nullptr) {
    tile.set(p.bias + block * kWidth);
  } else {
    tile.set_zero();
  }
  tile.multiply([&](int r) FASTLSTM_INLINE_LAMBDA { return p.x[row + r]; }, first, end,
                p.panel + block * p.K * kWidth, p.K);
  tile.store(out, p.ld_out);
}

template <class T>
void project_rows(const ProjectRows<T>& p) noexcept {
  if (p.rows <= kTileRows) {
    // One tile of rows: nothing would be read twice from the cache.
    with_constant_rows(p.rows, [&](auto height) FASTLSTM_INLINE_LAMBDA {
      constexpr int kRows = decltype(height)::value;
      for_each_block<tile_blocks(kRows)>(
          p.first_block, p.end_block, [&](Index block, auto blocks) FASTLSTM_INLINE_LAMBDA {
            project_tile<T, kRows, decltype(blocks)::value>(p, 0, block, 0, p.K);
          });
    });
    return;
  }
  for (Index block = p.first_block; block < p.end_block; ++block) {
    for (Index first = 0; first < p.K; first += kInputsInCache<T>) {
      const Index end = first + kInputsInCache<T> < p.K ? first + kInputsInCache<T> : p.K;
      for_each_row_tile(p.rows, [&](Index row, auto height) FASTLSTM_INLINE_LAMBDA {
        project_tile<T, decltype(height)::value, 1>(p, row, block, first, end);
      });
    }
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

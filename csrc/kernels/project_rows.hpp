// Many rows times a panel: an input projection over a chunk of time, or the projection of h.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void project_rows(const ProjectRows<T>& p) noexcept {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  for_each_tile(p.rows, p.first_block, p.end_block,
                [&](Index row, Index block, auto height, auto blocks) FASTLSTM_INLINE_LAMBDA {
                  Tile<T, height.value, blocks.value> tile;
                  if (p.bias != nullptr) {
                    tile.set(p.bias + block * kWidth);
                  } else {
                    tile.set_zero();
                  }
                  const auto x = [&](int r) FASTLSTM_INLINE_LAMBDA { return p.x[row + r]; };
                  tile.multiply(x, p.panel + block * p.K * kWidth, p.K);
                  tile.store(p.out + row * p.ld_out + block * kWidth, p.ld_out);
                });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

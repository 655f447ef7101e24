// Many rows times a panel: an input projection over a chunk of time, or the projection of h.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <int V, class W, class T>
FASTLSTM_INLINE void project_rows_by(const ProjectRows<T>& p) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  multiply_panel<V, W, T>(p.rows, p.first_block, p.end_block, p.K, p.x, stored<W>(p.panel), p.bias,
                          p.out + p.first_block * kWidth, p.ld_out, p.down);
}

template <class T>
void project_rows(const ProjectRows<T>& p) noexcept {
  with_weights(p.panel, [&](auto weights) FASTLSTM_INLINE_LAMBDA {
    using W = decltype(weights);
    if (p.V == 3) {
      project_rows_by<3, W>(p);
    } else {
      project_rows_by<4, W>(p);
    }
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// Many rows times a panel: an input projection over a chunk of time, or the projection of h.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/convert_rows.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <int V, class W, class T>
FASTLSTM_INLINE void project_rows_by(const ProjectRows<T>& p) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  T* const out = p.out + p.first_block * kWidth;
  const Index at_once = kConverts<W> ? kRowsAtOnce : p.rows;
  for (Index row = 0; row < p.rows; row += at_once) {
    const Index rows = p.rows - row < at_once ? p.rows - row : at_once;
    const typename RowsOf<W, T>::Type x(rows, p.K, p.x + row, p.room);
    multiply_panel<V, typename W::Products, T>(rows, p.first_block, p.end_block, p.K, x.rows,
                                               x.scales, p.panel, p.bias, out + row * p.ld_out,
                                               p.ld_out, p.down);
  }
}

template <class T, class W = FullWeights<T>>
void project_rows(const ProjectRows<T>& p) noexcept {
  if (p.V == 3) {
    project_rows_by<3, W>(p);
  } else {
    project_rows_by<4, W>(p);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// Many rows times a panel: an input projection over a chunk of time, or the projection of h.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void project_rows(const ProjectRows<T>& p) noexcept {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  multiply_panel<4, T>(p.rows, p.first_block, p.end_block, p.K, p.x, p.panel, p.bias,
                       p.out + p.first_block * kWidth, p.ld_out);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

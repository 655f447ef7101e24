// The GRU's step on tiles.
#include "tile_step.hpp"

using namespace fastlstm;

namespace {

template <class T>
Unit exact_gru(const TileStep<T>& step, Index row, Index j) {
  const Exact r = exact_sigmoid(step.sum(row, 0, j)), z = exact_sigmoid(step.sum(row, 1, j));
  const Exact m = step.from_h(row, 2, j) + step.b_h[j];
  const Exact n = exact_tanh(step.from_x(row, 2, j) + r * m);
  return {(1 - z) * n + z * step.h_past_R[row * step.ld_h_prev() + j], 0, {r, z, n, m}};
}

}  // namespace

KERNEL_TEST(gru_step_tile) { check_step_tiles(table, table.gru_step_tile, 3, exact_gru<T>); }

// Long kernel calls in parts, between which an interruption is looked for: a step of 3000 rows of a
// layer with H = 4096 takes seconds. No bit of a result depends on the parts.
#pragma once

#include <algorithm>

#include "kernels/arguments.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

/// The parts of what has so many products.
inline Index parts_of(double products) {
  return 1 + static_cast<Index>(products / tuning().products_per_part);
}

/// Calls kernel(part, first_row) for parts of a call: of its blocks, and where single ones have too
/// much to do, of its rows. Of a part's rows the first is first_row of the call's; where it is not
/// 0, kernel moves the pointers to rows. products: of a row and block. Ends early where the region
/// is interrupted.
template <class Call, class Kernel>
void in_parts(const Call& call, Index products, const Kernel& kernel) noexcept {
  constexpr double kNotWorthAsking = 1e6;
  const Index blocks = call.end_block - call.first_block;
  const double all = static_cast<double>(call.rows) * static_cast<double>(blocks * products);
  if (all < kNotWorthAsking) return kernel(call, Index{0});
  const Index n = parts_of(all);
  const Index of_blocks = std::min(n, blocks), of_rows = std::min(call.rows, 1 + (n - 1) / blocks);
  for (Index r = 0; r < of_rows; ++r) {
    const Index first = call.rows * r / of_rows;
    for (Index k = 0; k < of_blocks; ++k) {
      if (interrupted(all / static_cast<double>(of_rows * of_blocks))) return;
      const Index b = call.down ? of_blocks - 1 - k : k;
      Call part = call;
      part.rows = call.rows * (r + 1) / of_rows - first;
      part.first_block = call.first_block + blocks * b / of_blocks;
      part.end_block = call.first_block + blocks * (b + 1) / of_blocks;
      kernel(part, first);
    }
  }
}

/// The kernel project_rows.
template <class T>
void project_rows(const ProjectRows<T>& call) noexcept {
  const auto kernel = panel_kernels<T>(call.panel.arithmetic).project_rows;
  const auto run = [kernel](const ProjectRows<T>& part, Index first_row) {
    if (first_row == 0) return kernel(part);
    ProjectRows<T> moved = part;
    moved.x += first_row;
    moved.out += first_row * part.ld_out;
    kernel(moved);
  };
  in_parts(call, call.K * call.V * kernels<T>().lanes, run);
}

/// Calls body(first, n) for parts of the rows of a product, which has `inner` products for each.
/// They are larger, since each packs anew what all rows are multiplied with; and the same for any
/// number of threads, since on BLAS bits depend on them.
template <class Body>
void in_parts_of_rows(Index rows, Index inner, const Body& body) noexcept {
  const double all = static_cast<double>(rows) * static_cast<double>(inner);
  const Index parts = std::min(rows, parts_of(all / 8));
  for (Index p = 0; p < parts; ++p) {
    if (interrupted(all / static_cast<double>(parts))) return;
    const Index first = rows * p / parts;
    body(first, rows * (p + 1) / parts - first);
  }
}

}  // namespace fastlstm

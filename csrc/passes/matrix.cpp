#include "fastlstm/matrix.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "runtime/buffer.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/thread_team.hpp"
#include "schedule/parts.hpp"
#include "schedule/shares.hpp"
#include "weights/weight_panel.hpp"

namespace fastlstm {

namespace {

/// Rows of a task, which reads each weight once for all of them; and blocks of the panel, few, so
/// that a wide matrix is divided where there are few rows.
constexpr Index kRows = 64;
constexpr Index kBlocks = 4;

/// Threads for so many tasks with so many products in all.
int threads_for(Index tasks, double products) {
  const double most = std::min({static_cast<double>(tasks), static_cast<double>(num_threads()),
                                products / tuning().products_per_thread});
  return threads_that_may_share(static_cast<int>(std::max(most, 1.0)));
}

double count_products(Index n, Index rows, Index columns) {
  return static_cast<double>(n) * static_cast<double>(rows) * static_cast<double>(columns);
}

}  // namespace

template <class T>
PackedMatrix<T>::PackedMatrix(Index rows, Index columns, const T* W)
    : PackedMatrix(rows, columns,
                   std::make_shared<const WeightPanel<T>>(
                       PanelLayout::of_matrix(1, rows, kernels<T>().lanes), columns, W)) {}

template <class T>
PackedMatrix<T>::PackedMatrix(Index rows, Index columns,
                              std::shared_ptr<const WeightPanel<T>> panel)
    : rows_(rows), columns_(columns), panel_(std::move(panel)) {}

template <class T>
PackedMatrix<T> PackedMatrix<T>::transposed() const {
  return {columns_, rows_, std::make_shared<const WeightPanel<T>>(panel_->transposed(0, rows_))};
}

template <class T>
void PackedMatrix<T>::multiply(Index n, const T* x, const T* bias, T* y) const {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a task
  const PanelLayout& layout = panel_->layout();
  const Index width = layout.width(), blocks = layout.blocks(), whole = rows_ / width;
  const Index of_rows = pieces(n, kRows), of_blocks = pieces(blocks, kBlocks);
  const Index tasks = of_rows * of_blocks;
  const double products = count_products(n, rows_, columns_);
  TeamLease team(threads_for(tasks, products), products);
  Buffer<T> padded_bias;
  if (bias != nullptr) {
    padded_bias.resize(blocks, width);
    padded_bias.fill_zero();
    std::copy_n(bias, rows_, padded_bias.data());
  }
  Buffer<T> edges(team.threads(), kRows * width);  // what the last block is, beyond y's last column
  team.run_tasks(tasks, [&](Index task, int rank) noexcept {
    const Piece row = piece(n, task % of_rows, kRows);
    const Piece block = piece(blocks, task / of_rows, kBlocks);
    const T* inputs[kRows];
    for (Index r = 0; r < row.size; ++r) inputs[r] = x + (row.first + r) * columns_;
    ProjectRows<T> call{};
    call.rows = row.size;
    call.first_block = block.first;
    call.end_block = std::min(block.first + block.size, whole);
    call.V = 4;
    call.K = columns_;
    call.x = inputs;
    call.panel = panel_->view();
    call.bias = bias != nullptr ? padded_bias.data() : nullptr;
    call.out = y + row.first * rows_;
    call.ld_out = rows_;
    if (call.first_block < call.end_block) project_rows(call);
    if (block.first + block.size <= whole) return;
    T* const edge = edges.data() + rank * kRows * width;
    call.first_block = whole;
    call.end_block = blocks;
    call.out = edge - whole * width;  // the kernel adds where the first block begins
    call.ld_out = width;
    project_rows(call);
    for (Index r = 0; r < row.size; ++r) {
      std::copy_n(edge + r * width, rows_ - whole * width,
                  y + (row.first + r) * rows_ + whole * width);
    }
  });
}

template <class T>
void add_products(Index n, Index rows, Index columns, const T* d_y, const T* x, T* d_W) {
  if (n == 0) return;
  const FlushDenormals flush_denormals;
  const Index lanes = kernels<T>().lanes, most_columns = kOuterVectors * lanes;
  const double products = count_products(n, rows, columns);
  const Index of_columns = pieces(columns, most_columns);
  // A thread copies the columns of x for each task: few tasks, but some for every thread.
  const Index per_task = std::max<Index>(pieces(rows, Index{2} * num_threads()), kRows);
  const Index of_rows = pieces(rows, per_task);
  TeamLease team(threads_for(of_columns * of_rows, products), products);
  const Index room = (outer_products_room(n, std::min(columns, most_columns), lanes) + 4 * lanes) /
                     (4 * lanes) * (4 * lanes);  // whole lines of the cache
  Buffer<T> rooms(team.threads(), room);
  team.run_tasks(of_columns * of_rows, [&](Index task, int rank) noexcept {
    const Piece row = piece(rows, task % of_rows, per_task);
    const Piece column = piece(columns, task / of_rows, most_columns);
    in_parts_of_rows(row.size, column.size * n, [&](Index first, Index height) {
      const Index at = row.first + first;
      kernels<T>().add_outer_products({n, height, column.size, d_y + at, rows, x + column.first,
                                       columns, d_W + at * columns + column.first, columns,
                                       rooms.data() + rank * room});
    });
  });
}

template <class T>
void add_sums(Index n, Index columns, const T* values, T* sums) {
  const FlushDenormals flush_denormals;
  in_region([&] {
    if (!interrupted_before(n * columns)) kernels<T>().add_column_sums({n, columns, values, sums});
  });
}

#define FASTLSTM_INSTANTIATE(T)                                               \
  template class PackedMatrix<T>;                                             \
  template void add_products<T>(Index, Index, Index, const T*, const T*, T*); \
  template void add_sums<T>(Index, Index, const T*, T*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "passes/weight_gradients.hpp"

#include <algorithm>
#include <utility>

#include "runtime/blas.hpp"
#include "runtime/tuning.hpp"
#include "schedule/parts.hpp"

namespace fastlstm {

namespace {

/// Rows of x's gradient in a task: each row is by itself, and small tasks keep all threads at work
/// until the end.
constexpr Index kRowsOfX = 64;

}  // namespace

template <class T>
WeightGradients<T>::WeightGradients(const CellWeights<T>& weights, const Outputs& outputs,
                                    std::vector<RInputs<T>> R_inputs, int threads, Index block_rows,
                                    Room& room)
    : w_(weights),
      out_(outputs),
      R_inputs_(std::move(R_inputs)),
      threads_(threads),
      ld_room_(std::max(room_values(w_.I, block_rows), room_values(w_.P, block_rows))) {
  room.add(room_, threads, ld_room_);
  if (out_.d_x != nullptr && !writes_d_x()) {
    room.add(d_x_, block_rows, backward_columns<T>(w_.I));
  }
}

template <class T>
void WeightGradients<T>::begin(const BlockGradients<T>& block) {
  block_ = block;
  of_W_ = out_.d_W != nullptr ? weight_pieces(w_.I) : 0;
  of_R_ = out_.d_R != nullptr ? weight_pieces(w_.P) : 0;
  of_rows_ = out_.d_x != nullptr ? pieces(block.rows, kRowsOfX) : 0;
  // Gradients of x come last, small tasks for threads that would wait. But where the gates'
  // gradients are too many for the L2 cache, what reads them by rows comes first: those of the last
  // steps are still there.
  const auto bytes = static_cast<double>(block.rows * w_.GH) * static_cast<double>(sizeof(T));
  d_x_first_ = bytes > tuning().gradients_in_L2;
}

template <class T>
void WeightGradients<T>::run(Index k, int rank) noexcept {
  const Index of_x = d_x_first_ ? k : k - of_W_ - of_R_;
  if (0 <= of_x && of_x < of_rows_) {
    d_x_product(piece(block_.rows, of_x, kRowsOfX));
    return;
  }
  if (d_x_first_) k -= of_rows_;
  T* const room = room_.data() + rank * ld_room_;
  if (k < of_W_) {
    add_products(block_.d_gates, k, 0, w_.GH, out_.x + block_.first_row * w_.I, w_.I, out_.d_W,
                 room);
    return;
  }
  for (const RInputs<T>& inputs : R_inputs_) {
    add_products(block_.d_from_h, k - of_W_, inputs.first, inputs.end, inputs.values, w_.P,
                 out_.d_R, room);
  }
}

template <class T>
bool WeightGradients<T>::on_tiles(Index columns) {
  return kernels<T>().lanes * static_cast<Index>(sizeof(T)) == 64 || columns <= kOuterColumns;
}

template <class T>
Index WeightGradients<T>::room_values(Index columns, Index block_rows) {
  const Index lanes = kernels<T>().lanes;
  const Index values = on_tiles(columns) ? outer_products_room(block_rows, columns, lanes) : 0;
  return (values + 4 * lanes - 1) / (4 * lanes) * (4 * lanes);  // whole lines of the cache
}

template <class T>
Index WeightGradients<T>::weight_pieces(Index columns) const {
  return pieces(w_.GH, weight_piece_rows(columns)) * pieces(columns, weight_piece_columns(columns));
}

/// Our own kernel takes 4 panels of columns at once: fewer where there were too few pieces.
template <class T>
Index WeightGradients<T>::weight_piece_columns(Index columns) const {
  if (!on_tiles(columns)) return columns;
  const Index panel = 4 * kernels<T>().lanes;
  const Index all = pieces(columns, panel) * pieces(w_.GH, weight_piece_rows(columns));
  return panel * std::clamp<Index>(all / threads_, 1, 4);
}

/// On tiles, each thread has a share of the rows, and so of d_sums, which another wrote in part.
/// BLAS packs the values anew for each piece: not many of them where there are many rows.
template <class T>
Index WeightGradients<T>::weight_piece_rows(Index columns) const {
  if (!on_tiles(columns)) return std::max(kPieceRows, pieces(w_.GH, 4));
  return std::max<Index>(pieces(w_.GH, threads_), 128);
}

template <class T>
void WeightGradients<T>::add_products(const T* d_sums, Index k, Index first, Index end,
                                      const T* values, Index columns, T* d_weight,
                                      T* room) const noexcept {
  const Index GH = w_.GH, n = block_.rows, of_rows = pieces(GH, weight_piece_rows(columns));
  const Piece rows = piece(GH, k % of_rows, weight_piece_rows(columns));
  const Piece p = piece(columns, k / of_rows, weight_piece_columns(columns));
  first = std::max(first, rows.first);
  end = std::min(end, rows.first + rows.size);
  if (first >= end) return;
  values += p.first;
  in_parts_of_rows(end - first, p.size * n, [&](Index skipped, Index height) {
    const Index row = first + skipped;
    T* const d = d_weight + row * columns + p.first;
    if (on_tiles(columns)) {
      kernels<T>().add_outer_products(
          {n, height, p.size, d_sums + row, GH, values, columns, d, columns, room});
    } else {
      gemm<T>(height, p.size, n, {d_sums + row, GH, true}, {values, columns}, 1, d, columns);
    }
  });
}

template <class T>
bool WeightGradients<T>::writes_d_x() const {
  return backward_columns<T>(w_.I) == w_.I && !out_.add_to_d_x;
}

template <class T>
void WeightGradients<T>::d_x_product(Piece p) noexcept {
  const Index I = w_.I, GH = w_.GH, ld = backward_columns<T>(I);
  const T* inputs[kRowsOfX];
  for (Index row = 0; row < p.size; ++row) inputs[row] = block_.d_gates + (p.first + row) * GH;
  T* d_x = out_.d_x + (block_.first_row + p.first) * I;
  const bool direct = writes_d_x();
  T* padded = direct ? d_x : d_x_.data() + p.first * ld;
  const WeightPanel<T>& W = w_.W_backward();
  ProjectRows<T> call{};
  call.rows = p.size;
  call.end_block = W.layout().blocks();
  call.V = 4;
  call.K = GH;
  call.x = inputs;
  call.panel = W.view();
  call.out = padded;
  call.ld_out = ld;
  project_rows(call);
  if (direct) return;
  for (Index row = 0; row < p.size; ++row, d_x += I, padded += ld) {
    for (Index j = 0; j < I; ++j) d_x[j] = out_.add_to_d_x ? d_x[j] + padded[j] : padded[j];
  }
}

template class WeightGradients<float>;
template class WeightGradients<double>;

}  // namespace fastlstm

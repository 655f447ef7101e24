#include "rnn/cell_backward.hpp"

#include <algorithm>
#include <vector>

#include "rnn/pieces.hpp"
#include "rnn/step_blocks.hpp"
#include "runtime/blas.hpp"
#include "runtime/cpu.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

/// Products (multiply and add) per step and thread that pay for meeting twice at each step: on a
/// CPU with a fast L3 cache, and on others (two threads of an Emerald Rapids and one, LSTM, T =
/// 100, B = 1, training, us: H = 64 391 and 326, H = 80 535 and 526, H = 96 652 and 662, H = 128
/// 885 and 927).
constexpr Index kProductsPerShare = 8000, kProductsPerShareOfSlowL3 = 16000;

/// Bytes of a block's gradients of gates that the L2 cache has room for, with what they meet there.
constexpr Index kGradientsInL2 = 3 << 19;

/// What rows first <= b < end of a step came from: those before `carried` from packed row
/// `row + b`, the others (which started here) from the initial state.
struct PreviousRows {
  Index carried;
  Index row;
};

/// The backward pass of one layer and direction, block of steps by block of steps: first the steps,
/// then the products over all rows of the block.
template <class T>
class BackwardPass {
 public:
  explicit BackwardPass(const DirectionBackward<T>& run)
      : run_(run),
        rows_(run.rows),
        w_(run.weights),
        tiles_(active_target().tiles),
        ld_d_h_(tiles_ ? backward_columns<T>(w_.P) : w_.P),
        d_h_(rows_.B(), ld_d_h_),
        d_gates_(block_rows_, w_.GH),
        h_prev_(block_rows_, w_.P),
        norm_strides_(tiles_ ? GateStrides{kernels<T>().lanes, w_.width}
                             : gate_after_gate<T>(w_.H)),
        ld_from_x_(tiles_ ? w_.blocks * w_.width : w_.GH) {
    copy_rows(run.d_h, rows_.B(), w_.P, d_h_.data(), ld_d_h_);
    if (W_panel_ != nullptr && !writes_d_x()) {
      d_x_.resize(block_rows_, backward_columns<T>(w_.I));
    }
    if (w_.cell.in_halves) {
      reset_h_.resize(block_rows_, w_.H);
      d_reset_.resize(rows_.B(), ld_d_h_);
    }
    if (w_.cell.gradients_differ()) d_from_h_.resize(block_rows_, w_.GH);
    if (w_.cell.normalises) {
      again_row_.resize(static_cast<std::size_t>(pieces(rows_.B(), step_rows_)));
      from_x_.resize(pieces(rows_.B(), step_rows_) * kAgainRows, ld_from_x_);
      norm_sums_.resize(pieces(rows_.B(), norm_rows_), 2 * kNormSums * w_.H);
      norm_sums_.fill_zero();
      norm_room_.resize(pieces(rows_.B(), step_rows_), kNormRows * 6 * w_.H);
    }
    if (w_.projects) {
      d_hidden_.resize(rows_.B(), w_.H);
      hidden_.resize(block_rows_, w_.H);
      projected_d_h_.resize(block_rows_, w_.P);
    }
    options_ = w_.options;
    if (run.noise.zones_c()) {
      keep_c_.resize(rows_.B(), w_.H);
      options_.ld_keep_c = w_.H;
    }
    if (run.noise.zones_h()) d_kept_h_.resize(rows_.B(), w_.P);
    if (run.noise.drops_h()) {
      h_mask_.resize(rows_.B(), w_.P);
      for (Index b = 0; b < rows_.B(); ++b) run.noise.h_mask(b, w_.P, h_mask_.data() + b * w_.P);
    }
    if (peepholes()) d_peephole_.resize(block_rows_, 3 * w_.H);
  }

  void compute() {
    for_each_block(rows_, !run_.backward, kBackwardRows, [&](const StepBlock& block) {
      check_interrupt();
      if (threads_share_columns()) {
        steps_by_columns(block);
      } else {
        steps_by_rows(block);
      }
      products(block);
    });
    for (Index b = 0; b < rows_.B(); ++b) {
      std::copy_n(d_h_.data() + b * ld_d_h_, w_.P, run_.d_h + b * w_.P);
    }
  }

 private:
  /// The rows of a task. Fewer keep more threads at work until the end, but each task reads R at
  /// each step: with tasks of 8 rows instead of 16, 2 threads lost 10 % (B = 32, H = 512, R in the
  /// L3 cache). With uneven lengths, the first tasks have most of the work, so there are more.
  ///
  /// Where bits depend on it, neither the number of threads counts nor a segment's number of rows:
  /// layer normalisation sums over groups of rows, of which a task has some, and on BLAS (which
  /// projections use) the bits of a product depend on its height.
  Index step_rows() const {
    if (!tiles_) return kMostStepRows;
    if (w_.projects) return norm_rows_;
    const Index B = rows_.B(), n = run_.team.threads();
    const bool uneven = rows_.rows() < B * rows_.steps();
    const Index tasks = n * std::max<Index>(pieces(B, n * kMostStepRows), uneven ? 2 : 1);
    const Index rows = std::clamp<Index>(pieces(B, tasks), 4, kMostStepRows);
    if (!w_.cell.normalises) return rows;
    return std::min(pieces(rows, norm_rows_), kMostStepRows / norm_rows_) * norm_rows_;
  }
  bool peepholes() const { return w_.options.peephole != nullptr; }

  /// Each task takes some rows through all steps of a block.
  void steps_by_rows(const StepBlock& block) {
    run_.team.run_tasks(pieces(rows_.B(), step_rows_), [&](Index k) noexcept {
      const Piece p = piece(rows_.B(), k, step_rows_);
      for_each_step(block, !run_.backward, [&](Index t) {
        if (w_.cell.normalises) multiply_inputs_again(block, t, k);
        step(t, block.first_row, p.first, p.first + p.size, Part{});
        // Two levels of sums keep the rounding error small.
        if (w_.cell.normalises && (t - block.first) % 8 == 0) {
          const Index end = p.first + p.size;
          for (Index b = p.first; b < end; b += norm_rows_) add_norm_sums(b / norm_rows_);
        }
      });
    });
  }

  /// All threads go through the steps together, and share the columns of the products with R.
  void steps_by_columns(const StepBlock& block) {
    SpinBarrier barrier(run_.team.threads());
    run_.team.run([&](int rank) noexcept {
      const Part part{rank, run_.team.threads(), &barrier};
      for_each_step(block, !run_.backward,
                    [&](Index t) { step(t, block.first_row, 0, rows_.B(), part); });
    });
  }

  /// Whether there are too few tasks of rows for the threads, and enough work in a step.
  bool threads_share_columns() const {
    const int n = run_.team.threads();
    const Index B = rows_.B();
    if (n == 1 || B > kMostStepRows || !tiles_ || w_.cell.normalises || w_.projects) return false;
    const Index share = cpu_has_fast_l3() ? kProductsPerShare : kProductsPerShareOfSlowL3;
    return 2 * pieces(B, step_rows_) <= n && w_.GH * w_.P * B >= n * share && !cpus_are_crowded();
  }

  /// Step t for the sorted rows first <= b < end, as far as they live. part: of the threads that
  /// share it; all but the products with R is the first one's.
  void step(Index t, Index block_row, Index first, Index end, const Part& part) noexcept {
    end = std::min(end, rows_.live(t));
    if (end <= first) return;
    const Index row = rows_.offset(t), in_block = row - block_row;
    const PreviousRows previous = previous_rows(t, first, end);
    const Index of_n = w_.cell.in_halves ? 2 * w_.H : w_.GH;  // in halves n's product is by itself
    T* d_gates = d_gates_.data() + in_block * w_.GH;
    T* d_from_h = w_.cell.gradients_differ() ? d_from_h_.data() + in_block * w_.GH : d_gates;
    T* h_prev = h_prev_.data() + in_block * w_.P;
    if (w_.cell.in_halves) {
      if (part.rank == 0) {
        begin_step(t, previous, in_block, first, end);
        kernels<T>().gru_candidate_backward(half_step(row, in_block, first, end));
      }
      part.wait();
      multiply_by_R(d_gates, of_n, w_.H, d_reset_.data(), first, end, t, part);
      part.wait();
      if (part.rank == 0) {
        kernels<T>().gru_reset_backward(half_step(row, in_block, first, end));
        drop_h(h_prev, first, end);
      }
    } else if (part.rank == 0) {
      begin_step(t, previous, in_block, first, end);
      step_units(t, previous, in_block, first, end);
      drop_h(h_prev, first, end);
    }
    part.wait();
    multiply_by_R(d_from_h, 0, of_n, d_h_.data(), first, end, t, part);
    part.wait();
    if (part.rank == 0) regularise_d_h(first, end);
  }

  /// Of the live rows first <= b < end of step t.
  PreviousRows previous_rows(Index t, Index first, Index end) const {
    const Index before = run_.backward ? t + 1 : t - 1;
    if (before < 0 || before >= rows_.steps()) return {first, 0};
    return {std::clamp(rows_.live(before), first, end), rows_.offset(before)};
  }

  /// Gradients that reach step t for its rows first <= b < end, and what R read there.
  void begin_step(Index t, const PreviousRows& previous, Index in_block, Index first,
                  Index end) noexcept {
    const Index H = w_.H, P = w_.P, row = rows_.offset(t);
    T* const past_R = d_past_R();
    T* h_prev = h_prev_.data() + in_block * P;
    if (run_.d_h_steps != nullptr) {
      for (Index b = first; b < end; ++b) {
        T* d_h = run_.d_h_steps + (row + b) * P;
        std::copy_n(d_h_.data() + b * ld_d_h_, P, d_h);
        for (Index k = 0; kept_apart(w_) && k < P; ++k) d_h[k] += past_R[b * H + k];
        std::copy_n(run_.d_c + b * w_.C, w_.C, run_.d_c_steps + (row + b) * w_.C);
      }
    }
    if (run_.d_output != nullptr) {
      for (Index b = first; b < end; ++b) {
        const T* d_output = run_.d_output + (row + b) * run_.ld_output;
        T* d_h = d_h_.data() + b * ld_d_h_;
        for (Index k = 0; k < P; ++k) d_h[k] += d_output[k];
      }
    }
    for (Index b = first; run_.noise.zones_h() && b < end; ++b) {
      T *d_h = d_h_.data() + b * ld_d_h_, *d_kept = d_kept_h_.data() + b * P;
      run_.noise.keep_h(t, b, 0, P, d_kept);
      T* const apart = kept_apart(w_) ? past_R + b * H : nullptr;
      for (Index k = 0; k < P; ++k) {
        const T keep = d_kept[k];
        d_kept[k] = keep * (apart != nullptr ? d_h[k] + apart[k] : d_h[k]);
        d_h[k] = (1 - keep) * d_h[k];
        if (apart != nullptr) apart[k] = (1 - keep) * apart[k];
      }
    }
    for (Index b = first; run_.noise.zones_c() && b < end; ++b) {
      run_.noise.keep_c(t, b, 0, H, keep_c_.data() + b * H);
    }
    if (w_.projects) {
      for (Index b = first; b < end; ++b) {
        std::copy_n(d_h_.data() + b * ld_d_h_, P, projected_d_h_.data() + (in_block + b) * P);
      }
      gemm<T>(end - first, H, P, {d_h_.data() + first * ld_d_h_, ld_d_h_}, {w_.W_hr.data(), H}, 0,
              d_hidden_.data() + first * H, H);
    }

    const Index carried = previous.carried;
    for (Index b = first; b < carried; ++b) {
      std::copy_n(run_.output + (previous.row + b) * run_.ld_output, P, h_prev + b * P);
    }
    std::copy_n(run_.h_0 + carried * P, (end - carried) * P, h_prev + carried * P);
  }

  /// row: of the whole sequence, in_block: of the block; those of sorted row 0.
  GruHalfStepBackward<T> half_step(Index row, Index in_block, Index first, Index end) {
    const Index H = w_.H;
    return {end - first,
            H,
            run_.gates + (row + first) * w_.SH,
            h_prev_.data() + (in_block + first) * H,
            run_.noise.drops_h() ? h_mask_.data() + first * H : nullptr,
            d_h_.data() + first * ld_d_h_,
            ld_d_h_,
            d_past_R() + first * H,
            d_gates_.data() + (in_block + first) * w_.GH,
            d_reset_.data() + first * ld_d_h_,
            reset_h_.data() + (in_block + first) * H,
            w_.step_options()};
  }

  /// The gradients of the gates, of all cells but those in halves.
  void step_units(Index t, const PreviousRows& previous, Index in_block, Index first,
                  Index end) noexcept {
    // With layer normalisation the rows of each group by themselves.
    const Index most = w_.cell.normalises ? norm_rows_ : end - first;
    for (Index from = first; from < end; from += most) {
      const Index to = std::min(from + most, end);
      const Index carried = std::clamp(previous.carried, from, to);
      units(t, in_block, from, carried, first, run_.c + (previous.row + from) * w_.C);
      units(t, in_block, carried, to, first, run_.c_0 + carried * w_.C);
    }
  }

  /// The same of some rows. task_first: the first row of the task. c_prev: of row `from`.
  void units(Index t, Index in_block, Index from, Index to, Index task_first,
             const T* c_prev) noexcept {
    const Index H = w_.H, row = rows_.offset(t);
    const Index ld_d_hidden = w_.projects ? H : ld_d_h_;
    const T* d_hidden = w_.projects ? d_hidden_.data() : d_h_.data();
    in_block += from;
    StepOptions<T> options = options_;
    if (run_.noise.zones_c()) options.keep_c = keep_c_.data() + from * H;
    CellStepBackward<T> s{};
    s.rows = to - from;
    s.H = H;
    if (w_.SH > 0) s.gates = run_.gates + (row + from) * w_.SH;
    s.c = run_.c + (row + from) * w_.C;
    s.c_prev = c_prev;
    s.h = run_.output + (row + from) * run_.ld_output;
    s.ld_h = run_.ld_output;
    s.h_prev = h_prev_.data() + in_block * w_.P;
    s.d_h = d_hidden + from * ld_d_hidden;
    s.ld_d_h = ld_d_hidden;
    s.d_past_R = d_past_R() + from * H;
    s.d_gates = d_gates_.data() + in_block * w_.GH;
    s.d_from_h = w_.cell.gradients_differ() ? d_from_h_.data() + in_block * w_.GH : s.d_gates;
    if (w_.projects) s.hidden = hidden_.data() + in_block * H;
    if (!w_.plain) s.options = &options;
    if (peepholes()) s.d_peephole = d_peephole_.data() + in_block * 3 * H;
    LstmNormBackward<T> norm;
    if (w_.cell.normalises) {
      const Index k = task_first / step_rows_;
      const Index again = row + from - again_row_[static_cast<std::size_t>(k)];
      norm = {w_.norm,
              w_.bias.data(),
              norm_strides_,
              from_x_.data() + (k * kAgainRows + again) * ld_from_x_,
              ld_from_x_,
              norm_room_.data() + k * kNormRows * 6 * H,
              norm_sums(from / norm_rows_)};
      s.norm = &norm;
    }
    w_.cell.step_backward(s);
  }

  /// The gradient that reaches a step past R: of c, or a part of that of h.
  T* d_past_R() const { return kept_apart(w_) ? run_.d_past_R : run_.d_c; }

  /// h_prev: [B, P] in: h'; out: what R read of it.
  void drop_h(T* h_prev, Index first, Index end) noexcept {
    const Index P = w_.P;
    for (Index k = first * P; run_.noise.drops_h() && k < end * P; ++k) {
      h_prev[k] *= h_mask_.data()[k];
    }
  }

  /// d_h: in: gradient of what R read; out: of h', with the part that zoneout sends back.
  void regularise_d_h(Index first, Index end) noexcept {
    const Index P = w_.P;
    for (Index b = first; b < end; ++b) {
      T* d_h = d_h_.data() + b * ld_d_h_;
      for (Index k = 0; run_.noise.drops_h() && k < P; ++k) d_h[k] *= h_mask_.data()[b * P + k];
      for (Index k = 0; run_.noise.zones_h() && k < P; ++k) d_h[k] += d_kept_h_.data()[b * P + k];
    }
  }

  /// product = d_sums R with the K rows of R from first_row on (and the columns of d_sums), for the
  /// rows first <= b < end, at most kMostStepRows. On tiles, because BLAS packs R anew in every
  /// call: with one row, a whole training step took five times as long. t: the step, which says
  /// the way through R's panel. part: of the columns.
  void multiply_by_R(const T* d_sums, Index first_row, Index K, T* product, Index first, Index end,
                     Index t, const Part& part) noexcept {
    const Index GH = w_.GH, P = w_.P;
    product += first * ld_d_h_;
    if (!tiles_) {
      gemm<T>(end - first, P, K, {d_sums + first * GH + first_row, GH},
              {w_.R.data() + first_row * P, P}, 0, product, ld_d_h_);
      return;
    }
    const T* inputs[kMostStepRows];
    for (Index b = first; b < end; ++b) inputs[b - first] = d_sums + b * GH + first_row;
    const auto [first_block, end_block] = part.range(ld_d_h_ / (4 * kernels<T>().lanes), 1);
    kernels<T>().project_rows({end - first, first_block, end_block, 4, K, inputs,
                               R_panel_ + first_row * ld_d_h_, nullptr, product, ld_d_h_,
                               reads_down(t, end - first)});
  }

  /// Gradients of the parameters and the input, from all rows of a block at once.
  void products(const StepBlock& block) {
    const Index I = w_.I, n = block.rows;
    const T* x = run_.x + block.first_row * I;
    T *const d_W = run_.d_params.weight_ih, *const d_R = run_.d_params.weight_hh;
    const Index of_W = d_W != nullptr ? weight_pieces(I) : 0;
    const Index of_R = d_R != nullptr ? weight_pieces(w_.P) : 0;
    const Index of_rows = run_.d_x != nullptr ? pieces(n, d_x_piece_rows()) : 0;
    // Gradients of x come last, small tasks for threads that would wait. But where the gates'
    // gradients are too many for the L2 cache, what reads them by rows comes first: those of the
    // last steps are still there (H = 512: +4 % of training, H = 1024 on two threads +10 %).
    const bool d_x_first = n * w_.GH * static_cast<Index>(sizeof(T)) > kGradientsInL2;
    const Index first_x = d_x_first ? 0 : 1 + of_W + of_R;
    run_.team.run_tasks(1 + of_W + of_R + of_rows, [&](Index task) noexcept {
      const Index of_x = task - first_x, other = task - (d_x_first ? of_rows : 0);
      if (0 <= of_x && of_x < of_rows) {
        d_x_product(block, piece(n, of_x, d_x_piece_rows()));
      } else if (other == 0) {
        small_products(block);
      } else if (other <= of_W) {
        add_products(d_gates_.data(), other - 1, 0, w_.GH, n, x, I, d_W);
      } else {
        const Index k = other - 1 - of_W;
        // In halves, the rows of n multiplied r h' instead.
        const Index of_h = w_.cell.in_halves ? 2 * w_.H : w_.GH;
        add_products(d_from_h(), k, 0, of_h, n, h_prev_.data(), w_.P, d_R);
        add_products(d_from_h(), k, of_h, w_.GH, n, reset_h_.data(), w_.P, d_R);
      }
    });
  }

  /// Whether the gradient of a weight matrix with so many columns is computed by our own kernel.
  /// Measured on Zen 4, where it reaches 113 of 115 GFLOP/s with AVX-512 and OpenBLAS 95 to 102;
  /// with AVX2 it is ahead up to 128 columns (101 to 109 against 89 to 98) and behind from 256 on
  /// (85 to 91 against 96 to 105).
  bool on_tiles(Index columns) const {
    return tiles_ && (kernels<T>().lanes * static_cast<Index>(sizeof(T)) == 64 || columns <= 128);
  }
  /// The pieces of the gradient of a weight matrix, with so many columns in all.
  Index weight_pieces(Index columns) const {
    return pieces(w_.GH, weight_piece_rows(columns)) *
           pieces(columns, weight_piece_columns(columns));
  }
  /// Our own kernel takes 4 panels of columns at once: fewer where there were too few pieces.
  Index weight_piece_columns(Index columns) const {
    if (!on_tiles(columns)) return columns;
    const Index panel = 4 * kernels<T>().lanes;
    const Index all = pieces(columns, panel) * pieces(w_.GH, weight_piece_rows(columns));
    return panel * std::clamp<Index>(all / run_.team.threads(), 1, 4);
  }
  /// On tiles, each thread has a share of the rows, and so of d_sums, which another wrote in part.
  /// BLAS packs the values anew for each piece: not many of them where there are many rows.
  Index weight_piece_rows(Index columns) const {
    if (!on_tiles(columns)) return std::max(kPieceRows, pieces(w_.GH, 4));
    return std::max<Index>(pieces(w_.GH, run_.team.threads()), 128);
  }

  /// Piece k of: d_weight += d_sums^T values, of its rows first <= j < end. d_sums: [n, G H];
  /// values: [n, columns]; d_weight: [G H, columns].
  void add_products(const T* d_sums, Index k, Index first, Index end, Index n, const T* values,
                    Index columns, T* d_weight) noexcept {
    const Index GH = w_.GH, of_rows = pieces(GH, weight_piece_rows(columns));
    const Piece rows = piece(GH, k % of_rows, weight_piece_rows(columns));
    const Piece p = piece(columns, k / of_rows, weight_piece_columns(columns));
    first = std::max(first, rows.first);
    end = std::min(end, rows.first + rows.size);
    if (first >= end) return;
    d_sums += first;
    values += p.first;
    d_weight += first * columns + p.first;
    if (on_tiles(columns)) {
      kernels<T>().add_outer_products(
          {n, end - first, p.size, d_sums, GH, values, columns, d_weight, columns});
    } else {
      gemm<T>(end - first, p.size, n, {d_sums, GH, true}, {values, columns}, 1, d_weight, columns);
    }
  }

  /// On tiles each row is by itself, and small pieces keep all threads at work until the end.
  Index d_x_piece_rows() const { return tiles_ ? 64 : kPieceRows; }

  /// Whether the product's rows are those of d_x, or are to be added to it or cut.
  bool writes_d_x() const { return backward_columns<T>(w_.I) == w_.I && !run_.add_to_d_x; }

  /// d_x = d_gates W, or d_x += d_gates W, for some rows of a block.
  void d_x_product(const StepBlock& block, Piece p) noexcept {
    const Index I = w_.I, GH = w_.GH;
    const T* d_gates = d_gates_.data() + p.first * GH;
    T* d_x = run_.d_x + (block.first_row + p.first) * I;
    if (!tiles_) {
      gemm<T>(p.size, I, GH, {d_gates, GH}, {w_.input->W.data(), I}, run_.add_to_d_x ? 1 : 0, d_x,
              I);
      return;
    }
    const T* inputs[kPieceRows];
    for (Index row = 0; row < p.size; ++row) inputs[row] = d_gates + row * GH;
    const Index width = 4 * kernels<T>().lanes, ld = backward_columns<T>(I);
    T* padded = writes_d_x() ? d_x : d_x_.data() + p.first * ld;
    kernels<T>().project_rows(
        {p.size, 0, ld / width, 4, GH, inputs, W_panel_, nullptr, padded, ld});
    if (writes_d_x()) return;
    for (Index row = 0; row < p.size; ++row, d_x += I, padded += ld) {
      for (Index j = 0; j < I; ++j) d_x[j] = run_.add_to_d_x ? d_x[j] + padded[j] : padded[j];
    }
  }

  /// Of the rows of a block: the gradient of R h.
  const T* d_from_h() const {
    return w_.cell.gradients_differ() ? d_from_h_.data() : d_gates_.data();
  }

  /// W x for task k's rows of step t, and of some that follow in the order of the backward pass,
  /// unless an earlier call has computed it: with layer normalisation the gradients need it again.
  /// It stays in the L2 cache until then.
  void multiply_inputs_again(const StepBlock& block, Index t, Index k) noexcept {
    const Index B = rows_.B(), at_once = B <= step_rows_ ? std::max<Index>(1, kAgainRows / B) : 1;
    const Index done = run_.backward ? t - block.first : block.end - 1 - t;
    if (done % at_once != 0) return;
    // One task has all rows of several steps, which stand one after another; several have one step.
    const Piece p = piece(B, k, step_rows_);
    const Index t_first = run_.backward ? t : std::max(block.first, t + 1 - at_once);
    const Index t_last = run_.backward ? std::min(block.end, t + at_once) - 1 : t;
    const Index row = rows_.offset(t_first) + p.first;
    const Index end = rows_.offset(t_last) + std::min(p.first + p.size, rows_.live(t_last));
    again_row_[static_cast<std::size_t>(k)] = row;
    if (end <= row) return;
    const Index I = w_.I;
    const T* x = run_.x + row * I;
    T* product = from_x_.data() + k * kAgainRows * ld_from_x_;
    if (!tiles_) {
      gemm<T>(end - row, w_.GH, I, {x, I}, {w_.input->W.data(), I, true}, 0, product, ld_from_x_);
      return;
    }
    const T* inputs[kAgainRows];
    for (Index b = 0; b < end - row; ++b) inputs[b] = x + b * I;
    kernels<T>().project_rows({end - row, 0, w_.blocks, w_.cell.vectors, I, inputs,
                               w_.input->panel.data(), nullptr, product, ld_from_x_});
  }

  /// The gradients of layer normalisation's parameters that a group's rows have summed, and after
  /// them the sums of these.
  T* norm_sums(Index group) { return norm_sums_.data() + group * 2 * kNormSums * w_.H; }

  void add_norm_sums(Index group) noexcept {
    const Index n = kNormSums * w_.H;
    T *sums = norm_sums(group), *totals = sums + n;
    for (Index j = 0; j < n; ++j) totals[j] += sums[j];
    std::fill_n(sums, n, T(0));
  }

  /// Adds what all groups have summed to the gradients.
  void norm_products() noexcept {
    const CellParams<T>& d = run_.d_params;
    const Index H = w_.H;
    for (Index group = 0; group < pieces(rows_.B(), norm_rows_); ++group) {
      add_norm_sums(group);
      T* const totals = norm_sums(group) + kNormSums * H;
      const auto add = [&](Index at, Index n, T* to) {
        for (Index j = 0; to != nullptr && j < n; ++j) to[j] += totals[at + j];
      };
      add(0, 4 * H, d.bias_ih);
      add(0, 4 * H, d.bias_hh);
      add(4 * H, 4 * H, d.weight_ln_ih);
      add(8 * H, 4 * H, d.weight_ln_hh);
      add(12 * H, H, d.weight_ln_c);
      add(13 * H, H, d.bias_ln_c);
      std::fill_n(totals, kNormSums * H, T(0));
    }
  }

  void small_products(const StepBlock& block) noexcept {
    const Index H = w_.H, P = w_.P, n = block.rows;
    const auto add_sums = [n](Index columns, const T* values, T* sums) {
      if (sums != nullptr) kernels<T>().add_column_sums({n, columns, values, sums});
    };
    if (w_.cell.normalises) {
      norm_products();
    } else {
      add_sums(w_.GH, d_gates_.data(), run_.d_params.bias_ih);
      add_sums(w_.GH, d_from_h(), run_.d_params.bias_hh);
    }
    add_sums(3 * H, d_peephole_.data(), run_.d_params.weight_peephole);
    if (run_.d_params.weight_hr != nullptr) {
      gemm<T>(P, H, n, {projected_d_h_.data(), P, true}, {hidden_.data(), H}, 1,
              run_.d_params.weight_hr, H);
    }
  }

  const DirectionBackward<T>& run_;
  const RowSchedule& rows_;
  const Index block_rows_ = most_block_rows(rows_, kBackwardRows);
  const CellWeights<T>& w_;
  const bool tiles_;
  /// The rows of a group that layer normalisation sums over.
  const Index norm_rows_ = tiles_ ? shared_step_rows(run_.call_B) : kMostStepRows;
  const Index step_rows_ = step_rows();
  const T* const R_panel_ = tiles_ ? w_.R_backward_panel() : nullptr;
  const T* const W_panel_ = tiles_ && run_.d_x != nullptr ? w_.W_backward_panel() : nullptr;
  const Index ld_d_h_;
  Buffer<T> d_h_;  // [B] of ld_d_h: gradient of h, from the steps after
  // Of the rows of one block:
  Buffer<T> d_gates_;  // [rows, G H]
  Buffer<T> h_prev_;   // [rows, P]
  Buffer<T> d_x_;      // [rows] of I padded to whole blocks of a panel; empty if not needed
  // With a GRU or layer normalisation:
  Buffer<T> d_from_h_;  // [rows, G H]; with other cells it is d_gates
  Buffer<T> reset_h_;   // [rows, H] r h' of a cell in halves
  Buffer<T> d_reset_;   // [B] of ld_d_h: its gradient
  // With a projection, gradients of o tanh(c) differ from those of h, and its weights' gradient
  // needs both o tanh(c) and the gradient of h.
  Buffer<T> d_hidden_;       // [B, H]
  Buffer<T> hidden_;         // [rows, H]
  Buffer<T> projected_d_h_;  // [rows, P]
  // With layer normalisation, for each task of the steps:
  const GateStrides norm_strides_;
  const Index ld_from_x_;
  Buffer<T> from_x_;              // [kAgainRows] of ld_from_x: W x
  std::vector<Index> again_row_;  // the first of these rows
  Buffer<T> norm_sums_;           // [2][kNormSums H] of each group, see norm_sums
  Buffer<T> norm_room_;           // [kNormRows][6H]
  StepOptions<T> options_;
  // Regularisation; empty without:
  Buffer<T> keep_c_;      // [B, H] zoneout of one step
  Buffer<T> d_kept_h_;    // [B, P] the part of the gradient of h that zoneout sends a step back
  Buffer<T> h_mask_;      // [B, P] recurrent dropout
  Buffer<T> d_peephole_;  // [rows, 3H] each row's part of the gradient; empty without peepholes
};

}  // namespace

template <class T>
void direction_backward(const DirectionBackward<T>& run) {
  BackwardPass<T>(run).compute();
}

template <class T>
void normalised_gates(const CellWeights<T>& w, Index rows, const T* x, T* gates) {
  const Index n = rows * w.GH;
  const GateStrides strides = gate_after_gate<T>(w.H);
  Buffer<T> from_x(rows, w.GH);
  gemm<T>(rows, w.GH, w.I, {x, w.I}, {w.input->W.data(), w.I, true}, 0, from_x.data(), w.GH);
  kernels<T>().normalise_sums(
      {rows, w.H, strides, w.norm.gain_x, w.bias.data(), from_x.data(), w.GH});
  kernels<T>().normalise_sums({rows, w.H, strides, w.norm.gain_h, nullptr, gates, w.GH});
  for (Index k = 0; k < n; ++k) gates[k] += from_x.data()[k];
  kernels<T>().activate_gates({rows, 4, w.H, w.GH, gates, &w.options});
}

#define FASTLSTM_INSTANTIATE(T)                                  \
  template void direction_backward(const DirectionBackward<T>&); \
  template void normalised_gates(const CellWeights<T>&, Index, const T*, T*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

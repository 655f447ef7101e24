// What several cells do alike in their steps.
#pragma once

#include <algorithm>

#include "cells/cell.hpp"
#include "runtime/targets.hpp"
#include "schedule/parts.hpp"

namespace fastlstm {

/// The options of a cell as its kernels take them, without peepholes and zoneout.
template <class T>
StepOptions<T> step_options(const CellOptions& options) {
  StepOptions<T> to{};
  to.usual_functions = options.usual_functions();
  to.gate = options.gate;
  to.candidate = options.candidate;
  to.hidden = options.hidden;
  to.clip = static_cast<T>(options.clip);
  to.input_forget = options.input_forget;
  return to;
}

/// A forward step that is one kernel call, of the options of all steps; null: none.
template <class T>
class OneKernelForward final : public ForwardCell<T> {
 public:
  using Kernel = void (*)(const CellStepTile<T>&) noexcept;

  OneKernelForward(const CellWeights<T>& weights, Kernel kernel, const StepOptions<T>& options,
                   bool plain)
      : block_width_(weights.R.layout().width()),
        kernel_(kernel),
        options_(options),
        plain_(plain) {}

  void step(ForwardStep<T>& step) noexcept override {
    CellStepTile<T>& tile = step.tile;
    tile.options = plain_ ? nullptr : &options_;
    const Index terms = tile.P + (tile.x != nullptr ? tile.I : 0);
    in_parts(tile, terms * block_width_, [this](const CellStepTile<T>& part, Index first_row) {
      if (first_row == 0) {
        kernel_(part);
      } else {
        run_from(first_row, part);
      }
    });
  }

  StepKernel<T> one_kernel() const override { return {kernel_, plain_ ? nullptr : &options_}; }

 private:
  /// The part's rows come after first_row others.
  void run_from(Index first_row, CellStepTile<T> part) const noexcept {
    StepOptions<T> options = options_;
    if (options.keep_c != nullptr) options.keep_c += first_row * options.ld_keep_c;
    if (part.options != nullptr) part.options = &options;
    if (part.x != nullptr) part.x += first_row;
    if (part.projected != nullptr) part.projected += first_row * part.ld_projected;
    part.h_prev += first_row * part.ld_h_prev;
    part.h_past_R += first_row * part.ld_h_prev;
    for (T*& memory : part.memory) {
      if (memory != nullptr) memory += first_row * part.ld_memory;
    }
    part.h += first_row * part.ld_h;
    if (part.output != nullptr) part.output += first_row;
    if (part.gates != nullptr) part.gates += first_row * part.ld_gates;
    if (part.saved_memory != nullptr) part.saved_memory += first_row * part.ld_saved_memory;
    kernel_(part);
  }

  const Index block_width_;
  const Kernel kernel_;
  const StepOptions<T> options_;
  const bool plain_;
};

/// Calls body(from, to, memory_prev) for runs of at most `most` of a step's rows, each of which
/// came from one place. memory_prev: of row `from`.
template <class T, class Body>
void for_each_origin(const BackwardStep<T>& s, Index M, Index most, Body body) {
  for (Index from = s.first; from < s.end; from += most) {
    const Index to = std::min(from + most, s.end);
    const Index carried = std::clamp(s.carried, from, to);
    if (from < carried) body(from, carried, s.memory_before + from * M);
    if (carried < to) body(carried, to, s.memory_0 + carried * M);
  }
}

/// What the gradient kernels of a whole step take of a step, for its rows from <= b < to. What a
/// cell has besides is left out.
template <class T>
CellStepBackward<T> backward_arguments(const BackwardStep<T>& s, const CellWeights<T>& w,
                                       Index saved_gates, Index from, Index to,
                                       const T* memory_prev) {
  CellStepBackward<T> a{};
  a.rows = to - from;
  a.H = w.H;
  if (s.gates != nullptr) a.gates = s.gates + from * saved_gates * w.H;
  a.memory = s.memory + from * w.M;
  a.memory_prev = memory_prev;
  a.h = s.output + from * s.ld_output;
  a.ld_h = s.ld_output;
  a.h_prev = s.h_prev + from * w.P;
  a.d_h = s.d_h + from * s.ld_d_h;
  a.ld_d_h = s.ld_d_h;
  a.d_memory = s.d_memory + from * w.M;
  if (s.d_h_past_R != nullptr) a.d_h_past_R = s.d_h_past_R + from * w.H;
  a.d_gates = s.d_gates + from * w.GH;
  a.d_from_h = a.d_gates;
  if (s.hidden != nullptr) a.hidden = s.hidden + from * w.H;
  return a;
}

/// product = d_sums R, for a step's rows and this thread's share of the columns, with the rows of R
/// that go together: group 0 or 1 of R_backward. d_sums, product: of sorted row 0; of G H and
/// ld_product elements a row.
template <class T>
void multiply_by_R(const BackwardStep<T>& s, const CellWeights<T>& w, std::size_t group,
                   const T* d_sums, T* product, Index ld_product) noexcept {
  const WeightPanel<T>& R = w.R_backward()[group];
  if (group > 0) d_sums += w.R_rows_at_once();
  const T* inputs[kMostStepRows];
  for (Index b = s.first; b < s.end; ++b) inputs[b - s.first] = d_sums + b * w.GH;
  const auto [first_block, end_block] = s.share.range(R.layout().blocks(), 1);
  ProjectRows<T> call{};
  call.rows = s.end - s.first;
  call.first_block = first_block;
  call.end_block = end_block;
  call.V = 4;
  call.K = R.K();
  call.x = inputs;
  call.panel = R.view();
  call.out = product + s.first * ld_product;
  call.ld_out = ld_product;
  call.down = s.down;
  project_rows(call);
}

/// The gradient of a step whose gates are followed by one product with R. units(from, to,
/// memory_prev) computes the gradients of the gates, of at most `most_rows` at once; d_from_h: of
/// sorted row 0, those of R h.
template <class T, class Units>
void backward_with_one_product(const BackwardStep<T>& s, const BackwardShape<T>& shape,
                               const T* d_from_h, Index most_rows, Units units) noexcept {
  if (s.share.rank == 0) for_each_origin(s, shape.weights.M, most_rows, units);
  s.share.wait();
  multiply_by_R(s, shape.weights, 0, d_from_h, s.d_h_prev, shape.ld_d_h);
  s.share.wait();
}

/// A backward step that is one kernel call, then one product with R. saved_gates: of the cell,
/// where they are saved; the options as of OneKernelForward.
template <class T>
class OneKernelBackward final : public BackwardCell<T> {
 public:
  using Kernel = void (*)(const CellStepBackward<T>&) noexcept;

  OneKernelBackward(Kernel kernel, Index saved_gates, const StepOptions<T>& options, bool plain,
                    const BackwardShape<T>& shape)
      : BackwardCell<T>(shape),
        kernel_(kernel),
        saved_gates_(saved_gates),
        options_(options),
        plain_(plain) {}

  void step(const BackwardStep<T>& s) noexcept override {
    const auto units = [&](Index from, Index to, const T* memory_prev) {
      CellStepBackward<T> a =
          backward_arguments(s, this->shape_.weights, saved_gates_, from, to, memory_prev);
      if (!plain_) a.options = &options_;
      kernel_(a);
    };
    backward_with_one_product(s, this->shape_, s.d_gates, kMostStepRows, units);
  }

 private:
  const Kernel kernel_;
  const Index saved_gates_;
  const StepOptions<T> options_;
  const bool plain_;
};

}  // namespace fastlstm

// What the passes know of a cell: the shape of its weights, what training keeps of a step, and its
// way through a step, forward and backward. Each cell is one file beside this one; cells.hpp lists
// them.
//
// A pass makes a ForwardCell or BackwardCell for each layer and direction. It holds the cell's own
// scratch and is called once for each step, by all threads that share the step: each has its share
// of the blocks of units, and they meet where the cell says so (Share::wait).
#pragma once

#include <memory>
#include <vector>

#include "fastlstm/config.hpp"
#include "kernels/arguments.hpp"
#include "runtime/room.hpp"
#include "schedule/row_schedule.hpp"
#include "schedule/shares.hpp"
#include "schedule/step_blocks.hpp"
#include "weights/cell_weights.hpp"

namespace fastlstm {

// --- forward -----------------------------------------------------------------------------------

/// A layer and direction that goes through steps.
template <class T>
struct ForwardShape {
  const CellWeights<T>& weights;
  Index B;
  Index ld_units;   // elements of a row of H values, padded
  Index ld_h;       // of a row of h
  bool zones_c;     // with zoneout of c: keep_c is given
  const T* keep_c;  // [B] of ld_units elements, in at each step: the part of c that stays; or null
};

/// A step for the rows that live in it.
template <class T>
struct ForwardStep {
  const Share& share;
  /// What kernels of a whole step take: this thread's blocks, the input or what was made of it, the
  /// state before and after, and where results go. Its options are the cell's.
  CellStepTile<T> tile;
  const T** pointers;  // [rows] room for the addresses of rows, this thread's own
};

/// A step that is one call of a kernel, with these options.
template <class T>
struct StepKernel {
  void (*run)(const CellStepTile<T>&) noexcept = nullptr;  // null: a step is more than that
  const StepOptions<T>* options = nullptr;
};

template <class T>
class ForwardCell {
 public:
  virtual ~ForwardCell() = default;

  /// Writes h (before a projection, zoneout and dropout of h) and the memory of this thread's
  /// units, and what training saves.
  virtual void step(ForwardStep<T>& step) noexcept = 0;

  /// For who makes the calls of steps ahead and not by step(): few rows, without interruptions.
  virtual StepKernel<T> one_kernel() const { return {}; }

  /// What is left to do with W x of n rows, of which this thread has computed its share: rows of ld
  /// elements.
  virtual void finish_inputs(Index /*n*/, T* /*from_x*/, Index /*ld*/,
                             const Share& /*share*/) noexcept {}
};

// --- backward ----------------------------------------------------------------------------------

/// The same from the end to the start: blocks of steps, and in each first the steps, then the
/// gradients of the parameters from all of its rows.
template <class T>
struct BackwardShape {
  const CellWeights<T>& weights;
  const RowSchedule& rows;
  bool backward = false;      // the direction of the forward pass
  const T* x = nullptr;       // [rows, I] in, packed
  Index block_rows = 0;       // the most rows of a block
  Index ld_d_h = 0;           // elements of a row of d_h, padded for products with R
  Index step_rows = 0;        // rows of a task
  Index sum_rows = 0;         // rows whose gradients a cell that sums over rows sums together
  const T* keep_c = nullptr;  // [B, H] in at each step, of zoneout; or null
  const T* h_mask = nullptr;  // [B, P] in, of recurrent dropout; or null
};

/// A step for the sorted rows first <= b < end, which live. Pointers are to sorted row 0, and rows
/// have the width of their values unless an ld is given.
template <class T>
struct BackwardStep {
  const Share& share;
  Index task = 0;             // of rows
  Index first = 0, end = 0;   // sorted rows
  Index carried = 0;          // those before it came from the step before, the others started here
  bool down = false;          // the way through R
  Index row = 0;              // the packed row of sorted row 0,
  Index in_block = 0;         // and the block's
  const T* gates = nullptr;   // as saved; null where nothing is
  const T* memory = nullptr;  // as saved, after the step
  const T* memory_before = nullptr;  // the same of the step before,
  const T* memory_0 = nullptr;       // and of rows that started here
  const T* output = nullptr;         // what forward wrote
  Index ld_output = 0;
  const T* h_prev = nullptr;  // h'
  const T* d_h = nullptr;     // gradient of h before a projection
  Index ld_d_h = 0;
  T* d_h_prev = nullptr;    // [B] of the shape's ld_d_h; out: gradient of what R read
  T* d_memory = nullptr;    // in: gradient of the memory after the step; out: before it
  T* d_h_past_R = nullptr;  // the same of the part of h that did not come through R; null without
  T* d_gates = nullptr;     // out: gradient of W x + b
  T* hidden = nullptr;      // out: h before a projection; null without
};

/// Rows of R, and what they multiplied in a block: [block rows, P].
template <class T>
struct RInputs {
  Index first, end;
  const T* values;
};

template <class T>
class BackwardCell {
 public:
  explicit BackwardCell(const BackwardShape<T>& shape) : shape_(shape) {}
  virtual ~BackwardCell() = default;
  BackwardCell(const BackwardCell&) = delete;
  BackwardCell& operator=(const BackwardCell&) = delete;

  virtual void step(const BackwardStep<T>& step) noexcept = 0;

  /// Before and after step t of a task, whether its rows live in it or not.
  virtual void before_step(const StepBlock& /*block*/, Index /*t*/, Index /*task*/) noexcept {}
  virtual void after_step(const StepBlock& /*block*/, Index /*t*/, Index /*task*/) noexcept {}

  /// After the steps of a block: the gradient of R h, [rows, G H]. d_gates: that of W x.
  virtual const T* d_from_h(const T* d_gates) const { return d_gates; }
  /// What R multiplied. h_prev: [rows, P] what it read.
  virtual std::vector<RInputs<T>> R_inputs(const T* h_prev) const {
    return {{0, shape_.weights.GH, h_prev}};
  }
  /// Adds the gradients of all parameters but those of products.
  virtual void add_gradients(Index rows, const T* d_gates, const CellParams<T>& d) noexcept {
    add_sums(rows, shape_.weights.GH, d_gates, d.bias_ih);
    add_sums(rows, shape_.weights.GH, d_from_h(d_gates), d.bias_hh);
  }

 protected:
  /// sums += those of each column; null: not asked for.
  static void add_sums(Index rows, Index columns, const T* values, T* sums) noexcept {
    if (sums != nullptr) kernels<T>().add_column_sums({rows, columns, values, sums});
  }

  const BackwardShape<T> shape_;
};

// --- the cell ----------------------------------------------------------------------------------

template <class T>
class Cell {
 public:
  explicit Cell(const StackConfig& config) : config_(config) {}
  virtual ~Cell() = default;
  Cell(const Cell&) = delete;
  Cell& operator=(const Cell&) = delete;

  virtual WeightShape<T> weight_shape() const = 0;
  /// The gates, or what else of a unit training keeps of each step besides h and the memory.
  virtual Index saved_gates() const = 0;

  /// Room gives, or counts, the scratch.
  virtual std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape,
                                                  Room& room) const = 0;
  virtual std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape,
                                                    Room& room) const = 0;

  /// Whether W x of some steps is computed before they run, always. Of others, where it is faster.
  virtual bool inputs_first() const { return false; }
  /// Whether the gradient of h goes back in two parts, of which one did not come through R.
  virtual bool keeps_h_apart() const { return false; }
  /// Whether a step of the backward pass sums over rows: it then goes by rows, not units.
  virtual bool sums_over_rows() const { return false; }
  /// Whether what training saves is not the gates themselves.
  virtual bool saves_sums() const { return !config_.options.usual_functions(); }
  /// Makes the gates of what was saved. x: [rows, I] in; gates: [rows, saved_gates * H] in and out.
  virtual void activate(const CellWeights<T>& weights, Index rows, const T* x, T* gates) const;

 protected:
  const StackConfig& config() const { return config_; }

 private:
  const StackConfig config_;
};

}  // namespace fastlstm

// One layer in one direction over a sequence, forward: its state, and the loop over time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cells/cell.hpp"
#include "passes/layers.hpp"
#include "passes/states.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

/// What one thread needs of its own in a run of steps.
template <class T>
struct ThreadBuffers {
  /// Of the runs of these layers over this schedule.
  ThreadBuffers(const Layers<T>& layers, const RowSchedule& rows, Room& room);
  /// The values of sums, and the bytes of converted.
  static Index sums_values(const Layers<T>& layers, const RowSchedule& rows);
  static Index converted_bytes(const Layers<T>& layers, const RowSchedule& rows);

  std::vector<const T*> inputs;  // pointers to as many rows as one kernel call gets
  std::vector<T*> outputs;
  Buffer<T> sums;          // CellStepTile::sums; empty where no step is such a kernel
  Buffer<char> converted;  // the kernels' room for converted inputs; empty where there are none
};

/// Steps s of a run, counted in the order in which they are computed.
struct StepRange {
  Index first, end;
};

/// A step that is one kernel call, whose arguments are the same at every other step.
template <class T>
struct PlannedStep {
  void (*kernel)(const CellStepTile<T>&) noexcept;
  CellStepTile<T> calls[2];  // by side(): without x and output
};

/// One layer and direction over the rows of one schedule. It keeps its state between runs.
template <class T>
class CellRun {
 public:
  /// Cell k. The layers and the schedule must outlive it. regularisation: null in inference.
  CellRun(const Layers<T>& layers, Index k, const RowSchedule& rows,
          const Regularisation* regularisation, Room& room);

  void set_state(const CellState<const T>& state);
  void get_state(const CellState<T>& state) const;

  struct Run {
    StepRange steps;  // after those of the last run
    RowView<const T> x;
    RowView<T> output;  // P of each row are written
    T* gates;           // packed rows of gates_width, out; null: not saved
    T* memory;          // packed rows of M, out; null: not saved
  };

  /// All threads of a share call it with the same run.
  void run(const Run& run, const Share& share, ThreadBuffers<T>& own);

  /// Lets the schedule begin again from the state after its last step, or from the one just set.
  void restart() { swap_ ^= rows_.steps() & 1; }

  /// For a schedule of one step, by one thread: what run does there, if it is no more than a call
  /// of a kernel. The next call is that for side(1), and restart follows it.
  std::optional<PlannedStep<T>> plan(ThreadBuffers<T>& own);
  /// Which of two buffers step s reads; it writes the other.
  Index side(Index s) const { return (s ^ swap_) & 1; }

  /// The steps that a run projects at once, ahead of the recurrence. With 1 it does not:
  /// each step then multiplies inputs and states in one go.
  static Index projected_steps(const RowSchedule& rows);
  /// Whether it does with so many inputs, where the cell does not need it.
  static bool projects_inputs(Index I) { return static_cast<double>(I) > tuning().few_inputs; }

 private:
  /// How many threads must share the units, so that each step projects a part of the inputs of
  /// later ones, instead of all at once before: for one row, of which each step waits for R to come
  /// from the memory. The weights of each have to fit a cache.
  double least_threads_to_project_ahead() const;
  /// Projects the inputs of kAheadSteps steps at once, then those of the next within these steps.
  void run_ahead(const Run& run, const Share& share, ThreadBuffers<T>& own);
  /// The time step of step s, and the other way round.
  Index time(Index s) const { return backward_ ? rows_.steps() - 1 - s : s; }
  void project_inputs(const Run& run, StepRange steps, const Share& share, ThreadBuffers<T>& own);
  void step(const Run& run, Index s, Index projected_row, const Share& share, ThreadBuffers<T>& own,
            ProjectAhead<T>* ahead = nullptr);
  /// What the kernel of step s takes of weights and state, for these rows and all blocks.
  CellStepTile<T> step_arguments(Index s, Index rows, ThreadBuffers<T>& own);
  /// h = W_hr times what the cell gave.
  void project_h(Index s, const Share& share, ThreadBuffers<T>& own);
  /// The units first <= j < end of h after step s: zoneout, and what R reads at the next.
  void regularise(Index s, Index first, Index end, ThreadBuffers<T>& own);

  T* h(Index s) { return h_.data() + side(s) * rows_.B() * ld_h_; }
  T* masked_h(Index s) { return masked_h_.data() + side(s) * rows_.B() * ld_h_; }
  T* memory(Index part) { return memory_.data() + part * rows_.B() * ld_units_; }
  const T* memory(Index part) const { return memory_.data() + part * rows_.B() * ld_units_; }

  const CellWeights<T>& w_;
  const RowSchedule& rows_;
  const bool backward_;
  const bool inputs_first_;
  const Index gates_width_;
  const Index memory_parts_;
  const PanelLayout& layout_;  // of R and W
  const Index grain_;          // blocks that share a cache line
  const Index ld_units_;       // of everything with H columns
  const Index ld_h_;
  const Index at_once_;  // steps whose inputs are projected together
  const double least_to_project_ahead_;
  const Index most_rows_down_;  // that read panels from the end every other step
  Index swap_ = 0;              // 1: step 0 reads the second of h_
  Buffer<T> h_;                 // [2][B][ld_h]
  Buffer<T> memory_;            // [parts of the state besides h][B][ld_units]
  Buffer<T> hidden_;            // [B][ld_units] h before a projection; empty without
  const CellMasks<T> masks_;
  Buffer<T> keep_c_;     // [B][ld_units] zoneout: the parts of c that are kept; empty without
  Buffer<T> keep_h_;     // [B][ld_h] the same of h
  Buffer<T> h_mask_;     // [B][ld_h] recurrent dropout; empty without
  Buffer<T> masked_h_;   // [2][B][ld_h] h times the mask
  Buffer<T> projected_;  // [rows of projected_steps] columns of the panel; empty: not used
  std::unique_ptr<ForwardCell<T>> cell_;
};

}  // namespace fastlstm

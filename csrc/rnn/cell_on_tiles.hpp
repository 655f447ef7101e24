// One layer in one direction over a sequence, on tile kernels: forward passes for targets that have
// them.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "rnn/cell_weights.hpp"
#include "rnn/noise.hpp"
#include "rnn/pieces.hpp"
#include "rnn/row_schedule.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

/// Pointers to rows that one thread needs in a run of steps.
template <class T>
struct TileScratch {
  /// rows: the most that one kernel call gets.
  explicit TileScratch(Index rows)
      : inputs(static_cast<std::size_t>(rows)), outputs(static_cast<std::size_t>(rows)) {}

  std::vector<const T*> inputs;
  std::vector<T*> outputs;
};

/// Steps s of a run, counted in the order in which they are computed.
struct StepRange {
  Index first, end;
};

/// One layer and direction over the rows of one schedule. It keeps its state between runs.
template <class T>
class TileCell {
 public:
  /// The schedule and the weights must outlive the cell.
  TileCell(const CellWeights<T>& weights, const RowSchedule& rows, bool backward,
           const CellNoise<T>& noise);

  /// h_0: [B, P] and c_0: [B, H] in the caller's order; null: zeros. Cells without c ignore c_0 and
  /// c_n.
  void set_state(const T* h_0, const T* c_0);
  /// h_n: [B, P] and c_n: [B, H] out, in the caller's order.
  void get_state(T* h_n, T* c_n) const;

  struct Run {
    StepRange steps;  // after those of the last run
    RowView<const T> x;
    RowView<T> output;  // P of each row are written
    T* gates;           // packed rows of saved_gates * H, out; null: not saved
    T* c;               // packed rows of H, out; null: not saved
  };

  /// All threads of a part call it with the same run.
  void run(const Run& run, const Part& part, TileScratch<T>& scratch);

  /// Lets the schedule begin again from the state after its last step, or from the one just set.
  void restart() { swap_ ^= rows_.steps() & 1; }

  /// The steps that the cell's run projects at once, ahead of the recurrence. With 1 it does not:
  /// each step then multiplies inputs and states in one go.
  static Index projected_steps(const RowSchedule& rows);
  /// The rows that a scratch must have for this schedule.
  static Index scratch_rows(const RowSchedule& rows);

 private:
  /// Whether each step projects a part of the inputs of later ones, instead of all at once before:
  /// for one row, of which each step waits for R to come from the memory.
  bool projects_ahead() const;
  /// Projects the inputs of kAheadSteps steps at once, then those of the next within these steps.
  void run_ahead(const Run& run, const Part& part, TileScratch<T>& scratch);
  /// The time step of step s, and the other way round.
  Index time(Index s) const { return backward_ ? rows_.steps() - 1 - s : s; }
  void project(const Run& run, StepRange steps, const Part& part, TileScratch<T>& scratch);
  /// A step of a cell in two halves.
  void step_in_halves(const Run& run, Index s, Index projected_row, const Part& part,
                      TileScratch<T>& scratch);
  void step(const Run& run, Index s, Index projected_row, const Part& part, TileScratch<T>& scratch,
            ProjectAhead<T>* ahead = nullptr);
  /// What a cell with layer normalisation does instead of `call`.
  void normalised_units(const CellStepTile<T>& call, const Part& part, TileScratch<T>& scratch);
  /// The units first <= j < end of h after step s: zoneout, and what R reads at the next.
  void regularise(Index s, Index first, Index end, TileScratch<T>& scratch);
  T* masked_h(Index s) { return masked_h_.data() + ((s ^ swap_) & 1) * rows_.B() * ld_h_; }
  /// The hidden states that step s reads; those that it writes are h(s + 1).
  T* h(Index s) { return h_.data() + ((s ^ swap_) & 1) * rows_.B() * ld_h_; }

  const CellWeights<T>& w_;
  const RowSchedule& rows_;
  const bool backward_;
  const Index grain_;  // blocks that share a cache line
  const Index ld_c_;   // of everything with H columns
  const Index ld_h_;
  Index swap_ = 0;    // 1: step 0 reads the second of h_
  Buffer<T> h_;       // [2][B][ld_h]
  Buffer<T> c_;       // [B][ld_c]; empty for cells without c
  Buffer<T> hidden_;  // [B][ld_c] h before a projection
  const CellNoise<T> noise_;
  StepOptions<T> options_;  // with the row of zoneout
  Buffer<T> keep_c_;        // [B][ld_c] zoneout: the parts of c that are kept; empty without
  Buffer<T> keep_h_;        // [B][ld_h] the same of h
  Buffer<T> h_mask_;        // [B][ld_h] recurrent dropout; empty without
  Buffer<T> masked_h_;      // [2][B][ld_h] h times the mask
  Buffer<T> from_h_;        // [B][parts][blocks][V][lanes] h R of a step in two halves
  Buffer<T> new_c_;         // [B][ld_c] layer normalisation with zoneout: c before it; else empty
  Buffer<T> reset_h_;       // [B][ld_h] r h' of a cell in halves
  Buffer<T> projected_;     // [rows of projected_steps][parts][blocks][V][lanes]
};

}  // namespace fastlstm

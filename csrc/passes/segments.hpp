// Training in segments of steps, of which the backward pass runs some again: less memory for time.
#pragma once

#include "passes/memory_plan.hpp"
#include "passes/saved.hpp"

namespace fastlstm {

/// The forward pass of a training call, cell by cell, segment by segment.
template <class T>
void forward_in_segments(Saved<T>& saved, const ForwardCall<T>& call, const MemoryPlan& plan);

/// The input of a layer at some steps, packed, with dropout; `dropped` is where it is then.
/// rows: of these steps; first_row: the packed row where they begin.
template <class T>
const T* layer_input(Saved<T>& saved, Index layer, const RowSchedule& rows, Index first_row,
                     Buffer<T>& dropped);

/// Runs cell k through some steps and saves everything, its input too.
/// state: [B, .] in the caller's order; in: before the steps; out: after them.
/// arrays: of an earlier segment, or empty.
template <class T>
Saved<T> run_segment(Saved<T>& saved, Index k, Index first, Index end, const CellState<T>& state,
                     SavedArrays<T> arrays);

}  // namespace fastlstm

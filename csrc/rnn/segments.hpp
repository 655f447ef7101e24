// Training in segments of steps, of which the backward pass runs some again: less memory for time.
#pragma once

#include <algorithm>

#include "rnn/memory_plan.hpp"
#include "rnn/saved.hpp"

namespace fastlstm {

/// The rows of the longest segment, and of the longest that is run again.
struct LongestSegments {
  Index rows = 0, again = 0;

  void count(const RowSchedule& all, Index first, Index end, bool kept) {
    const Index n = all.offset(end) - all.offset(first);
    rows = std::max(rows, n);
    if (!kept) again = std::max(again, n);
  }
};

/// The forward pass of a training call, cell by cell, segment by segment.
template <class T>
void forward_in_segments(Saved<T>& saved, const ForwardCall<T>& call, const MemoryPlan& plan);

/// The input of a layer at some steps, packed, with dropout; `dropped` is where it is then.
/// rows: of these steps; first_row: the packed row where they begin.
template <class T>
const T* layer_input(Saved<T>& saved, Index layer, const RowSchedule& rows, Index first_row,
                     Buffer<T>& dropped);

/// Runs cell k through some steps and saves everything, its input too.
/// h, c: [B, .] in the caller's order; in: the state before the steps; out: after them.
/// room: of an earlier segment, or empty.
template <class T>
Saved<T> run_segment(Saved<T>& saved, Index k, Index first, Index end, T* h, T* c,
                     typename Saved<T>::Room room);

}  // namespace fastlstm

// What a training call keeps for its backward pass, and what it computes again, within a limit.
#pragma once

#include <algorithm>
#include <vector>

#include "passes/layers.hpp"
#include "runtime/tuning.hpp"
#include "schedule/step_blocks.hpp"

namespace fastlstm {

/// Neighbouring steps of one cell, first <= t < end, that are kept or computed again together.
struct Segment {
  Index first, end;
  bool kept;
};

/// The rows of the longest segment, and of the longest that is run again.
struct LongestSegments {
  Index rows = 0, again = 0;

  void count(const RowSchedule& all, Index first, Index end, bool kept) {
    const Index n = all.offset(end) - all.offset(first);
    rows = std::max(rows, n);
    if (!kept) again = std::max(again, n);
  }
};

/// Inputs and the h of every layer are always kept. Gates and memory are kept of all steps, or,
/// under a limit, of the segments that a cell runs through last. Before every other segment the
/// state is kept, and the backward pass runs the segment again from there.
struct MemoryPlan {
  bool in_segments = false;
  Index segment_blocks = 0;  // blocks of steps (schedule/step_blocks.hpp) in a segment
  Index kept_segments = 0;   // of each cell
  TrainingMemory memory;
};

/// The plan that takes least time within `limit` bytes; 0: no limit.
/// in_place: the caller's sequences are in packed order, so that the backward pass copies none.
/// Throws std::invalid_argument, naming the least possible, where no plan is within the limit, and
/// std::bad_alloc where the bytes are too many for an Index.
template <class T>
MemoryPlan plan_memory(const Layers<T>& layers, const RowSchedule& rows,
                       const Regularisation& regularisation, bool in_place, Index limit);

/// The segments of a cell in the order of its run; they are whole blocks of the backward pass, so
/// that its sums over rows are the same however many segments there are.
std::vector<Segment> segments_of(const RowSchedule& rows, bool backward, const MemoryPlan& plan);

/// Calls body(segment) for the same, in the order of the backward pass.
template <class Body>
void for_each_segment(const RowSchedule& rows, bool backward, const MemoryPlan& plan, Body body) {
  Segment segment{};
  Index blocks = 0, segments = 0;
  for_each_step_block(rows, !backward, kBackwardRows, [&](const StepBlock& block) {
    if (blocks++ % plan.segment_blocks == 0) {
      if (segments > 0) body(segment);
      segment = {block.first, block.end, segments++ < plan.kept_segments};
    }
    segment.first = std::min(segment.first, block.first);
    segment.end = std::max(segment.end, block.end);
  });
  if (segments > 0) body(segment);
}

}  // namespace fastlstm

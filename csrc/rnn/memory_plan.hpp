// What a training call keeps for its backward pass, and what it computes again, within a limit.
#pragma once

#include <vector>

#include "fastlstm/stack.hpp"
#include "rnn/row_schedule.hpp"

namespace fastlstm {

/// Neighbouring steps of one cell, first <= t < end, that are kept or computed again together.
struct Segment {
  Index first, end;
  bool kept;
};

/// Inputs and the h of every layer are always kept. Gates and c are kept of all steps, or, under a
/// limit, of the segments that a cell runs through last. Before every other segment the state is
/// kept, and the backward pass runs the segment again from there.
struct MemoryPlan {
  bool in_segments = false;
  Index segment_blocks = 0;  // blocks of steps (rnn/step_blocks.hpp) in a segment
  Index kept_segments = 0;   // of each cell
  TrainingMemory memory;
};

/// The plan that takes least time within `limit` bytes; 0: no limit. value_bytes: of one number.
/// in_place: the caller's sequences are in packed order, so that the backward pass copies none.
/// Throws std::invalid_argument, naming the least possible, where no plan is within the limit, and
/// std::bad_alloc where the bytes are too many for an Index.
MemoryPlan plan_memory(const StackConfig& config, const RowSchedule& rows, const Dropout& dropout,
                       Index value_bytes, bool in_place, Index limit);

/// The segments of a cell in the order of its run; they are whole blocks of the backward pass, so
/// that its sums over rows are the same however many segments there are.
std::vector<Segment> segments_of(const RowSchedule& rows, bool backward, const MemoryPlan& plan);

}  // namespace fastlstm

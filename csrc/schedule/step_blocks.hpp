// The order of time steps, and their grouping into blocks for the products over many steps.
#pragma once

#include <algorithm>

#include "schedule/row_schedule.hpp"

namespace fastlstm {

/// A run of neighbouring steps, first <= t < end, and their packed rows.
struct StepBlock {
  Index first, end;
  Index first_row, rows;
};

/// Calls body(block) for blocks of whole steps, of at least `least` rows where there are so many,
/// in time order, or from the end when backward.
template <class Body>
void for_each_step_block(const RowSchedule& schedule, bool backward, Index least, Body body) {
  const Index steps = schedule.steps();
  for (Index done = 0; done < steps;) {
    Index first = backward ? steps - done - 1 : done;
    Index end = first + 1;
    const auto rows = [&] { return schedule.offset(end) - schedule.offset(first); };
    if (schedule.uniform()) {  // so that millions of steps take no time
      const Index more = std::min((least - 1) / schedule.B(), steps - done - 1);
      (backward ? first : end) += backward ? -more : more;
    }
    while (rows() < least && (backward ? first > 0 : end < steps)) {
      if (backward) {
        --first;
      } else {
        ++end;
      }
    }
    body(StepBlock{first, end, schedule.offset(first), rows()});
    done += end - first;
  }
}

/// Calls body(t) for the steps of a block in time order, or from the end when backward.
template <class Body>
void for_each_step(const StepBlock& block, bool backward, Body body) {
  for (Index k = 0; k < block.end - block.first; ++k) {
    body(backward ? block.end - 1 - k : block.first + k);
  }
}

/// The most rows that such a block of this schedule can have.
inline Index most_block_rows(const RowSchedule& schedule, Index least) {
  const Index most = least + schedule.B();
  return most < schedule.rows() ? most : schedule.rows();
}

}  // namespace fastlstm

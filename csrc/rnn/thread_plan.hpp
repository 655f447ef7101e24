// How a forward call divides its work among threads.
#pragma once

#include "fastlstm/lstm.hpp"
#include "rnn/row_schedule.hpp"

namespace fastlstm {

/// rows x directions x units threads. Groups of rows never wait for each other; the two directions
/// meet at the end of each layer; threads that share the units of a direction meet at each step.
struct ThreadPlan {
  int rows = 1;
  int directions = 1;  // 1: the two directions one after the other, or there is only one
  int units = 1;

  int threads() const { return rows * directions * units; }
  int threads_of_rows() const { return directions * units; }
};

/// The plan for at most this many threads. tile_rows: of the active kernels.
ThreadPlan plan_threads(const LstmConfig& config, const RowSchedule& rows, int threads,
                        Index tile_rows);

}  // namespace fastlstm

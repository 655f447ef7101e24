// How a forward call divides its work among threads.
#pragma once

#include "fastlstm/config.hpp"
#include "schedule/row_schedule.hpp"

namespace fastlstm {

/// rows x directions x layers x units threads. Groups of rows never wait for each other; the two
/// directions meet at the end of each layer; threads that own layers meet after each block of
/// steps, a layer one block behind the one below; threads that share the units of a direction or a
/// layer meet at each step.
struct ThreadPlan {
  int rows = 1;
  int directions = 1;  // 1: the two directions one after the other, or there is only one
  int layers = 1;      // 1: the layers one after the other
  int units = 1;

  int threads() const { return rows * threads_of_rows(); }
  int threads_of_rows() const { return directions * layers * units; }
};

/// The multiply-adds of one pass through all layers, forward; backward takes twice as many.
double products_of(const StackConfig& config, const RowSchedule& rows);

/// How many threads a call with so many multiply-adds should use: at most num_threads().
int threads_worth(double products);

/// The plan for at most num_threads() threads. alternate: whether the layers may take turns in
/// time.
ThreadPlan plan_threads(const StackConfig& config, const RowSchedule& rows, bool alternate);

}  // namespace fastlstm

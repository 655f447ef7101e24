// How calls divide their work among threads, told to who asks.
#pragma once

#include <utility>
#include <vector>

#include "fastlstm/config.hpp"

namespace fastlstm {

/// How a part of a call is divided, and what it is expected to take.
struct PlannedWork {
  int threads = 1;     // of them:
  int rows = 1;        // groups that have a part of the batch each
  int directions = 1;  // 2: the two directions at the same time
  int layers = 1;      // groups that own layers, each a block of steps behind the one below
  int units = 1;       // threads that share the hidden units of each step
  double microseconds = 0;
  /// What it goes to, by name; what is done at the same time counts as what takes longer.
  std::vector<std::pair<const char*, double>> parts;
  const char* bound = "";  // the largest of them
};

/// A call of num_threads() threads now: the forward pass, then, in training, the backward pass of
/// each cell. value_bytes: 4 or 8. lengths: [B] or null. dropout: between layers, in training.
std::vector<PlannedWork> plan_call(const StackConfig& config, Index value_bytes, Index steps,
                                   Index B, const Index* lengths, bool training, double dropout);

}  // namespace fastlstm

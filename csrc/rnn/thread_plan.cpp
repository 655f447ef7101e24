#include "rnn/thread_plan.hpp"

#include <algorithm>
#include <numeric>

#include "fastlstm/runtime.hpp"
#include "runtime/cpu.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

namespace {

// Products (multiply and add) per thread that pay for waking it: about 20 us of work.
constexpr double kProductsPerThread = 5e5;
// Products per step and thread that pay for meeting at each step (measured on Zen 4, one layer, two
// threads, T = 100: LSTM H = 48: 1.1 times as fast as one thread, 64: 1.4, 128: 1.6).
constexpr double kProductsPerMeeting = 9e3;
// The same where what one thread has written comes to the other from afar (Emerald Rapids, T = 100,
// two threads and one, us: LSTM H = 48 92 and 53, H = 64 84 and 96, in training 395 and 326; GRU H
// = 64 82 and 78, H = 80 100 and 110; RNN H = 128 116 and 90).
constexpr double kProductsPerMeetingOfSlowL3 = 2e4;
// The same where threads could own layers instead, which need not meet at each step (two layers,
// two threads, H = 48: 1.54 against 1.18, H = 64: 1.63 against 1.44, H = 128: 1.55 against 1.7, H =
// 256, B = 8: 1.4 against 1.8): an owner needs all of its layers' weights in its cache.
constexpr double kProductsRatherThanOwners = 2e4;
// Threads that own rows never meet, but each reads all the weights. Measured on Zen 4 with two
// threads, LSTM and GRU, H = 64 to 1024: it pays from so many rows a thread on (H = 128, B =
// 8: 1.09 times as fast as sharing units), from fewer where a layer's weights fit into the L2 cache
// (H = 64, B = 4: 1.12), and never where they fill the L3 cache (H = 1024, B = 128: 0.95).
constexpr Index kRowsPerThread = 4;
constexpr Index kRowsPerThreadOfSmall = 2;
constexpr double kSmallWeights = 1.5e5;
constexpr double kLargeWeights = 8e6;
// Rows a thread needs so that it had rather own them in both directions than one direction.
constexpr Index kRowsRatherThanDirections = 24;
// Steps for each thread that owns layers, so that the blocks of steps at the start and the end,
// when some threads have nothing to do, are a small part.
constexpr Index kStepsPerOwner = 16;

}  // namespace

double products_of(const StackConfig& config, const RowSchedule& rows) {
  return config.products_per_row() * static_cast<double>(rows.rows());
}

int threads_worth(double products) {
  const double worth = std::max(1.0, std::min(1e6, products / kProductsPerThread));
  return std::min(num_threads(), static_cast<int>(worth));
}

ThreadPlan plan_threads(const StackConfig& config, const RowSchedule& rows, bool alternate) {
  ThreadPlan plan;
  const double products = products_of(config, rows);
  const int n = threads_worth(products);
  if (n == 1 || rows.rows() == 0) return plan;

  const Index B = rows.B();
  if (config.bidirectional && B < n * kRowsRatherThanDirections) plan.directions = 2;
  const int left = n / plan.directions;
  const double per_step = products / static_cast<double>(config.cells() * rows.steps());
  const double weights = config.products_per_row() / static_cast<double>(config.cells());
  const Index least = weights <= kSmallWeights ? kRowsPerThreadOfSmall : kRowsPerThread;
  if (B >= left * least && weights <= kLargeWeights) {
    plan.rows = left;
    return plan;
  }
  const bool may_meet = !cpus_are_crowded();
  int owners = 1;
  if (may_meet && alternate && !config.bidirectional && rows.steps() >= left * kStepsPerOwner) {
    owners = std::gcd(left, static_cast<int>(std::min<Index>(config.num_layers, 1 << 16)));
  }
  const double meeting = cpu_has_fast_l3() ? kProductsPerMeeting : kProductsPerMeetingOfSlowL3;
  const double worth = owners > 1 ? kProductsRatherThanOwners : meeting;
  if (may_meet && per_step / left >= worth) {
    plan.units = left;
    return plan;
  }
  plan.layers = owners;
  plan.rows = static_cast<int>(std::min<Index>(left / plan.layers, std::max<Index>(B, 1)));
  return plan;
}

}  // namespace fastlstm

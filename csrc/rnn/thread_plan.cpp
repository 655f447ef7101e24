#include "rnn/thread_plan.hpp"

#include <algorithm>
#include <numeric>

#include "fastlstm/runtime.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

namespace {

// Products (multiply and add) per thread that pay for waking it: about 20 us of work.
constexpr double kProductsPerThread = 5e5;
// Products per step and thread that pay for meeting at each step: about 0.5 us of work.
constexpr double kProductsPerMeeting = 2e4;
// Rows a thread needs, in tiles, to use each weight often enough that reading all the weights,
// instead of a share of them, costs nothing.
constexpr Index kTilesPerThread = 4;
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

ThreadPlan plan_threads(const StackConfig& config, const RowSchedule& rows, bool alternate,
                        Index tile_rows) {
  ThreadPlan plan;
  const double products = products_of(config, rows);
  const int n = threads_worth(products);
  if (n == 1 || rows.rows() == 0) return plan;

  const Index B = rows.B();
  if (B >= n * kTilesPerThread * tile_rows) {
    plan.rows = n;
    return plan;
  }
  if (config.bidirectional) plan.directions = 2;
  const double per_step = products / static_cast<double>(config.cells() * rows.steps());
  const int left = n / plan.directions;
  const bool crowded = cpus_are_crowded();
  if (per_step / left >= kProductsPerMeeting && !crowded) {
    plan.units = left;
    return plan;
  }
  // Measured on Zen 4, two layers, two threads: sharing units is faster where it pays at all (H =
  // 128: 1.7 against 1.55, H = 256, B = 8: 1.8 against 1.4), since an owner needs all of its
  // layers' weights in its cache.
  if (alternate && !config.bidirectional && !crowded && rows.steps() >= left * kStepsPerOwner) {
    plan.layers = std::gcd(left, static_cast<int>(std::min<Index>(config.num_layers, 1 << 16)));
  }
  plan.rows = static_cast<int>(std::min<Index>(left / plan.layers, std::max<Index>(B, 1)));
  return plan;
}

}  // namespace fastlstm

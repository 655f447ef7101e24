#include "schedule/thread_plan.hpp"

#include <algorithm>
#include <numeric>

#include "fastlstm/runtime.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

double products_of(const StackConfig& config, const RowSchedule& rows) {
  return config.products_per_row() * static_cast<double>(rows.rows());
}

int threads_worth(double products) {
  const double worth = std::max(1.0, std::min(1e6, products / tuning().products_per_thread));
  return std::min(num_threads(), static_cast<int>(worth));
}

ThreadPlan plan_threads(const StackConfig& config, const RowSchedule& rows, bool alternate) {
  const Tuning& tuned = tuning();
  ThreadPlan plan;
  const double products = products_of(config, rows);
  const int n = threads_worth(products);
  if (n == 1 || rows.rows() == 0) return plan;

  const Index B = rows.B();
  if (config.bidirectional && static_cast<double>(B) < n * tuned.rows_rather_than_directions)
    plan.directions = 2;
  const int left = n / plan.directions;
  const double per_step = products / static_cast<double>(config.cells() * rows.steps());
  const double weights = config.products_per_row() / static_cast<double>(config.cells());
  const double least =
      weights <= tuned.small_weights ? tuned.rows_per_thread_of_small : tuned.rows_per_thread;
  if (static_cast<double>(B) >= left * least && weights <= tuned.large_weights) {
    plan.rows = left;
    return plan;
  }
  const bool may_meet = !cpus_are_crowded();
  int owners = 1;
  if (may_meet && alternate && !config.bidirectional &&
      static_cast<double>(rows.steps()) >= left * tuned.steps_per_owner) {
    owners = std::gcd(left, static_cast<int>(std::min<Index>(config.num_layers, 1 << 16)));
  }
  const double worth = owners > 1 ? tuned.products_rather_than_owners : tuned.products_per_meeting;
  if (may_meet && per_step / left >= worth) {
    plan.units = left;
    return plan;
  }
  plan.layers = owners;
  plan.rows = static_cast<int>(std::min<Index>(left / plan.layers, std::max<Index>(B, 1)));
  return plan;
}

}  // namespace fastlstm

#include "schedule/thread_plan.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>

#include "fastlstm/runtime.hpp"
#include "runtime/crowding.hpp"
#include "schedule/shares.hpp"

namespace fastlstm {

namespace {

/// More threads have to gain something: where the model is wrong, fewer are the safer choice.
constexpr double kWorthMoreThreads = 0.97;

/// The one that ends first of what it was offered, fewer threads first.
template <class Plan>
class Best {
 public:
  void offer(const Plan& plan, int threads, const Cost& cost) {
    const double total = cost.total();
    const double bar = threads > threads_ ? kWorthMoreThreads * least_ : least_;
    if (total >= bar) return;
    least_ = total;
    threads_ = threads;
    plan_ = plan;
  }
  const Plan& plan() const { return plan_; }

 private:
  Plan plan_{};
  int threads_ = 1;
  double least_ = 1e300;
};

/// Four numbers below 2^16; 0: nothing is forced.
std::atomic<std::uint64_t> g_forced{0};

std::optional<ThreadPlan> forced_plan() {
  const std::uint64_t packed = g_forced.load(std::memory_order_relaxed);
  if (packed == 0) return std::nullopt;
  const auto part = [packed](int k) { return static_cast<int>(packed >> 16 * k & 0xffff); };
  return ThreadPlan{part(0), part(1), part(2), part(3)};
}

/// What of a plan this call can be divided by.
ThreadPlan possible(ThreadPlan plan, const CallShape& call) {
  const StackConfig& c = call.config;
  plan.rows = static_cast<int>(std::clamp<Index>(plan.rows, 1, std::max<Index>(call.B, 1)));
  plan.directions = std::min(plan.directions, static_cast<int>(c.directions()));
  if (!call.alternate || c.bidirectional || c.num_layers % plan.layers != 0) plan.layers = 1;
  return plan;
}

/// The rows of a task. Fewer keep more groups at work until the end, but each task reads R at each
/// step: with tasks of 8 rows instead of 16, 2 threads lost 10 % (B = 32, H = 512, R in the L3
/// cache). With uneven lengths, the first tasks have most of the work, so there are more.
///
/// Where bits depend on it, neither the number of threads counts nor a segment's number of rows: a
/// cell may sum over groups of rows, of which a task has some, and on BLAS (which projections use)
/// the bits of a product depend on its height.
Index step_rows(const CallShape& call, const BackwardRows& rows, int groups) {
  const Index of_sums = sum_rows(rows.call_B);
  if (call.config.proj_size > 0) return of_sums;
  const Index tasks =
      groups * std::max<Index>(pieces(call.B, groups * kMostStepRows), rows.uneven ? 2 : 1);
  const Index some = std::clamp<Index>(pieces(call.B, tasks), 4, kMostStepRows);
  if (!rows.sums_over_rows) return some;
  return std::min(pieces(some, of_sums), kMostStepRows / of_sums) * of_sums;
}

double products_of(const CallShape& call) {
  return call.config.products_per_row() * call.steps * call.live;
}

}  // namespace

double products_of(const StackConfig& config, const RowSchedule& rows) {
  return config.products_per_row() * static_cast<double>(rows.rows());
}

int threads_worth(double products) {
  const double worth = std::max(1.0, std::min(1e6, products / tuning().products_per_thread));
  return std::min({num_threads(), static_cast<int>(worth), hardware().cpus});
}

CostModel cost_model() { return CostModel(tuning(), hardware()); }

ThreadPlan best_plan(const CostModel& model, const CallShape& call, int most, int meeting) {
  const StackConfig& c = call.config;
  Best<ThreadPlan> best;
  best.offer({}, 1, model.forward(call, {}));
  if (most == 1 || call.steps == 0) return best.plan();
  const auto offer = [&](const ThreadPlan& plan) {
    if (plan.meets() && plan.threads() > meeting) return;
    best.offer(plan, plan.threads(), model.forward(call, plan));
  };
  const auto rows_and_units = [&](int directions, int layers) {
    const int left = most / (directions * layers);
    for_each_division(call.B, left, [&](int rows) {
      for_each_division(call.unit_parts, left / rows,
                        [&](int units) { offer({rows, directions, layers, units}); });
    });
  };
  rows_and_units(1, 1);
  if (c.bidirectional) {
    rows_and_units(2, 1);
  } else if (call.alternate) {
    for (int layers = 2; layers <= std::min<Index>(most, c.num_layers); ++layers) {
      const bool many = call.steps >= layers * tuning().steps_per_owner;
      if (many && c.num_layers % layers == 0) rows_and_units(1, layers);
    }
  }
  return best.plan();
}

ThreadPlan plan_threads(const CallShape& call) {
  if (const std::optional<ThreadPlan> forced = forced_plan()) return possible(*forced, call);
  const int n = threads_that_may_share(threads_worth(products_of(call)));
  return n == 1 ? ThreadPlan{} : best_plan(cost_model(), call, n, threads_that_may_meet(n));
}

Index sum_rows(Index B) { return std::clamp<Index>((B + 3) / 4, 4, kMostStepRows); }

Index least_step_rows(const CallShape& call, const BackwardRows& rows, int most) {
  Index least = kMostStepRows;
  for (int groups = 1; groups <= std::min<Index>(most, std::max<Index>(call.B, 1)); ++groups) {
    least = std::min(least, step_rows(call, rows, groups));
  }
  return least;
}

BackwardPlan best_backward_plan(const CostModel& model, const CallShape& call, Index layer,
                                const BackwardRows& rows, int most, int meeting) {
  const bool shares = !rows.sums_over_rows && call.config.proj_size == 0;
  Best<BackwardPlan> best;
  // Every number of threads up to 16, above that some: the products of the gradients gain from
  // each.
  for (int n = 1; n <= most; n = n < most ? std::min(most, n + 1 + n / 16) : n + 1) {
    for_each_division(call.unit_parts, shares ? n : 1, [&](int units) {
      const int groups =
          static_cast<int>(std::clamp<Index>(n / units, 1, std::max<Index>(call.B, 1)));
      if (units > 1 && groups * units > meeting) return;
      const BackwardPlan plan{n, groups, units, step_rows(call, rows, groups)};
      best.offer(plan, n, model.backward(call, layer, plan));
    });
  }
  return best.plan();
}

BackwardPlan plan_backward(const CallShape& call, Index layer, const BackwardRows& rows) {
  if (const std::optional<ThreadPlan> forced = forced_plan()) {
    const bool shares = !rows.sums_over_rows && call.config.proj_size == 0;
    const int groups = forced->rows * forced->directions * forced->layers;
    const int units = shares ? forced->units : 1;
    return {groups * units, groups, units, step_rows(call, rows, groups)};
  }
  const int n = threads_that_may_share(threads_worth(2 * products_of(call)));
  return best_backward_plan(cost_model(), call, layer, rows, n, threads_that_may_meet(n));
}

int plan_stream(const CallShape& call, bool asleep) {
  if (const std::optional<ThreadPlan> forced = forced_plan()) return forced->units;
  const CostModel model = cost_model();
  constexpr int kMost = 64;
  Best<int> best;
  for_each_division(call.unit_parts, std::min(kMost, model.cpus()), [&](int threads) {
    best.offer(threads, threads, model.stream_step(call, threads, asleep));
  });
  return best.plan();
}

void force_plan(const ThreadPlan* plan) {
  std::uint64_t packed = 0;
  if (plan != nullptr) {
    for (const int part : {plan->units, plan->layers, plan->directions, plan->rows}) {
      packed = packed << 16 | static_cast<std::uint64_t>(part);
    }
  }
  g_forced.store(packed, std::memory_order_relaxed);
}

}  // namespace fastlstm

#include "fastlstm/plan.hpp"

#include "cells/cells.hpp"
#include "passes/forward.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

namespace {

PlannedWork told(const Cost& cost) {
  PlannedWork work;
  work.microseconds = cost.total();
  work.parts = cost.parts();
  work.bound = cost.bound();
  return work;
}

}  // namespace

std::vector<PlannedWork> plan_call(const StackConfig& config, Index value_bytes, Index steps,
                                   Index B, const Index* lengths, bool training, double dropout) {
  const RowSchedule rows(steps, B, lengths);
  const CostModel model = cost_model();
  const bool alternate = layers_alternate(config, training && dropout > 0);
  const CallShape forward(config, rows, value_bytes, alternate);
  const ThreadPlan plan = plan_threads(forward);
  std::vector<PlannedWork> works{told(model.forward(forward, plan))};
  works[0].threads = plan.threads();
  works[0].rows = plan.rows;
  works[0].directions = plan.directions;
  works[0].layers = plan.layers;
  works[0].units = plan.units;
  if (!training) return works;
  const BackwardRows of_rows{B, rows.uneven(), make_cell<float>(config)->sums_over_rows()};
  for (Index k = 0; k < config.cells(); ++k) {
    const Index layer = k / config.directions();
    const BackwardPlan backward = plan_backward(forward, layer, of_rows);
    PlannedWork work = told(model.backward(forward, layer, backward));
    work.threads = backward.threads;
    work.rows = backward.groups;
    work.units = backward.units;
    works.push_back(work);
  }
  return works;
}

}  // namespace fastlstm

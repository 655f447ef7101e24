// How calls divide their work among threads: of all plans the one that the model of cost expects to
// end first.
#pragma once

#include "schedule/cost_model.hpp"

namespace fastlstm {

/// The multiply-adds of one pass through all layers, forward; backward takes twice as many.
double products_of(const StackConfig& config, const RowSchedule& rows);

/// How many threads a call with so many multiply-adds should use: at most num_threads(), nor more
/// than there are CPUs.
int threads_worth(double products);

/// The model of this machine.
CostModel cost_model();

/// The plan for at most `most` threads, of which at most `meeting` may meet at each step.
ThreadPlan best_plan(const CostModel& model, const CallShape& call, int most, int meeting);

/// What decides how the steps of a backward pass may be divided, besides the shape of the call.
struct BackwardRows {
  Index call_B;         // sequences of the whole call, of which the rows may be a part
  bool uneven;          // lengths differ
  bool sums_over_rows;  // groups of rows are summed together: sum_rows(call_B) of them
};
/// The rows of a group that is summed together, or of a task of steps, whatever the number of
/// threads: four groups as a rule, so that as many threads have a task.
Index sum_rows(Index B);
/// The fewest rows of a task that a plan for at most `most` threads may have, of these rows or of
/// those that live in some of the steps: with fewer threads a task may have fewer rows, too.
Index least_step_rows(const CallShape& call, const BackwardRows& rows, int most);
BackwardPlan best_backward_plan(const CostModel& model, const CallShape& call, Index layer,
                                const BackwardRows& rows, int most, int meeting);

/// What calls use: these for num_threads(), and for as many as have CPUs to meet on now; or what is
/// forced, as far as the call can be divided so.
ThreadPlan plan_threads(const CallShape& call);
BackwardPlan plan_backward(const CallShape& call, Index layer, const BackwardRows& rows);
/// By how many threads a step of a stream goes best, which spin or sleep before it.
int plan_stream(const CallShape& call, bool asleep);

/// Has all calls divided so, whatever num_threads() says: for tests of each plan, and to measure
/// it. Null: ends that. Backward, groups of rows x directions x layers threads share units.
void force_plan(const ThreadPlan* plan);

}  // namespace fastlstm

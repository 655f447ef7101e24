#include "passes/direction_backward.hpp"

#include <algorithm>

#include "passes/weight_gradients.hpp"
#include "runtime/fixed_vector.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/spin_barrier.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

namespace {

template <class T>
BackwardShape<T> shape_of(const DirectionBackward<T>& run) {
  const StackConfig& config = run.layers.config;
  BackwardShape<T> shape{run.layers.weights(run.k), run.rows};
  shape.backward = config.runs_backward(run.k % config.directions());
  shape.x = run.x;
  shape.block_rows = most_block_rows(run.rows, kBackwardRows);
  shape.step_rows = run.plan.step_rows;
  shape.sum_rows = sum_rows(run.call_B);
  return shape;
}

/// Block of steps by block of steps: first the steps, then the products over all rows of the block.
template <class T>
class DirectionPass {
 public:
  DirectionPass(const DirectionBackward<T>& run, Room& room)
      : run_(run),
        shape_(shape_of(run)),
        barriers_(run.plan.units > 1 && !room.counts() ? run.plan.groups : 0),
        steps_(run.layers, shape_, run.layers.masks(run.k, &run.regularisation, run.rows),
               run.steps, room),
        weights_(shape_.weights,
                 {run.x, run.d_x, run.add_to_d_x, run.d_params.weight_ih, run.d_params.weight_hh},
                 steps_.cell().R_inputs(steps_.h_prev()), run.plan.threads, shape_.block_rows,
                 room) {
    while (!barriers_.full()) barriers_.emplace_back(run_.plan.units);
  }

  void compute(TeamLease& team) {
    for_each_step_block(run_.rows, !shape_.backward, kBackwardRows, [&](const StepBlock& block) {
      check_interrupt();
      if (run_.plan.units > 1) {
        steps_by_columns(block, team);
      } else {
        steps_by_rows(block, team);
      }
      gradients(block, team);
    });
    steps_.finish();
  }

 private:
  /// Each task takes some rows through all steps of a block.
  void steps_by_rows(const StepBlock& block, TeamLease& team) {
    const Index B = run_.rows.B();
    team.run_tasks(pieces(B, shape_.step_rows), [&](Index task, int) noexcept {
      const Piece rows = piece(B, task, shape_.step_rows);
      for_each_step(block, !shape_.backward,
                    [&](Index t) { steps_.step(block, t, task, rows, Share{}); });
    });
  }

  /// Groups of threads have tasks each, and share the columns of the products with R.
  void steps_by_columns(const StepBlock& block, TeamLease& team) {
    const Index B = run_.rows.B(), tasks = pieces(B, shape_.step_rows);
    team.run([&](int rank) noexcept {
      const int group = rank / run_.plan.units;
      if (group >= run_.plan.groups) return;
      const Share share{rank % run_.plan.units, run_.plan.units,
                        &barriers_[static_cast<std::size_t>(group)]};
      for (Index task = group; task < tasks; task += run_.plan.groups) {
        const Piece rows = piece(B, task, shape_.step_rows);
        for_each_step(block, !shape_.backward,
                      [&](Index t) { steps_.step(block, t, task, rows, share); });
      }
    });
  }

  /// Of the parameters and the input, from all rows of a block at once.
  void gradients(const StepBlock& block, TeamLease& team) {
    const T* const d_from_h = steps_.cell().d_from_h(steps_.d_gates());
    weights_.begin({block.first_row, block.rows, steps_.d_gates(), d_from_h});
    if (run_.collected != nullptr) {
      run_.collected->add(block.rows, run_.x + block.first_row * shape_.weights.I, steps_.h_prev(),
                          steps_.d_gates(), d_from_h);
    }
    const Index small = weights_.first_tasks();  // the place of the task of all small ones
    team.run_tasks(1 + weights_.tasks(), [&](Index task, int rank) noexcept {
      if (task == small) {
        steps_.add_gradients(block.rows, run_.d_params);
      } else {
        weights_.run(task < small ? task : task - 1, rank);
      }
    });
  }

  const DirectionBackward<T>& run_;
  const BackwardShape<T> shape_;
  FixedVector<SpinBarrier> barriers_;  // by group, where threads share columns
  StepsBackward<T> steps_;
  WeightGradients<T> weights_;
};

template <class T>
BackwardRows backward_rows(const Layers<T>& layers, const RowSchedule& rows, Index call_B) {
  return {call_B, rows.uneven(), layers.cell->sums_over_rows()};
}

}  // namespace

template <class T>
BackwardPlan plan_direction(const Layers<T>& layers, Index k, const RowSchedule& rows, Index call_B,
                            bool one_thread) {
  const StackConfig& config = layers.config;
  const CallShape call(config, rows, sizeof(T), false);
  const BackwardRows of_rows = backward_rows(layers, rows, call_B);
  const Index layer = k / config.directions();
  return one_thread ? best_backward_plan(cost_model(), call, layer, of_rows, 1, 1)
                    : plan_backward(call, layer, of_rows);
}

template <class T>
void direction_backward(const DirectionBackward<T>& run, TeamLease& team) {
  Room room;
  DirectionPass<T>(run, room).compute(team);
}

template <class T>
Count direction_backward_bytes(const Layers<T>& layers, const RowSchedule& rows,
                               const Regularisation& regularisation) {
  const StackConfig& config = layers.config;
  Count bytes = 0;
  T asked = 0;  // a place for pointers that say that gradients are asked for
  for (Index k = 0; k < config.cells(); k += config.directions()) {
    Room room(Room::Use::kCounts);
    DirectionBackward<T> run{layers, k, rows, regularisation};
    run.plan = plan_direction(layers, k, rows, rows.B());
    // What some of the rows are worth may be more threads than all of them, and when the call comes
    // other threads may be late than now; but no more than these.
    const int threads = threads_worth(2 * products_of(config, rows));
    run.plan.threads = std::max(run.plan.threads, threads);
    const CallShape call(config, rows, sizeof(T), false);
    run.plan.step_rows = std::min(
        run.plan.step_rows, least_step_rows(call, backward_rows(layers, rows, rows.B()), threads));
    run.call_B = rows.B();
    run.d_x = &asked;
    run.add_to_d_x = config.bidirectional;
    const DirectionPass<T> counted(run, room);
    bytes = most(bytes, room.bytes());
  }
  return bytes;
}

#define FASTLSTM_INSTANTIATE(T)                                                                   \
  template BackwardPlan plan_direction(const Layers<T>&, Index, const RowSchedule&, Index, bool); \
  template void direction_backward(const DirectionBackward<T>&, TeamLease&);                      \
  template Count direction_backward_bytes(const Layers<T>&, const RowSchedule&,                   \
                                          const Regularisation&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "passes/direction_backward.hpp"

#include <algorithm>

#include "passes/weight_gradients.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

namespace {

/// The rows of a group that is summed together, or of a task of steps, whatever the number of
/// threads: four groups as a rule, so that as many threads have a task.
Index sum_rows(Index B) { return std::clamp<Index>((B + 3) / 4, 4, kMostStepRows); }

/// The rows of a task. Fewer keep more threads at work until the end, but each task reads R at each
/// step: with tasks of 8 rows instead of 16, 2 threads lost 10 % (B = 32, H = 512, R in the L3
/// cache). With uneven lengths, the first tasks have most of the work, so there are more.
///
/// Where bits depend on it, neither the number of threads counts nor a segment's number of rows: a
/// cell may sum over groups of rows, of which a task has some, and on BLAS (which projections use)
/// the bits of a product depend on its height.
template <class T>
Index step_rows(const DirectionBackward<T>& run) {
  const Index of_sums = sum_rows(run.call_B);
  if (run.layers.config.proj_size > 0) return of_sums;
  const Index B = run.rows.B(), n = run.threads;
  const bool uneven = run.rows.rows() < B * run.rows.steps();
  const Index tasks = n * std::max<Index>(pieces(B, n * kMostStepRows), uneven ? 2 : 1);
  const Index rows = std::clamp<Index>(pieces(B, tasks), 4, kMostStepRows);
  if (!run.layers.cell->sums_over_rows()) return rows;
  return std::min(pieces(rows, of_sums), kMostStepRows / of_sums) * of_sums;
}

template <class T>
BackwardShape<T> shape_of(const DirectionBackward<T>& run) {
  const StackConfig& config = run.layers.config;
  BackwardShape<T> shape{run.layers.weights(run.k), run.rows};
  shape.backward = config.runs_backward(run.k % config.directions());
  shape.x = run.x;
  shape.block_rows = most_block_rows(run.rows, kBackwardRows);
  shape.step_rows = step_rows(run);
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
        steps_(run.layers, shape_, run.layers.masks(run.k, &run.regularisation, run.rows),
               run.steps, room),
        weights_(shape_.weights,
                 {run.x, run.d_x, run.add_to_d_x, run.d_params.weight_ih, run.d_params.weight_hh},
                 steps_.cell().R_inputs(steps_.h_prev()), run.threads, shape_.block_rows, room) {}

  void compute(TeamLease& team) {
    for_each_step_block(run_.rows, !shape_.backward, kBackwardRows, [&](const StepBlock& block) {
      check_interrupt();
      if (threads_share_columns()) {
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

  /// All threads go through the steps together, and share the columns of the products with R.
  void steps_by_columns(const StepBlock& block, TeamLease& team) {
    SpinBarrier barrier(team.threads());
    team.run([&](int rank) noexcept {
      const Share share{rank, team.threads(), &barrier};
      for_each_step(block, !shape_.backward,
                    [&](Index t) { steps_.step(block, t, 0, {0, run_.rows.B()}, share); });
    });
  }

  /// Whether there are too few tasks of rows for the threads, and enough work in a step.
  bool threads_share_columns() const {
    const int n = run_.threads;
    const Index B = run_.rows.B();
    const CellWeights<T>& w = shape_.weights;
    if (n == 1 || B > kMostStepRows || run_.layers.cell->sums_over_rows() || w.projects) {
      return false;
    }
    return 2 * pieces(B, shape_.step_rows) <= n &&
           static_cast<double>(w.GH * w.P * B) >= n * tuning().products_per_meeting_backward &&
           !cpus_are_crowded();
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
  StepsBackward<T> steps_;
  WeightGradients<T> weights_;
};

}  // namespace

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
    DirectionBackward<T> run{
        layers,   k,       rows, regularisation, threads_worth(2 * products_of(config, rows)),
        rows.B(), nullptr, {}};
    run.d_x = &asked;
    run.add_to_d_x = config.bidirectional;
    const DirectionPass<T> counted(run, room);
    bytes = most(bytes, room.bytes());
  }
  return bytes;
}

#define FASTLSTM_INSTANTIATE(T)                                                 \
  template void direction_backward(const DirectionBackward<T>&, TeamLease&);    \
  template Count direction_backward_bytes(const Layers<T>&, const RowSchedule&, \
                                          const Regularisation&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

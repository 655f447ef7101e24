// The backward pass of one layer and direction over a whole sequence, and how threads divide it.
#pragma once

#include "passes/collected_gradients.hpp"
#include "passes/steps_backward.hpp"
#include "runtime/thread_team.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

template <class T>
struct DirectionBackward {
  const Layers<T>& layers;
  Index k;  // the cell
  const RowSchedule& rows;
  const Regularisation& regularisation;
  BackwardPlan plan{};   // for these rows, with as many threads as the team has
  Index call_B = 0;      // sequences of the whole call, of which rows may be a part
  const T* x = nullptr;  // [rows, I] in, packed
  StepsBackwardCall<T> steps{};
  T* d_x = nullptr;          // [rows, I] out; null: not computed
  bool add_to_d_x = false;   // d_x: in and out
  CellParams<T> d_params{};  // added to; null: not computed
  /// Takes the rows of d_params' products, prepared for them; or null.
  typename CollectedGradients<T>::State* collected = nullptr;
};

/// How the threads that it is worth divide it: as plan_backward says, or with one.
template <class T>
BackwardPlan plan_direction(const Layers<T>& layers, Index k, const RowSchedule& rows, Index call_B,
                            bool one_thread = false);

template <class T>
void direction_backward(const DirectionBackward<T>& run, TeamLease& team);

/// The most that a pass over these rows takes, for any of the layers' cells and for as many
/// threads as a call may have, with gradients of everything.
template <class T>
Count direction_backward_bytes(const Layers<T>& layers, const RowSchedule& rows,
                               const Regularisation& regularisation);

}  // namespace fastlstm

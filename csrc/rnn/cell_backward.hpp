// The backward pass of one layer in one direction over a whole sequence: on tiles where there are
// any, on BLAS where that is faster or all there is.
#pragma once

#include <algorithm>

#include "rnn/cell_weights.hpp"
#include "rnn/noise.hpp"
#include "rnn/row_schedule.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

/// The most rows that go through the steps of a block together: independent of all others there,
/// and so a task for a thread.
constexpr Index kMostStepRows = 32;

/// Rows whose W x the backward pass with layer normalisation computes at once.
constexpr Index kAgainRows = 48;
static_assert(kAgainRows >= kMostStepRows);

/// The gradients of a layer normalisation and of the gates' bias, for each hidden unit
/// (LstmNormBackward).
constexpr Index kNormSums = 14;

/// The rows of a group that is summed together, or of a task of steps, whatever the number of
/// threads: four groups as a rule, so that as many threads have a task.
inline Index shared_step_rows(Index B) { return std::clamp<Index>((B + 3) / 4, 4, kMostStepRows); }

template <class T>
struct DirectionBackward {
  const CellWeights<T>& weights;
  const RowSchedule& rows;
  Index call_B;  // sequences of the whole call, of which rows may be a part
  CellNoise<T> noise;
  bool backward;    // the direction of the forward pass
  const T* x;       // [rows, I] in, packed
  const T* h_0;     // [B, P] in, sorted
  const T* c_0;     // [B, H] in, sorted
  const T* output;  // packed rows of ld_output elements; in: P of each, what forward wrote
  Index ld_output;
  const T* gates;     // [rows, saved_gates * H] in, as saved
  const T* c;         // [rows, H] in, as saved
  const T* d_output;  // as output; in; null: zeros
  T* d_h;             // [B, P] in: gradient of h_n, sorted; out: of h_0
  T* d_c;             // [B, H] in: gradient of c_n, sorted; out: of c_0
  T* d_past_R;        // [B, H] in and out: the part of d_h that did not come through R, where cells
                      // keep it apart: kept_apart(weights); null otherwise
  T* d_x;             // [rows, I] out; null: not computed
  bool add_to_d_x;    // d_x: in and out
  TeamLease& team;
  CellParams<T> d_params;  // added to; null: not computed
  T* d_h_steps;            // [rows, P] out: d_h as it comes to each step; null: not asked for
  T* d_c_steps;            // [rows, H] out: the same of d_c, where there is c
};

/// Whether a cell's backward pass holds d_h in two parts. Their sum is the gradient.
template <class T>
bool kept_apart(const CellWeights<T>& w) {
  return w.cell.resets || w.cell.in_halves;
}

template <class T>
void direction_backward(const DirectionBackward<T>& run);

/// The gates of a cell with layer normalisation, of which training saves R h.
/// x: [rows, I] in; gates: [rows, 4H] in: as saved; out: i f g o.
template <class T>
void normalised_gates(const CellWeights<T>& weights, Index rows, const T* x, T* gates);

}  // namespace fastlstm

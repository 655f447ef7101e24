// The forward pass of one layer in one direction over a whole sequence, on BLAS products and the
// element-wise kernels: for the generic target.
#pragma once

#include "rnn/cell_weights.hpp"
#include "rnn/noise.hpp"
#include "rnn/row_schedule.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

/// Memory of the forward pass, allocated before the time loop and reused by every direction.
template <class T>
struct BlasWorkspace {
  /// For cells of this configuration over this schedule.
  BlasWorkspace(const StackConfig& config, const RowSchedule& rows, bool save_gates);

  Buffer<T> gates;    // [rows, G H] x W of one block of steps; empty when the gates are saved
  Buffer<T> from_h;   // [B, G H] h R of one step
  Buffer<T> reset_h;  // [B, H] r h' of a GRU that resets before the product; else empty
  Buffer<T> hidden;   // [B, H] h before a projection; empty without one
  // Regularisation; empty without:
  Buffer<T> keep_c, keep_h;  // [B, H], [B, P] zoneout of one step
  Buffer<T> new_c;           // [B, H] layer normalisation with zoneout: c before it
  Buffer<T> old_h;           // [B, P] h of the step before
  Buffer<T> h_mask;          // [B, P] recurrent dropout
  Buffer<T> masked_h;        // [B, P] what R reads
};

template <class T>
struct DirectionForward {
  const CellWeights<T>& weights;
  const RowSchedule& rows;
  CellNoise<T> noise;
  bool backward;  // from the end to the start
  const T* x;     // [rows, I] in, packed
  T* h;           // [B, P] in: h_0, sorted; out: h_n
  T* c;           // [B, H] in: c_0, sorted; out: c_n
  T* output;      // packed rows of ld_output elements; out: P of each
  Index ld_output;
  T* saved_gates;  // [rows, saved_gates * H] out, for training; null: not saved
  T* saved_c;      // [rows, H] out, for training; null: not saved
  BlasWorkspace<T>& workspace;
  TeamLease& team;
};

template <class T>
void direction_forward(const DirectionForward<T>& run);

}  // namespace fastlstm

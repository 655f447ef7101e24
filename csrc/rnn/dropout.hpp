// Dropout between layers and of R: masks that depend on a seed and a place, and are never stored.
#pragma once

#include <cstdint>

#include "fastlstm/stack.hpp"
#include "rnn/noise.hpp"
#include "rnn/row_schedule.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

/// dropped = x times the mask of a layer's output, for packed rows; its own gradient too.
/// dropped may be x. The mask of a row follows its time step and its place in the caller's batch.
template <class T>
void drop_rows(const RowSchedule& rows, const Dropout& dropout, Index layer, const T* x,
               Index width, T* dropped) {
  const KernelTable<T>& kernel = kernels<T>();
  for (Index t = 0; t < rows.steps(); ++t) {
    for (Index b = 0; b < rows.live(t); ++b) {
      const Index at = rows.packed_row(t, b) * width;
      kernel.dropout_row({width, dropout.seed, noise_stream(NoiseKind::kDropout, layer),
                          rows.unique_row(t, b), dropout.p, x + at, dropped + at});
    }
  }
}

/// dropped = R of cell k, or its gradient, times the mask of weight dropout. R: [rows, P]; dropped
/// may be R.
template <class T>
void drop_weights(const Dropout& dropout, Index k, Index rows, Index P, const T* R, T* dropped) {
  for (Index row = 0; row < rows; ++row) {
    kernels<T>().dropout_row({P, dropout.seed, noise_stream(NoiseKind::kWeightDropout, k),
                              static_cast<std::uint64_t>(row), dropout.weight, R + row * P,
                              dropped + row * P});
  }
}

}  // namespace fastlstm

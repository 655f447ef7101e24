// What differs from cell to cell on the way through time: its kernels and the shape of its panels.
#pragma once

#include "fastlstm/stack.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

template <class T>
struct CellKernels {
  Index vectors;      // V of its panels (kernels/arguments.hpp)
  Index block_units;  // units in a block of its panels
  void (*step)(const CellStep<T>&) noexcept;
  void (*step_tile)(const CellStepTile<T>&) noexcept;
  void (*step_backward)(const CellStepBackward<T>&) noexcept;
};

/// A cell's kernels of the active target.
template <class T>
CellKernels<T> cell_kernels(const StackConfig& config) {
  const KernelTable<T>& k = kernels<T>();
  switch (config.cell) {
    case CellKind::kLstm:
    default:
      return {4, k.lanes, k.lstm_step, k.lstm_step_tile, k.lstm_step_backward};
  }
}

}  // namespace fastlstm

// What differs from cell to cell on the way through time: its kernels and the shape of its panels.
#pragma once

#include "fastlstm/stack.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

template <class T>
struct CellKernels {
  Index vectors;      // V of its panels (kernels/arguments.hpp)
  Index block_units;  // units in a block of its panels
  /// GRU: the reset gate stands between R h and the sum, so that their gradients differ, and h
  /// reaches the next step past R, too.
  bool resets;
  /// GRU with the reset gate before the product: a step in two halves (GruHalfStep). Its panels are
  /// those of a plain matrix, gate after gate, and the functions below are null.
  bool in_halves;
  void (*step)(const CellStep<T>&) noexcept;
  void (*step_tile)(const CellStepTile<T>&) noexcept;
  void (*step_backward)(const CellStepBackward<T>&) noexcept;
  /// LSTM with layer normalisation: a step in two halves (LstmNormStep), without step and
  /// step_tile. Its gradients of W x and R h differ, too.
  bool normalises = false;

  /// Whether W x and R h have gradients of their own.
  bool gradients_differ() const { return resets || normalises; }
};

/// A cell's kernels of the active target.
template <class T>
CellKernels<T> cell_kernels(const StackConfig& config) {
  const KernelTable<T>& k = kernels<T>();
  switch (config.cell) {
    case CellKind::kGru:
      return {3, k.lanes, true, false, k.gru_step, k.gru_step_tile, k.gru_step_backward};
    case CellKind::kGruResetBefore:
      return {4, 4 * k.lanes, false, true, nullptr, nullptr, nullptr};
    case CellKind::kRnnTanh:
      return {4,
              4 * k.lanes,
              false,
              false,
              k.rnn_tanh_step,
              k.rnn_tanh_step_tile,
              k.rnn_tanh_step_backward};
    case CellKind::kRnnRelu:
      return {4,
              4 * k.lanes,
              false,
              false,
              k.rnn_relu_step,
              k.rnn_relu_step_tile,
              k.rnn_relu_step_backward};
    case CellKind::kLstm:
    default:
      if (config.options.layer_norm) {
        return {4, k.lanes, false, false, nullptr, nullptr, k.lstm_norm_backward, true};
      }
      return {4, k.lanes, false, false, k.lstm_step, k.lstm_step_tile, k.lstm_step_backward};
  }
}

}  // namespace fastlstm

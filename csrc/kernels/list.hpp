// The list of kernels, and the table of them that each target fills.
#pragma once

#include "kernels/arguments.hpp"

/// X(name, struct of its arguments). The tables, their tests and the kernel benchmark come from it.
/// First those that multiply with panels, which there are for each arithmetic.
#define FASTLSTM_PANEL_KERNELS(X)     \
  X(project_rows, ProjectRows)        \
  X(lstm_step_tile, CellStepTile)     \
  X(gru_step_tile, CellStepTile)      \
  X(rnn_tanh_step_tile, CellStepTile) \
  X(rnn_relu_step_tile, CellStepTile)

#define FASTLSTM_KERNELS(X)                      \
  FASTLSTM_PANEL_KERNELS(X)                      \
  X(exp_values, MapValues)                       \
  X(log_values, MapValues)                       \
  X(sigmoid_values, MapValues)                   \
  X(tanh_values, MapValues)                      \
  X(transpose_rows, TransposeRows)               \
  X(hash_bytes, HashBytes)                       \
  X(add_outer_products, AddOuterProducts)        \
  X(lstm_step_backward, CellStepBackward)        \
  X(normalise_sums, NormaliseSums)               \
  X(lstm_norm_gates, LstmNormStep)               \
  X(lstm_norm_hidden, LstmNormStep)              \
  X(lstm_norm_backward, CellStepBackward)        \
  X(gru_step_backward, CellStepBackward)         \
  X(gru_reset, GruHalfStep)                      \
  X(gru_candidate, GruHalfStep)                  \
  X(gru_candidate_backward, GruHalfStepBackward) \
  X(gru_reset_backward, GruHalfStepBackward)     \
  X(rnn_tanh_step_backward, CellStepBackward)    \
  X(rnn_relu_step_backward, CellStepBackward)    \
  X(activate_gates, ActivateGates)               \
  X(add_column_sums, AddColumnSums)              \
  X(dropout_row, DropoutRow)                     \
  X(bernoulli_row, BernoulliRow)                 \
  X(sum_squares, SumSquares)                     \
  X(scale_values, ScaleValues)                   \
  X(adam_step, AdamStep)                         \
  X(softmax_row, SoftmaxRow)                     \
  X(crf_step, CrfStep)                           \
  X(crf_step_backward, CrfStepBackward)          \
  X(crf_best_step, CrfBestStep)                  \
  X(ctc_step, CtcStep)                           \
  X(ctc_step_backward, CtcStepBackward)

namespace fastlstm {

#define FASTLSTM_FIELD(name, Arguments) void (*name)(const Arguments<T>&) noexcept;
template <class T>
struct KernelTable {
  Index lanes;          // units in a block of a panel
  bool projects_ahead;  // whether the steps take CellStepTile::ahead
  FASTLSTM_KERNELS(FASTLSTM_FIELD)
};

/// Those of one arithmetic.
template <class T>
struct PanelKernels {
  FASTLSTM_PANEL_KERNELS(FASTLSTM_FIELD)
};
#undef FASTLSTM_FIELD

}  // namespace fastlstm

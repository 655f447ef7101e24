// The kernels that multiply with panels, and their table for one arithmetic. A target whose CPUs
// have instructions for it alone includes this, as kernels/target.hpp is included by others.
#pragma once

#include "kernels/gru_step.hpp"
#include "kernels/list.hpp"
#include "kernels/lstm_step_tile.hpp"
#include "kernels/project_rows.hpp"
#include "kernels/rnn_step.hpp"

#define FASTLSTM_PANEL_ENTRY(name, Arguments) name<float, Weights>,

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class Weights>
constexpr PanelKernels<float> kPanelKernels = {FASTLSTM_PANEL_KERNELS(FASTLSTM_PANEL_ENTRY)};

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

#undef FASTLSTM_PANEL_ENTRY

/// The table of a way to read and multiply weights (kernels/stored_weights.hpp).
#define FASTLSTM_PANEL_TABLE(table, Weights) \
  extern const PanelKernels<float> table;    \
  const PanelKernels<float> table = kPanelKernels<Weights>;

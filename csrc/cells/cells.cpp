#include "cells/cells.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cells/steps.hpp"

namespace fastlstm {

void check_config(const StackConfig& c) {
  // BLAS counts in 32-bit integers, and a row of all gates is the longest thing that it sees.
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 8;
  const auto in_range = [](Index n, Index least) { return least <= n && n <= kMost; };
  const auto is_probability = [](double p) { return 0 <= p && p <= 1; };  // not NaN
  const bool projects = c.proj_size > 0;
  if (!in_range(c.input_size, 1) || !in_range(c.hidden_size, 1) || !in_range(c.num_layers, 1) ||
      !in_range(c.proj_size, 0) || (projects && c.proj_size >= c.hidden_size) ||
      (c.cell != CellKind::kLstm && (projects || c.options.input_forget || c.options.peepholes ||
                                     c.options.layer_norm || c.options.zoneout_c > 0)) ||
      (c.options.layer_norm &&
       (!c.options.usual_functions() || c.options.input_forget || c.options.peepholes)) ||
      !(c.options.clip >= 0) || !is_probability(c.options.zoneout_h) ||
      !is_probability(c.options.zoneout_c) || (c.bidirectional && c.reverse) ||
      (c.merge != Merge::kConcat && !c.bidirectional) ||
      (c.arithmetic == Arithmetic::kInt8 &&
       std::max({c.widest_input(), c.hidden_size, c.output_size()}) > kMostInt8Inputs)) {
    throw std::invalid_argument("StackConfig: a size or an option is out of range");
  }
}

template <class T>
std::unique_ptr<Cell<T>> make_cell(const StackConfig& config) {
  switch (config.cell) {
    case CellKind::kGru:
      return make_gru<T>(config);
    case CellKind::kGruResetBefore:
      return make_gru_reset_before<T>(config);
    case CellKind::kRnnTanh:
    case CellKind::kRnnRelu:
      return make_rnn<T>(config);
    case CellKind::kLstm:
    default:
      return config.options.layer_norm ? make_lstm_norm<T>(config) : make_lstm<T>(config);
  }
}

template <class T>
void Cell<T>::activate(const CellWeights<T>& w, Index rows, const T*, T* gates) const {
  const StepOptions<T> options = step_options<T>(config_.options);
  kernels<T>().activate_gates({rows, config_.gates(), w.H, saved_gates() * w.H, gates, &options});
}

#define FASTLSTM_INSTANTIATE(T)                                    \
  template std::unique_ptr<Cell<T>> make_cell(const StackConfig&); \
  template class Cell<T>;
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

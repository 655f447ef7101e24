#include "cells/cells.hpp"

#include "cells/steps.hpp"

namespace fastlstm {

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

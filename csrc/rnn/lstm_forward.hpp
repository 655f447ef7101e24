// The two ways through a stack of layers: on BLAS and on tile kernels.
#pragma once

#include "fastlstm/lstm.hpp"
#include "rnn/lstm_saved.hpp"
#include "rnn/row_schedule.hpp"

namespace fastlstm {

/// saved: what a training call keeps, and its input, packed; null in inference.
template <class T>
void forward_on_blas(const Lstm<T>& lstm, const LstmForward<T>& call, const RowSchedule& rows,
                     LstmSaved<T>* saved);
template <class T>
void forward_on_tiles(const Lstm<T>& lstm, const LstmForward<T>& call, const RowSchedule& rows,
                      LstmSaved<T>* saved);

}  // namespace fastlstm

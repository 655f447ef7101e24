// The two ways through a stack of layers: on BLAS and on tile kernels.
#pragma once

#include "fastlstm/stack.hpp"
#include "rnn/row_schedule.hpp"
#include "rnn/saved.hpp"

namespace fastlstm {

/// The forward pass in the way that suits the active target. saved: what a training call keeps;
/// null in inference. In training call.x.data may be null, where the input is saved already, and
/// call.output.data.
template <class T>
void forward_layers(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                    Saved<T>* saved);

template <class T>
void forward_on_blas(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                     Saved<T>* saved);
template <class T>
void forward_on_tiles(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                      Saved<T>* saved);

}  // namespace fastlstm

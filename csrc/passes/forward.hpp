// The forward pass of all layers.
#pragma once

#include "passes/saved.hpp"

namespace fastlstm {

/// saved: what a training call keeps; null in inference. In training call.x.data may be null, where
/// the input is saved already, and call.output.data.
template <class T>
void forward_layers(const Layers<T>& layers, const ForwardCall<T>& call, const RowSchedule& rows,
                    Saved<T>* saved);

/// The most that it takes at one time, besides what it saves.
template <class T>
Count forward_bytes(const Layers<T>& layers, const RowSchedule& rows,
                    const Regularisation& regularisation);

}  // namespace fastlstm

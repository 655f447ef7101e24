// The forward pass of all layers.
#pragma once

#include "passes/saved.hpp"

namespace fastlstm {

/// Whether the layers take turns in time: with one direction and nothing to do between layers.
/// Otherwise a layer needs all of the one below before it can start.
inline bool layers_alternate(const StackConfig& config, bool drops) {
  return config.directions() == 1 && !drops;
}

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

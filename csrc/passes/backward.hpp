// The backward pass of all layers (passes/tape.cpp).
#pragma once

#include "passes/layers.hpp"
#include "runtime/room.hpp"

namespace fastlstm {

/// The most that it takes at one time besides the pass of a direction: gradients between layers, of
/// states, and copies of the caller's sequences, of `at_once` rows, unless these are used in place.
template <class T>
Count bytes_between_layers(const Layers<T>& layers, const RowSchedule& rows,
                           const Regularisation& regularisation, bool in_place, Index at_once);

}  // namespace fastlstm

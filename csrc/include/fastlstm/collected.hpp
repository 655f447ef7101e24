// Gradients of a single cell's weights, from backward passes of single steps: those of a loop over
// a cell, which autograd goes through step by step.
#pragma once

#include <memory>

#include "fastlstm/stack.hpp"

namespace fastlstm {

/// Takes from one backward pass after another (BackwardCall::collected) the rows whose products are
/// the gradients of W and R, and multiplies many of them at once, as a pass over a sequence does.
/// For one thread at a time.
template <class T>
class CollectedGradients {
 public:
  /// d: added to by the passes and by finish; null ones are not computed.
  /// Throws std::invalid_argument for more than one cell, and for one that has other parameters
  /// than the weights and biases of its gates.
  CollectedGradients(const StackConfig& config, const CellParams<T>& d);
  CollectedGradients(CollectedGradients&&) noexcept;
  ~CollectedGradients();

  /// Adds to `d` what has not been added yet.
  void finish();

  struct State;
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace fastlstm

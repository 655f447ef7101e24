// Stacks of parameters that lie in somebody else's memory, where they may change at any time: of
// PyTorch's modules, whose optimisers write in place.
#pragma once

#include <cstdint>
#include <memory>

#include "fastlstm/stack.hpp"

namespace fastlstm {

/// Gives stacks of the values that the memory has at the time of each call. Where nothing has
/// changed since the last one, it gives the same stack again.
template <class T>
class BorrowedParams {
 public:
  /// Throws std::invalid_argument where the configuration makes no sense.
  explicit BorrowedParams(const StackConfig& config);
  BorrowedParams(BorrowedParams&&) noexcept;
  ~BorrowedParams();

  /// params: [L * D], read during the call only. version: a number that changes when somebody who
  /// counts writes to them; negative: nobody does.
  ///
  /// Other addresses or another version than in the last call mean other values, which are packed.
  /// Otherwise a hash of all bytes finds the writes that nobody counted. Stacks that were given
  /// out never change; those that nobody holds any more leave their memory to the next. Several
  /// threads may call it at the same time.
  Stack<T> stack(const CellParams<const T>* params, std::int64_t version);

  /// Whether the values at the same addresses, of the same version, are taken to be the same,
  /// without a look.
  bool frozen() const;
  void set_frozen(bool frozen);

  const StackConfig& config() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastlstm

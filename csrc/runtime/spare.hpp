// Memory that one object leaves for the next of its kind.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "runtime/buffer.hpp"

namespace fastlstm {

/// Arrays that whoever had them last has left, for the next to take over. Fresh memory is slow
/// where a machine takes back what is free, as some virtual ones do: LSTM of 2 layers, T = 2000, B
/// = 8, H = 256, 704 ms for a training call, and 900 where a second had passed since the last one.
///
/// Without a lock, which a fork could leave taken: whoever takes the arrays has them alone.
template <class Arrays>
class Spare {
 public:
  static constexpr Index kMostBytes = Index{256} << 20;

  Spare() = default;
  ~Spare() { delete arrays_.load(); }
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;

  /// What is there, or empty arrays.
  std::unique_ptr<Arrays> take() {
    std::unique_ptr<Arrays> arrays(arrays_.exchange(nullptr));
    return arrays != nullptr ? std::move(arrays) : std::make_unique<Arrays>();
  }
  /// Releases what was there; and the arrays, where they are too large to be kept.
  void put(std::unique_ptr<Arrays> arrays) noexcept {
    if (arrays->bytes() > kMostBytes) arrays = nullptr;
    delete arrays_.exchange(arrays.release());
  }

 private:
  std::atomic<Arrays*> arrays_{nullptr};
};

/// Lets the owner of arrays leave them at its end; with null, they are released.
template <class Arrays>
struct LeaveFor {
  std::shared_ptr<Spare<Arrays>> spare;

  void operator()(Arrays* arrays) const noexcept {
    std::unique_ptr<Arrays> left(arrays);
    if (spare != nullptr) spare->put(std::move(left));
  }
};

}  // namespace fastlstm

// Objects that stay where they were made.
#pragma once

#include <cassert>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// Up to so many objects, one after another in memory that has room for just these: for what cannot
/// move, as others have its address. Without objects it has no memory.
///
/// A std::deque keeps them in place, too, but takes as much memory as its library likes:
/// libstdc++'s 568 bytes for no barrier at all, libc++'s room for 16 objects, or 4 KB of small
/// ones; 14 KB for a call through two layers on one thread, where these take 1.
template <class T>
class FixedVector {
 public:
  explicit FixedVector(Index most)
      : most_(static_cast<std::size_t>(most)),
        objects_(most > 0 ? std::allocator<T>().allocate(most_) : nullptr) {}
  ~FixedVector() {
    while (size_ > 0) objects_[--size_].~T();
    if (most_ > 0) std::allocator<T>().deallocate(objects_, most_);
  }
  FixedVector(const FixedVector&) = delete;
  FixedVector& operator=(const FixedVector&) = delete;

  template <class... Arguments>
  T& emplace_back(Arguments&&... arguments) {
    assert(!full());
    T* const made =
        ::new (static_cast<void*>(objects_ + size_)) T(std::forward<Arguments>(arguments)...);
    ++size_;
    return *made;
  }

  bool full() const { return size_ == most_; }
  std::size_t size() const { return size_; }
  T* begin() { return objects_; }
  const T* begin() const { return objects_; }
  T* end() { return objects_ + size_; }
  const T* end() const { return objects_ + size_; }
  T& operator[](std::size_t i) { return objects_[i]; }
  const T& operator[](std::size_t i) const { return objects_[i]; }
  T& front() { return objects_[0]; }
  T& back() { return objects_[size_ - 1]; }

 private:
  const std::size_t most_;
  T* const objects_;
  std::size_t size_ = 0;
};

}  // namespace fastlstm

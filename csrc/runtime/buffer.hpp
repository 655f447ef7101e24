// Aligned memory for weights, states and workspaces.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "fastlstm/types.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

/// to: [n] out; from: the same, or null for zeros.
template <class T>
void copy_or_zero(const T* from, Index n, T* to) {
  if (from != nullptr) {
    std::copy_n(from, n, to);
  } else {
    std::fill_n(to, n, T(0));
  }
}

/// Memory for which prefer_large_pages pays: two of x86's large pages; and that of a call for which
/// keep_released_memory does.
constexpr std::size_t kLargeMemory = std::size_t{4} << 20;
constexpr Index kMemoryToKeep = Index{1} << 20;

/// Memory for a number of elements, aligned to a cache line (and the widest vector).
/// Not initialised. Throws std::bad_alloc, also where the size in bytes does not fit.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index rows, Index columns = 1) { resize(rows, columns); }
  Buffer(Buffer&& other) noexcept
      : memory_(std::move(other.memory_)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    memory_ = std::move(other.memory_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// Drops what was there.
  void resize(Index rows, Index columns = 1) {
    constexpr Index kMost = std::numeric_limits<Index>::max() / static_cast<Index>(sizeof(T));
    if (rows < 0 || columns < 0 || (columns > 0 && rows > kMost / columns)) throw std::bad_alloc();
    const auto bytes = static_cast<std::size_t>(rows * columns) * sizeof(T);
    memory_.reset();  // first: not both at a time
    size_ = 0;
    memory_.reset(static_cast<T*>(::operator new(bytes, kAlignment)));
    size_ = rows * columns;
    if (bytes >= kLargeMemory) prefer_large_pages(memory_.get(), bytes);
  }

  /// As resize, but where there is room enough, nothing changes.
  void reserve(Index rows, Index columns = 1) {
    if (columns > 0 && size_ / columns < rows) resize(rows, columns);
  }

  void fill_zero() {
    if (size_ > 0) std::memset(memory_.get(), 0, static_cast<std::size_t>(size_) * sizeof(T));
  }

  /// Another with the same values.
  Buffer clone() const {
    Buffer other;  // without values, it is null as this is
    if (size_ == 0) return other;
    other.resize(size_);
    std::copy_n(data(), size_, other.data());
    return other;
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  Index size() const { return size_; }
  Index bytes() const { return size_ * static_cast<Index>(sizeof(T)); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<T, Free> memory_;
  Index size_ = 0;
};

/// A value that is made when it is first asked for, from any thread. Who asks while another thread
/// makes it makes another, of which one is kept: no lock that a fork in the meantime or an
/// allocation that fails could leave locked (std::call_once hung after one, seen with
/// ThreadSanitizer).
template <class Value>
class FilledOnce {
 public:
  FilledOnce() = default;
  ~FilledOnce() { delete kept_.load(std::memory_order_relaxed); }
  FilledOnce(const FilledOnce&) = delete;
  FilledOnce& operator=(const FilledOnce&) = delete;

  /// fill: makes the value; may throw, and then nothing has happened.
  template <class Fill>
  const Value& get(Fill fill) {
    Value* kept = kept_.load(std::memory_order_acquire);
    if (kept == nullptr) {
      auto filled = std::make_unique<Value>(fill());
      if (kept_.compare_exchange_strong(kept, filled.get(), std::memory_order_acq_rel)) {
        kept = filled.release();
      }
    }
    return *kept;
  }

 private:
  std::atomic<Value*> kept_{nullptr};
};

}  // namespace fastlstm

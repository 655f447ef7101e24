// Memory that a pass asks for: allocated, or counted for a prediction by the same lines.
#pragma once

#include <algorithm>
#include <new>

#include "fastlstm/types.hpp"
#include "runtime/buffer.hpp"
#include "runtime/compiler.hpp"

namespace fastlstm {

/// A number of values or bytes. What does not fit throws std::bad_alloc: no memory would, either.
class Count {
 public:
  Count(Index n) : n_(n) {}  // NOLINT: a number is one
  Index get() const { return n_; }

  friend Count operator+(Count a, Count b) {
    Index sum = 0;
    if (add_overflows(a.n_, b.n_, &sum)) throw std::bad_alloc();
    return sum;
  }
  friend Count operator*(Count a, Count b) {
    Index product = 0;
    if (multiply_overflows(a.n_, b.n_, &product)) throw std::bad_alloc();
    return product;
  }
  friend Count most(Count a, Count b) { return std::max(a.n_, b.n_); }

 private:
  Index n_;
};

/// Where an object gets its buffers when it is made. It adds all of them in one place, so that a
/// prediction makes the same object with a room that only counts: its buffers are then empty, and
/// nothing of it may be used.
class Room {
 public:
  enum class Use { kAllocates, kCounts };

  explicit Room(Use use = Use::kAllocates) : use_(use) {}

  /// Makes room in a buffer, which is not initialised.
  template <class T>
  void add(Buffer<T>& buffer, Count rows, Count columns = 1) {
    const Count values = rows * columns;
    bytes_ = bytes_ + values * static_cast<Index>(sizeof(T));
    if (!counts() && values.get() > 0) buffer.resize(rows.get(), columns.get());
  }

  bool counts() const { return use_ == Use::kCounts; }
  Count bytes() const { return bytes_; }

 private:
  Use use_;
  Count bytes_ = 0;
};

}  // namespace fastlstm

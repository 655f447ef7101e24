// Lets the caller's world stop a long call (Ctrl-C): between pieces of about a tenth of a second,
// or within the work of several threads.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// Calls what set_interrupt_check gave, at most every 50 ms for each thread. It may throw, and then
/// ends the call. To be called by the calling thread, outside regions.
void check_interrupt();

/// What some threads do together (TeamLease::run). It can end early: who finds it `interrupted`
/// leaves out what is left of the work, but still comes to every barrier.
///
/// What interrupts may fork, and the child lacks the other threads: there, what is in the middle of
/// a region of several threads can only end. So they do not look before the caller's thread has
/// done much (products_before_look) or for long: most regions end before.
class Region {
 public:
  /// threads: that take part, the calling one among them.
  explicit Region(int threads);
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  /// Throws what ended it early, afterwards.
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

  /// A thread's part in it, while it lives.
  class Part {
   public:
    explicit Part(Region& region) noexcept;
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    Region* const before_;  // of a call that is interrupted by a handler, which makes another
  };

 private:
  friend bool interrupted(double products) noexcept;
  friend bool orphaned() noexcept;
  void look() noexcept;

  const int threads_;
  const std::thread::id caller_ = std::this_thread::get_id();
  double products_left_;                           // until the caller looks, or
  std::chrono::steady_clock::time_point since_{};  // since when it has not, once it has been asked
  std::atomic<bool> ended_{false};
  std::atomic<bool> orphaned_{false};
  std::exception_ptr error_;
};

/// Whether the region that this thread takes part in is to end early. To be asked before work of so
/// many multiply-adds, or as long. On the calling thread it calls what set_interrupt_check gave now
/// and then, as check_interrupt does.
bool interrupted(double products) noexcept;

/// The same before so many values are copied, or as much is done with them.
inline bool interrupted_before(Index values) noexcept {
  constexpr Index kNotWorthAsking = 1 << 12;
  constexpr double kProductsPerValue = 32;  // as long as a value takes that comes from afar
  return values >= kNotWorthAsking && interrupted(kProductsPerValue * static_cast<double>(values));
}

/// The same for loops over many items, of which each may be small.
class SmallItems {
 public:
  bool interrupted_before(Index values) noexcept {
    constexpr Index kMost = 1 << 18;
    values_ += values;
    return values_ >= kMost && fastlstm::interrupted_before(std::exchange(values_, 0));
  }

 private:
  Index values_ = 0;
};

/// Runs body on this thread alone as a region. Throws what interrupted it.
template <class Body>
void in_region(const Body& body) {
  Region region(1);
  const Region::Part part(region);
  body();
  region.rethrow();
}

/// Whether this process is a fork from the middle of this thread's region: others come no more.
bool orphaned() noexcept;

}  // namespace fastlstm

// Threads that wait for each other, thousands of times a second.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>

namespace fastlstm {

/// Spins for the first few times it is called, then lets other threads have the CPU, then sleeps.
class Backoff {
 public:
  void pause() noexcept;
  /// What the next pause is.
  bool spins() const noexcept;
  bool naps() const noexcept;
  /// How often pause was called, up to some thousands.
  int count() const noexcept { return count_; }

 private:
  int count_ = 0;
};

/// Lets a fixed number of threads wait for each other: no system calls while they arrive close
/// together, and no word that several write. Each thread has a cache line of its own, where it
/// says how often it has come. Few threads read each other's; many come to the first of their
/// group, those to the first of all, and the news that all are there takes the same way back. Who
/// waits reads a line that stays in his cache until it is written.
class SpinBarrier {
 public:
  explicit SpinBarrier(int size) : SpinBarrier(size, size) {}
  /// For up to `most` threads: set_size changes their number without an allocation.
  SpinBarrier(int size, int most);

  /// To be called while no thread waits.
  void set_size(int size) noexcept;
  /// Thread `rank` of them, 0 <= rank < size.
  void wait(int rank) noexcept;
  /// The same for threads that arrive within microseconds of each other, if each has a CPU. Notices
  /// when one has not (runtime/crowding.hpp).
  void wait_briefly(int rank) noexcept;

  /// So many threads look at each other directly: one way of a cache line instead of two.
  static constexpr int kMostInACircle = 4;
  static constexpr int kGroup = 8;

 private:
  struct alignas(128) Place {  // two lines: they are fetched in pairs
    std::atomic<unsigned> arrived{0};
    std::atomic<unsigned> gathered{0};  // of the first of a group: all of it have arrived
    // Of its CPU, to others, while it waited: since it last was as much as a wait that is not
    // brief.
    std::chrono::steady_clock::duration given_away{};
  };
  struct alignas(128) Release {
    std::atomic<unsigned> phase{0};
  };
  class Patience;
  Place& place(int rank) noexcept { return places_[static_cast<std::size_t>(rank)]; }
  void meet(int rank, Patience* patience) noexcept;
  /// Waits until `word` has come to the phase.
  static void await(const std::atomic<unsigned>& word, unsigned phase, Patience* patience) noexcept;

  int size_;
  const int most_;
  const std::unique_ptr<Place[]> places_;      // [most]
  const std::unique_ptr<Release[]> releases_;  // by group
};

}  // namespace fastlstm

// How many threads have CPUs to themselves, by what calls have shown.
//
// Threads that meet at every step lose more by waiting for one that another process keeps from its
// CPU than that one gains them. Such a thread is late by a time slice, milliseconds; or two have
// one CPU, which they give to each other at every step. Threads that have a part of the work each
// never meet, but the call ends when the last of them does. As many as were held up are then given
// up, for a time in proportion to what was lost; after it they are tried again. Where they are held
// up again soon, the time doubles.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace fastlstm {

/// How many threads may meet at each step now: at most `wanted`, at least 1.
int threads_that_may_meet(int wanted) noexcept;
/// How many may have a part of a call each, whether they meet or not.
int threads_that_may_share(int wanted) noexcept;

/// Of `threads` that met, `late` had not come when it was no longer brief, and the others have
/// waited so long.
void note_late_threads(int threads, int late, std::chrono::steady_clock::duration waited) noexcept;

/// Forgets all of it: for tests.
void forget_late_threads() noexcept;

/// Looks at the CPU time that the threads of a region get, each with a part of its work, and notes
/// where fewer would have been faster.
class CpuWatch {
 public:
  /// on: false: does nothing.
  explicit CpuWatch(bool on) noexcept;

  /// What one thread does, while it lives.
  class Part {
   public:
    explicit Part(CpuWatch& watch) noexcept;
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    CpuWatch& watch_;
    std::chrono::nanoseconds cpu_{};
  };

  /// After the region.
  void end() noexcept;

  /// Of a thread of the region, what it took from its beginning, and for how much of that it had a
  /// CPU.
  void note(std::chrono::nanoseconds all, std::chrono::nanoseconds cpu) noexcept;

 private:
  static constexpr int kSteps = 16;
  const bool on_;
  const std::chrono::steady_clock::time_point start_;
  std::array<std::atomic<int>, kSteps> threads_by_part_{};  // of the time, in so many steps
  std::atomic<std::int64_t> lost_{0};                       // ns, of the thread that lost most
};

}  // namespace fastlstm

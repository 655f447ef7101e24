// How many threads have CPUs to themselves, by what calls have shown.
//
// Threads that meet at every step lose more by waiting for one that another process keeps from its
// CPU than that one gains them. Such a thread is late by a time slice, milliseconds; or two have
// one CPU, which they give to each other at every step. Threads with equal shares of a call's rows
// never meet, but the call ends when the last of them does. As many as were held up are then given
// up, for a time in proportion to what was lost; after it they are tried again. Where they are held
// up again soon, the time doubles.
#pragma once

#include <chrono>
#include <vector>

namespace fastlstm {

/// How many threads may meet at each step now: at most `wanted`, at least 1.
int threads_that_may_meet(int wanted) noexcept;
/// How many may have equal shares of a call, whether they meet or not.
int threads_that_may_share(int wanted) noexcept;

/// Of `threads` that met, `late` had not come when it was no longer brief, and the others have
/// waited so long.
void note_late_threads(int threads, int late, std::chrono::steady_clock::duration waited) noexcept;

/// Of threads with equal shares of a call, what part of the time each had its CPU, and how long the
/// slowest was without: fewer would have been faster, or not.
/// Sorts the parts.
void note_cpu_parts(std::vector<double>& parts, std::chrono::steady_clock::duration lost) noexcept;

/// Forgets all of it: for tests.
void forget_late_threads() noexcept;

/// Looks at what CPU time the threads of a region get that have equal shares of it.
class CpuWatch {
 public:
  /// 0 threads: does nothing.
  explicit CpuWatch(int threads);

  /// What one thread does, while it lives.
  class Part {
   public:
    Part(CpuWatch& watch, int rank) noexcept;
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    CpuWatch& watch_;
    const int rank_;
    std::chrono::nanoseconds cpu_{};
  };

  /// After the region: notes what was seen.
  void end() noexcept;

 private:
  struct alignas(64) Times {
    std::chrono::steady_clock::duration all{};
    std::chrono::nanoseconds cpu{};
  };
  bool on() const noexcept { return !times_.empty(); }

  const std::chrono::steady_clock::time_point start_;
  std::vector<Times> times_;  // by rank
  std::vector<double> parts_;
};

}  // namespace fastlstm

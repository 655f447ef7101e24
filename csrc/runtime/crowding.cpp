#include "runtime/crowding.hpp"

#include <algorithm>
#include <atomic>

#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

using Clock = std::chrono::steady_clock;

// Several threads may write these at the same time; what is lost then matters little.
std::atomic<int> g_most{0};             // that may meet, until
std::atomic<Clock::rep> g_until{0};     // this; 0: none was ever late
std::atomic<Clock::rep> g_given_up{0};  // since when
std::atomic<int> g_times{0};            // as long as was waited

}  // namespace

int threads_that_may_meet(int wanted) noexcept {
  const Clock::rep until = g_until.load(std::memory_order_relaxed);
  if (until == 0 || Clock::now().time_since_epoch().count() >= until) return wanted;
  return std::clamp(g_most.load(std::memory_order_relaxed), 1, wanted);
}

void note_late_threads(int threads, int late, Clock::duration waited) noexcept {
  const Clock::time_point now = Clock::now();
  const Clock::time_point until{Clock::duration{g_until.load(std::memory_order_relaxed)}};
  const Clock::time_point given_up{Clock::duration{g_given_up.load(std::memory_order_relaxed)}};
  const bool known = now < until;  // in a call that began before, or with fewer threads
  int times = g_times.load(std::memory_order_relaxed), most = threads - late;
  if (known) {
    most = std::min(most, g_most.load(std::memory_order_relaxed));
  } else {
    const bool soon = now - until < until - given_up;
    const int least = tuned<int>(&Tuning::crowd_factor);
    times = soon ? std::min(2 * times, tuned<int>(&Tuning::crowd_most_factor)) : least;
    g_given_up.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }
  const Clock::time_point longest = now + tuned<std::chrono::milliseconds>(&Tuning::crowd_most_ms);
  const Clock::time_point end = std::min(std::max(now, until) + times * waited, longest);
  g_most.store(most, std::memory_order_relaxed);
  g_times.store(times, std::memory_order_relaxed);
  g_until.store(end.time_since_epoch().count(), std::memory_order_relaxed);
}

void forget_late_threads() noexcept { g_until.store(0, std::memory_order_relaxed); }

}  // namespace fastlstm

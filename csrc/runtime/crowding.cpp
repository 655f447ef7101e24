#include "runtime/crowding.hpp"

#include <algorithm>
#include <atomic>

#include "runtime/system.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

using Clock = std::chrono::steady_clock;

/// Fewer threads have to gain that much by having their CPUs.
constexpr double kWorthFewerThreads = 1.1;

/// How many threads may do something, for a while. Several threads may write it at the same time;
/// what is lost then matters little.
class Limit {
 public:
  int of(int wanted) const noexcept {
    const Clock::rep until = until_.load(std::memory_order_relaxed);
    if (until == 0 || Clock::now().time_since_epoch().count() >= until) return wanted;
    return std::clamp(most_.load(std::memory_order_relaxed), 1, wanted);
  }

  /// To so many, as so much time was lost by more.
  void lower(int most, Clock::duration lost) noexcept {
    const Clock::time_point now = Clock::now();
    const Clock::time_point until{Clock::duration{until_.load(std::memory_order_relaxed)}};
    const Clock::time_point lowered{Clock::duration{lowered_.load(std::memory_order_relaxed)}};
    const bool known = now < until;  // in a call that began before, or with fewer threads
    int times = times_.load(std::memory_order_relaxed);
    if (known) {
      most = std::min(most, most_.load(std::memory_order_relaxed));
    } else {
      const bool soon = now - until < until - lowered;
      const int least = tuned<int>(&Tuning::crowd_factor);
      times = soon ? std::min(2 * times, tuned<int>(&Tuning::crowd_most_factor)) : least;
      lowered_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    }
    const Clock::time_point longest =
        now + tuned<std::chrono::milliseconds>(&Tuning::crowd_most_ms);
    const Clock::time_point end = std::min(std::max(now, until) + times * lost, longest);
    most_.store(most, std::memory_order_relaxed);
    times_.store(times, std::memory_order_relaxed);
    until_.store(end.time_since_epoch().count(), std::memory_order_relaxed);
  }

  void forget() noexcept { until_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<int> most_{0};            // until
  std::atomic<Clock::rep> until_{0};    // this; 0: never lowered
  std::atomic<Clock::rep> lowered_{0};  // since when
  std::atomic<int> times_{0};           // as long as was lost
};

Limit g_meeting, g_sharing;

}  // namespace

int threads_that_may_meet(int wanted) noexcept { return g_meeting.of(wanted); }

int threads_that_may_share(int wanted) noexcept { return g_sharing.of(wanted); }

void note_late_threads(int threads, int late, Clock::duration waited) noexcept {
  g_meeting.lower(threads - late, waited);
}

void forget_late_threads() noexcept {
  g_meeting.forget();
  g_sharing.forget();
}

CpuWatch::CpuWatch(bool on) noexcept : on_(on), start_(on ? Clock::now() : Clock::time_point{}) {}

CpuWatch::Part::Part(CpuWatch& watch) noexcept : watch_(watch) {
  if (watch_.on_) cpu_ = thread_cpu_time();
}

CpuWatch::Part::~Part() {
  if (watch_.on_) watch_.note(Clock::now() - watch_.start_, thread_cpu_time() - cpu_);
}

void CpuWatch::note(std::chrono::nanoseconds all, std::chrono::nanoseconds cpu) noexcept {
  if (cpu <= std::chrono::nanoseconds::zero()) return;  // the system does not say
  const double part = std::chrono::duration<double>(cpu) / all;
  const int step = std::clamp(static_cast<int>(kSteps * part), 0, kSteps - 1);
  threads_by_part_[static_cast<std::size_t>(step)].fetch_add(1);
  const std::int64_t lost = (all - cpu).count();
  for (std::int64_t most = lost_.load(); lost > most && !lost_.compare_exchange_weak(most, lost);) {
  }
}

void CpuWatch::end() noexcept {
  const std::chrono::nanoseconds lost(lost_.load());
  if (lost < tuned<std::chrono::microseconds>(&Tuning::not_brief_us)) return;
  // n threads with as much to do each are n times as fast as the slowest.
  int threads = 0, most = 0;
  double best = 0, speed = 0;
  for (int step = kSteps - 1; step >= 0; --step) {
    const int some = threads_by_part_[static_cast<std::size_t>(step)].load();
    if (some == 0) continue;
    threads += some;
    speed = threads * (step + 0.5) / kSteps;
    if (speed <= best) continue;
    best = speed;
    most = threads;
  }
  if (best > kWorthFewerThreads * speed) g_sharing.lower(most, lost);
}

}  // namespace fastlstm

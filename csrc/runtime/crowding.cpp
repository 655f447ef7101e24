#include "runtime/crowding.hpp"

#include <algorithm>
#include <atomic>
#include <functional>

#include "runtime/system.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

using Clock = std::chrono::steady_clock;

/// Fewer threads with equal shares have to gain that much by having their CPUs.
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

void note_cpu_parts(std::vector<double>& parts, Clock::duration lost) noexcept {
  if (lost < tuned<std::chrono::microseconds>(&Tuning::not_brief_us)) return;
  std::sort(parts.begin(), parts.end(), std::greater<>());
  // The speed of n threads with equal shares is n times that of the slowest.
  const double now = static_cast<double>(parts.size()) * parts.back();
  double best = kWorthFewerThreads * now;
  int most = 0;
  for (std::size_t n = 1; n < parts.size(); ++n) {
    const double speed = static_cast<double>(n) * parts[n - 1];
    if (speed <= best) continue;
    best = speed;
    most = static_cast<int>(n);
  }
  if (most > 0) g_sharing.lower(most, lost);
}

void forget_late_threads() noexcept {
  g_meeting.forget();
  g_sharing.forget();
}

CpuWatch::CpuWatch(int threads)
    : start_(threads > 0 ? Clock::now() : Clock::time_point{}),
      times_(static_cast<std::size_t>(threads)),
      parts_(times_.size()) {}

CpuWatch::Part::Part(CpuWatch& watch, int rank) noexcept : watch_(watch), rank_(rank) {
  if (watch_.on()) cpu_ = thread_cpu_time();
}

CpuWatch::Part::~Part() {
  if (!watch_.on()) return;
  watch_.times_[static_cast<std::size_t>(rank_)] = {Clock::now() - watch_.start_,
                                                    thread_cpu_time() - cpu_};
}

void CpuWatch::end() noexcept {
  if (!on()) return;
  Clock::duration lost{};
  for (std::size_t rank = 0; rank < times_.size(); ++rank) {
    const auto [all, cpu] = times_[rank];
    if (cpu <= std::chrono::nanoseconds::zero()) return;  // the system does not say
    parts_[rank] = std::min(1.0, std::chrono::duration<double>(cpu) / all);
    lost = std::max(lost, all - std::chrono::duration_cast<Clock::duration>(cpu));
  }
  note_cpu_parts(parts_, lost);
}

}  // namespace fastlstm

// How long threads take to meet, by their number.
//
//   meeting_benchmark [SECONDS]     of each measurement, default 0.2; prints JSON
//
// Of 2 to 64 threads, but no more than there are CPUs: "ns" of a meeting at which all arrive at
// once, "counter_ns" of one by a single counter that all write, and "region_ns" from the beginning
// of a region of so many threads that still spin to its end.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "fastlstm/runtime.hpp"
#include "runtime/spin_barrier.hpp"
#include "runtime/thread_team.hpp"

namespace {

using namespace fastlstm;

/// What the barrier is compared with: the last to come sets the counter back and says so.
class CounterBarrier {
 public:
  explicit CounterBarrier(int size) : size_(size) {}
  void wait(int) noexcept {
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (Backoff backoff; phase_.load(std::memory_order_acquire) == phase;) backoff.pause();
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  std::atomic<unsigned> phase_{0};
  const int size_;
};

/// Nanoseconds of one of `n` things that body(n) does: the shortest of some measurements.
template <class Body>
double shortest_time(double seconds, Body body) {
  using Clock = std::chrono::steady_clock;
  constexpr int kTogether = 1000;
  double shortest = 1e300;
  const Clock::time_point end =
      Clock::now() + std::chrono::nanoseconds(static_cast<long>(1e9 * seconds));
  do {
    const Clock::time_point start = Clock::now();
    body(kTogether);
    const std::chrono::duration<double, std::nano> taken = Clock::now() - start;
    shortest = std::min(shortest, taken.count() / kTogether);
  } while (Clock::now() < end);
  return shortest;
}

template <class Barrier>
double meeting(double seconds, int threads) {
  TeamLease team(threads);
  Barrier barrier(threads);
  return shortest_time(seconds, [&](int n) {
    team.run([&](int rank) noexcept {
      for (int k = 0; k < n; ++k) barrier.wait(rank);
    });
  });
}

double region(double seconds, int threads) {
  TeamLease team(threads);
  return shortest_time(seconds, [&](int n) {
    for (int k = 0; k < n; ++k) team.run([](int) noexcept {});
  });
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.2;
  if (argc > 2 || seconds < 0) {
    std::fprintf(stderr, "usage: %s [SECONDS]\n", argv[0]);
    return 2;
  }
  const char* separator = "[";
  for (const int threads : {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {
    if (threads > std::max(2, usable_cpus())) break;
    std::printf("%s{\"threads\": %d, \"ns\": %.4g, \"counter_ns\": %.4g, \"region_ns\": %.4g}",
                separator, threads, meeting<SpinBarrier>(seconds, threads),
                meeting<CounterBarrier>(seconds, threads), region(seconds, threads));
    separator = ",\n ";
  }
  std::printf("]\n");
  return 0;
}

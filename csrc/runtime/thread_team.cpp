#include "runtime/thread_team.hpp"

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>

#include "runtime/fp_mode.hpp"
#include "runtime/openmp.hpp"
#include "runtime/system.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

/// A worker's stack. Calls take up to 16 KB of one (tests/cpp/test_small_stacks.cpp), with BLAS
/// less than 32, and several times as much with sanitizers. The system's own may be smaller (musl:
/// 128 KB; ulimit -s).
constexpr std::size_t kWorkerStack = std::size_t{256} << 10;

/// Microseconds of a lease's work from which its threads' CPU time is looked at, which takes half
/// of one.
constexpr double kWatchedUs = 50;

/// Runs body() in a thread of its own. Throws where the system starts no more.
template <class Body>
void start_worker(Body body) {
  auto owned = std::make_unique<Body>(std::move(body));
  const auto start = [](void* given) -> void* {
    (*std::unique_ptr<Body>(static_cast<Body*>(given)))();
    return nullptr;
  };
  start_thread(kWorkerStack, start, owned.get());
  static_cast<void>(owned.release());  // the thread's
}

}  // namespace

/// The workers, which live as long as the process. A region is published by one store: its number
/// and size together, so that a worker that it leaves out never touches what belongs to a later
/// one.
class Team {
 public:
  using RegionBody = TeamLease::RegionBody;

  bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }

  /// Starts workers for regions of n threads. False where the system starts no more: they are
  /// wanted for speed only, and the next call tries again.
  bool grow(int n) noexcept {
    try {
      for (; workers_ < n - 1; ++workers_) {
        start_worker([this, rank = workers_ + 1, seen = region_.load()] { work(rank, seen); });
      }
    } catch (const std::exception&) {
      return false;
    }
    return true;
  }

  void release() { busy_.store(false, std::memory_order_release); }

  void run(int n, RegionBody body, void* context) {
    body_ = body;
    context_ = context;
    unfinished_.store(n - 1, std::memory_order_relaxed);
    {
      // Under the lock, so that a worker about to sleep sees the new region or is woken for it.
      const std::lock_guard<std::mutex> lock(mutex_);
      const std::uint64_t number = region_.load(std::memory_order_relaxed) / kMostSize + 1;
      region_.store(number * kMostSize + static_cast<std::uint64_t>(n), std::memory_order_release);
    }
    if (sleepers_.load(std::memory_order_acquire) > 0) wake_.notify_all();
    body(context, 0);
    for (Backoff backoff; unfinished_.load(std::memory_order_acquire) > 0; backoff.pause()) {
      if (orphaned()) return;
    }
  }

 private:
  void work(int rank, std::uint64_t seen) noexcept {
    const FlushDenormals flush_denormals;  // as calls have it on their own threads
    while (true) {
      seen = wait_for_region(seen);
      if (rank < static_cast<int>(seen % kMostSize)) {
        body_(context_, rank);
        unfinished_.fetch_sub(1, std::memory_order_acq_rel);
      }
    }
  }

  std::uint64_t wait_for_region(std::uint64_t seen) noexcept {
    for (Backoff backoff; backoff.count() < tuned<int>(&Tuning::pauses_before_sleep);
         backoff.pause()) {
      const std::uint64_t region = region_.load(std::memory_order_acquire);
      if (region != seen) return region;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_release);
    wake_.wait(lock, [&] { return region_.load(std::memory_order_acquire) != seen; });
    sleepers_.fetch_sub(1, std::memory_order_release);
    return region_.load(std::memory_order_acquire);
  }

  static constexpr std::uint64_t kMostSize = 1 << 16;

  std::atomic<bool> busy_{false};
  int workers_ = 0;
  RegionBody body_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<std::uint64_t> region_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

namespace {

// Never destroyed: its workers may outlive the statics. After a fork the child has none of them, so
// it gets a new team when it needs one.
std::atomic<Team*> g_team{nullptr};
const int g_fork_handler = at_fork(nullptr, nullptr, [] { g_team.store(nullptr); });

Team& team() {
  Team* team = g_team.load(std::memory_order_acquire);
  if (team == nullptr) {
    auto created = std::make_unique<Team>();
    if (g_team.compare_exchange_strong(team, created.get())) team = created.release();
  }
  return *team;
}

}  // namespace

TeamLease::TeamLease(int n, double products)
    : wanted_(n), watched_(products > n * kWatchedUs * tuning().products_per_us), threads_(1) {
  if (n == 1) return;
  if (openmp_is_at_hand()) {
    on_openmp_ = true;
    threads_ = n;
    return;
  }
  Team& the_team = team();
  if (!the_team.acquire()) return;
  if (!the_team.grow(n)) {
    the_team.release();
    return;
  }
  team_ = &the_team;
  threads_ = n;
}

TeamLease::~TeamLease() {
  if (team_ != nullptr) team_->release();
}

void TeamLease::run(RegionBody body, void* context) {
  if (on_openmp_ && openmp_is_at_hand() && run_on_openmp(threads_, body, context)) return;
  Team& current = team();
  if (team_ != &current) {
    // This is the child of a fork between two regions, in what a signal called, or OpenMP has too
    // few threads. What the call has planned needs all of its threads.
    for (Backoff backoff; !current.acquire();) backoff.pause();
    team_ = &current;
    if (!current.grow(threads_))
      throw std::runtime_error("fastlstm: the system starts no more threads");
  }
  team_->run(threads_, body, context);
}

}  // namespace fastlstm

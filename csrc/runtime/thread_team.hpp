// The thread team: our own workers, and a parallel region over whole pieces of a call.
#pragma once

#include <atomic>

#include "fastlstm/types.hpp"
#include "runtime/crowding.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/spin_barrier.hpp"

namespace fastlstm {

/// The use of n threads, the caller's as rank 0 among them, for as long as it lives. One lease
/// holds the team at a time; a lease for one thread needs no team, nor does one on OpenMP's
/// threads, of which each caller has its own.
class TeamLease {
 public:
  /// products: of all that it is for, which is looked at where it takes long enough
  /// (runtime/crowding.hpp).
  explicit TeamLease(int n, double products = 0);
  ~TeamLease();
  TeamLease(const TeamLease&) = delete;
  TeamLease& operator=(const TeamLease&) = delete;

  /// False when another lease has the team, or the system starts no more threads: run then uses the
  /// caller's thread alone.
  bool granted() const { return threads_ == wanted_; }
  int threads() const { return threads_; }

  /// Runs body(rank) on each thread, and returns when all are done. body must not throw. Throws
  /// what interrupted it (Region).
  template <class Body>
  void run(const Body& body) {
    if (threads_ == 1) {
      in_region([&] { body(0); });
      return;
    }
    Region region(threads_);
    const Region::Part part(region);
    const auto on_thread = [&](int rank) noexcept {
      const Region::Part its_part(region);
      body(rank);
    };
    const RegionBody call = [](void* context, int rank) noexcept {
      (*static_cast<const decltype(on_thread)*>(context))(rank);
    };
    run(call, const_cast<void*>(static_cast<const void*>(&on_thread)));
    region.rethrow();
  }

  /// The same where the threads do not meet.
  template <class Body>
  void run_parts(const Body& body) {
    CpuWatch watch(watched_ && threads_ > 1);
    run([&](int rank) noexcept {
      const CpuWatch::Part part(watch);
      body(rank);
    });
    watch.end();
  }

  /// Runs task(k, rank) for 0 <= k < n, each on whichever thread is free. task must not throw.
  template <class Task>
  void run_tasks(Index n, const Task& task) {
    std::atomic<Index> next{0};
    run_parts([&](int rank) noexcept {
      for (Index k; (k = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(k, rank);
    });
  }

 private:
  using RegionBody = void (*)(void* context, int rank) noexcept;
  friend class Team;
  void run(RegionBody body, void* context);

  const int wanted_;
  const bool watched_;
  int threads_;
  bool on_openmp_ = false;
  class Team* team_ = nullptr;
};

}  // namespace fastlstm

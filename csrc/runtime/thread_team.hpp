// The thread team: our own workers, one parallel region per call.
#pragma once

#include <atomic>

namespace fastlstm {

/// Lets a fixed number of threads wait for each other; one cache line, no system calls while they
/// arrive close together.
class SpinBarrier {
 public:
  explicit SpinBarrier(int size) : size_(size) {}
  void wait() noexcept;

 private:
  alignas(64) std::atomic<int> arrived_{0};
  std::atomic<unsigned> phase_{0};
  const int size_;
};

/// Spins a little longer each time it is called, and then lets other threads have the CPU.
class Backoff {
 public:
  void pause() noexcept;
  /// How often pause was called.
  int count() const noexcept { return count_; }

 private:
  int count_ = 0;
};

/// What a region runs: body(context, rank) on each thread.
using RegionBody = void (*)(void* context, int rank) noexcept;

/// Runs body on n threads, the caller's as rank 0, and returns when all are done. False, with
/// nothing run, when another call has the team: the caller then goes on with its own thread alone.
/// Throws std::system_error when workers cannot be started.
bool run_on_team(int n, RegionBody body, void* context);

/// The same for a callable that takes the rank and must not throw; n == 1 needs no team.
template <class Body>
bool run_on_team(int n, const Body& body) {
  if (n == 1) {
    body(0);
    return true;
  }
  const RegionBody call = [](void* context, int rank) noexcept {
    (*static_cast<const Body*>(context))(rank);
  };
  return run_on_team(n, call, const_cast<Body*>(&body));
}

}  // namespace fastlstm

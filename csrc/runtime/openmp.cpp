#include "runtime/openmp.hpp"

#include <atomic>
#include <csetjmp>

#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

namespace {

OpenMp g_openmp;
std::atomic<bool> g_usable{false};
thread_local bool t_asked_for = false;

const int g_fork_handler = at_fork(nullptr, nullptr, [] { g_usable.store(false); });

struct Call {
  const int threads;
  void (*const body)(void* context, int rank) noexcept;
  void* const context;
  std::atomic<bool> refused{false};
  std::jmp_buf end{};
};

/// What each of OpenMP's threads does.
void take_part(void* given) {
  Call& call = *static_cast<Call*>(given);
  if (g_openmp.num_threads() < call.threads) {
    call.refused.store(true, std::memory_order_relaxed);
    return;
  }
  const int rank = g_openmp.thread_num();
  if (rank == 0) {
    call.body(call.context, 0);
    // The child of a fork in the middle of the region: OpenMP would wait for threads that are not
    // there. What is jumped over are this function and OpenMP's, which are C.
    if (orphaned()) std::longjmp(call.end, 1);  // NOLINT(cert-err52-cpp)
  } else if (rank < call.threads) {
    const FlushDenormals flush_denormals;  // as calls have it on their own threads
    call.body(call.context, rank);
  }
}

}  // namespace

void set_openmp(const OpenMp& openmp) {
  g_openmp = openmp;
  g_usable.store(true, std::memory_order_release);
}

bool set_thread_local_openmp(bool on) {
  const bool before = t_asked_for;
  t_asked_for = on;
  return before;
}

bool openmp_is_at_hand() noexcept {
  return t_asked_for && g_usable.load(std::memory_order_acquire) && g_openmp.in_parallel() == 0;
}

bool run_on_openmp(int n, void (*body)(void* context, int rank) noexcept, void* context) noexcept {
  Call call{n, body, context};
  if (setjmp(call.end) == 0) {  // NOLINT(cert-err52-cpp)
    // As many threads as the caller's library has, whatever n: with another number than in the
    // region before it would end some, or start some.
    g_openmp.parallel(&take_part, &call, 0, 0);
  }
  if (!call.refused.load(std::memory_order_relaxed)) return true;
  g_usable.store(false);
  return false;
}

}  // namespace fastlstm

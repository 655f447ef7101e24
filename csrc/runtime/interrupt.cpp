#include "runtime/interrupt.hpp"

#include <atomic>
#include <chrono>

#include "fastlstm/runtime.hpp"

namespace fastlstm {

namespace {

std::atomic<void (*)()> g_check{nullptr};

}  // namespace

void set_interrupt_check(void (*check)()) { g_check.store(check); }

void check_interrupt() {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kInterval{50};
  thread_local Clock::time_point last = Clock::now();
  void (*const check)() = g_check.load(std::memory_order_relaxed);
  if (check == nullptr) return;
  const Clock::time_point now = Clock::now();
  if (now - last < kInterval) return;
  last = now;
  check();
}

}  // namespace fastlstm

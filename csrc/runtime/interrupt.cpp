#include "runtime/interrupt.hpp"

#include <chrono>
#include <stdexcept>

#include "fastlstm/runtime.hpp"
#include "runtime/system.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<void (*)()> g_check{nullptr};
thread_local Region* t_region = nullptr;

}  // namespace

void set_interrupt_check(void (*check)()) { g_check.store(check); }

void check_interrupt() {
  constexpr std::chrono::milliseconds kInterval{50};
  thread_local Clock::time_point last = Clock::now();
  void (*const check)() = g_check.load(std::memory_order_relaxed);
  if (check == nullptr) return;
  const Clock::time_point now = Clock::now();
  if (now - last < kInterval) return;
  last = now;
  check();
}

Region::Region(int threads)
    : threads_(threads),
      products_left_(threads > 1 ? tuning().products_before_look : tuning().products_per_part) {}

Region::Part::Part(Region& region) noexcept : before_(t_region) { t_region = &region; }
Region::Part::~Part() { t_region = before_; }

void Region::look() noexcept {
  const long process = this_process();
  try {
    check_interrupt();
    if (threads_ > 1 && process != this_process()) {
      throw std::runtime_error("fastlstm: a fork in the middle of a step: the child lacks threads");
    }
  } catch (...) {
    error_ = std::current_exception();
    orphaned_ = threads_ > 1 && process != this_process();
    ended_.store(true, std::memory_order_relaxed);
  }
}

bool interrupted(double products) noexcept {
  Region* const region = t_region;
  if (region == nullptr) return false;
  if (region->ended_.load(std::memory_order_relaxed)) return true;
  if (region->caller_ != std::this_thread::get_id()) return false;
  constexpr std::chrono::milliseconds kLong{
      80};  // where products take longer than on most machines
  const Clock::time_point now = Clock::now();
  if (region->since_ == Clock::time_point{}) region->since_ = now;
  region->products_left_ -= products;
  if (region->products_left_ > 0 && now - region->since_ < kLong) return false;
  region->products_left_ = tuning().products_per_part;
  region->since_ = now;
  region->look();
  return region->ended_.load(std::memory_order_relaxed);
}

bool orphaned() noexcept {
  return t_region != nullptr && t_region->orphaned_.load(std::memory_order_relaxed);
}

}  // namespace fastlstm

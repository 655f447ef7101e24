#include "runtime/hardware.hpp"

#include <atomic>
#include <memory>

#include "fastlstm/runtime.hpp"
#include "runtime/cpu.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

namespace {

// Not a local static: a fork while a thread initialises one leaves it locked. Never destroyed.
std::atomic<const Hardware*> g_real{nullptr};
std::atomic<const Hardware*> g_pretended{nullptr};

const Hardware& real_hardware() {
  const Hardware* known = g_real.load(std::memory_order_acquire);
  if (known == nullptr) {
    const CacheBytes caches = cache_bytes();
    auto made = std::make_unique<Hardware>();
    made->L1 = static_cast<double>(caches.L1 > 0 ? caches.L1 : 32 << 10);
    made->L2 = static_cast<double>(caches.L2 > 0 ? caches.L2 : 1 << 20);
    made->L3 = static_cast<double>(caches.L3 > 0 ? caches.L3 : 32 << 20);
    made->cpus = usable_cpus();
    made->has_pairs = cpu_has_avx512_bf16();
    made->has_fours = cpu_has_avx512_vnni();
    if (g_real.compare_exchange_strong(known, made.get())) known = made.release();
  }
  return *known;
}

}  // namespace

const Hardware& hardware() {
  const Hardware* const pretended = g_pretended.load(std::memory_order_acquire);
  return pretended != nullptr ? *pretended : real_hardware();
}

int plan_for_cpus(int n) {
  const Hardware* pretended = nullptr;
  if (n > 0) {
    auto* const other = new Hardware(real_hardware());  // a few bytes, which others may be reading
    other->cpus = n;
    pretended = other;
  }
  const Hardware* const before = g_pretended.exchange(pretended);
  return before != nullptr ? before->cpus : 0;
}

}  // namespace fastlstm

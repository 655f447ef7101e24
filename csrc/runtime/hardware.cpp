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
std::atomic<int> g_pretended_cpus{0};  // 0: those that there are

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

Hardware hardware() {
  Hardware known = real_hardware();
  const int pretended = g_pretended_cpus.load(std::memory_order_relaxed);
  if (pretended > 0) known.cpus = pretended;
  return known;
}

int plan_for_cpus(int n) { return g_pretended_cpus.exchange(n > 0 ? n : 0); }

}  // namespace fastlstm

// macOS, where threads are bound to no CPUs, processes have no quotas, and memory that is there
// gets no large pages. Other Unix takes it as well.
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <cstdint>

#include "runtime/system.hpp"

namespace fastlstm {

int affinity_cpus() {
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? static_cast<int>(n) : 1;
}

int quota_cpus() { return 0; }

#if defined(__APPLE__)

namespace {

/// A number that the kernel tells by this name; 0 if it does not.
std::size_t told(const char* name) {
  std::int64_t value = 0;
  std::size_t size = sizeof value;
  if (sysctlbyname(name, &value, &size, nullptr, 0) != 0 || value < 0) return 0;
  return static_cast<std::size_t>(value);
}

}  // namespace

/// The fast ones, where there are others: a call's threads get equal shares of its work.
int affinity_cores() {
  const std::size_t fast = told("hw.perflevel0.physicalcpu");
  return static_cast<int>(fast > 0 ? fast : told("hw.physicalcpu"));
}

CacheBytes cache_bytes() {
  return {told("hw.l1dcachesize"), told("hw.l2cachesize"), told("hw.l3cachesize")};
}

bool cpu_has_dot_products() noexcept { return told("hw.optional.arm.FEAT_DotProd") != 0; }

bool saves_avx512_at_first_use() noexcept { return true; }

#else

int affinity_cores() { return 0; }
CacheBytes cache_bytes() { return {}; }
bool cpu_has_dot_products() noexcept { return false; }

bool saves_avx512_at_first_use() noexcept { return false; }

#endif

bool allow_tiles() noexcept { return false; }

void prefer_large_pages(void*, std::size_t) noexcept {}
void keep_released_memory() noexcept {}

}  // namespace fastlstm

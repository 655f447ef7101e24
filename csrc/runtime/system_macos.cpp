// macOS, where threads are bound to no CPUs, processes have no quotas, and memory that is there
// gets no large pages. Other Unix takes it as well.
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "runtime/system.hpp"

namespace fastlstm {

int affinity_cpus() {
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? static_cast<int>(n) : 1;
}

int quota_cpus() { return 0; }

bool cpu_has_dot_products() noexcept {
#if defined(__APPLE__)
  int has = 0;
  std::size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
#else
  return false;
#endif
}
bool allow_tiles() noexcept { return false; }

void prefer_large_pages(void*, std::size_t) noexcept {}
void keep_released_memory() noexcept {}

}  // namespace fastlstm

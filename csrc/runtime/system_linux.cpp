// Linux: affinity masks, quotas of cgroups, transparent huge pages, glibc's allocator.
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "runtime/system.hpp"

namespace fastlstm {

// --- CPUs ---------------------------------------------------------------------------------------

int affinity_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const unsigned n = std::thread::hardware_concurrency();  // more CPUs than the set has room for
  return n > 0 ? static_cast<int>(n) : 1;
}

namespace {

std::string folder_of_cpu(int cpu) { return "/sys/devices/system/cpu/cpu" + std::to_string(cpu); }

std::string read_word(const std::string& path) {
  std::string word;
  std::ifstream(path) >> word;
  return word;
}

}  // namespace

int affinity_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    const std::string siblings = read_word(folder_of_cpu(cpu) + "/topology/thread_siblings_list");
    if (siblings.empty()) return 0;
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}

CacheBytes cache_bytes() {
  CacheBytes caches;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return caches;
  int cpu = 0;
  while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &set)) ++cpu;
  for (int k = 0; k < 8; ++k) {
    const std::string folder = folder_of_cpu(cpu) + "/cache/index" + std::to_string(k);
    const std::string level = read_word(folder + "/level"), size = read_word(folder + "/size");
    if (level.empty()) break;
    if (read_word(folder + "/type") == "Instruction") continue;
    const char last = size.empty() ? '0' : size.back();
    const std::size_t unit = last == 'M' ? 1 << 20 : last == 'K' ? 1 << 10 : 1;
    const std::size_t bytes = unit * std::strtoull(size.c_str(), nullptr, 10);
    if (level == "1") caches.L1 = bytes;
    if (level == "2") caches.L2 = bytes;
    if (level == "3") caches.L3 = bytes;
  }
  return caches;
}

namespace {

/// The CPUs of a quota of so many microseconds per period, rounded up; 0 without one.
int cpus_of(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>((quota + period - 1) / period);
}

int read_cgroup_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  long long period = 0;
  if (!(file >> quota >> period) || quota == "max") return 0;
  return cpus_of(std::atoll(quota.c_str()), period);
}

int read_cgroup_v1(const std::string& folder) {
  long long quota = 0, period = 0;
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return cpus_of(quota, period);
}

}  // namespace

/// The smallest quota of this process's cgroup and its ancestors.
int quota_cpus() {
  int least = 0;
  const auto note = [&least](int cpus) {
    if (cpus > 0 && (least == 0 || cpus < least)) least = cpus;
  };
  std::ifstream groups("/proc/self/cgroup");  // lines such as "0::/a/b" or "3:cpu,cpuacct:/a/b"
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    // In a container the path may name what only the host can see, so its parents are read up
    // to the mount's root, which is the container's own group.
    std::string path = line.substr(second + 1);
    while (true) {
      if (path == "/") path.clear();
      note(v2 ? read_cgroup_v2("/sys/fs/cgroup" + path)
              : read_cgroup_v1("/sys/fs/cgroup/cpu" + path));
      if (path.empty()) break;
      path.erase(path.rfind('/'));
    }
  }
  return least;
}

bool cpu_has_dot_products() noexcept {
#if defined(__aarch64__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

bool saves_avx512_at_first_use() noexcept { return false; }

bool allow_tiles() noexcept {
#if defined(__x86_64__)
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
#else
  return false;
#endif
}

// --- memory -------------------------------------------------------------------------------------

void prefer_large_pages(void* memory, std::size_t bytes) noexcept {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t before = (page - first % page) % page;  // of the first whole page
  if (bytes < before) return;
  // What it says is of no interest: without large pages, memory is only slower.
  madvise(static_cast<char*>(memory) + before, (bytes - before) / page * page, MADV_HUGEPAGE);
}

void keep_released_memory() noexcept {
#if defined(__GLIBC__)
  // Not a local static of another kind: a fork while a thread initialises one leaves it locked.
  static std::atomic<bool> done{false};
  if (done.exchange(true, std::memory_order_relaxed)) return;
  constexpr std::size_t kMost = std::size_t{32} << 20, kBookkeeping = std::size_t{64} << 10;
  // Through a volatile pointer: the compiler would leave both out.
  void* volatile block = std::malloc(kMost - kBookkeeping);
  std::free(block);
#endif
}

}  // namespace fastlstm

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "fastlstm/runtime.hpp"

namespace fastlstm {

namespace {

constexpr int kMostThreads = 4096;

std::atomic<int> g_num_threads{0};   // 0: not set yet, the default holds
thread_local int t_num_threads = 0;  // 0: the process's number holds

/// The CPUs of a quota of so many microseconds per period, rounded up; 0 without one.
int quota_cpus(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>((quota + period - 1) / period);
}

int read_cgroup_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  long long period = 0;
  if (!(file >> quota >> period) || quota == "max") return 0;
  return quota_cpus(std::atoll(quota.c_str()), period);
}

int read_cgroup_v1(const std::string& folder) {
  long long quota = 0, period = 0;
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return quota_cpus(quota, period);
}

/// The smallest quota of this process's cgroup and its ancestors, in CPUs; 0 without any.
int cgroup_cpus() {
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

int affinity_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? static_cast<int>(n) : 1;
}

int default_num_threads() {
  const char* text = std::getenv("FASTLSTM_NUM_THREADS");
  if (text == nullptr || *text == '\0') return usable_cpus();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end != '\0' || n < 1 || n > kMostThreads) {
    throw std::invalid_argument("FASTLSTM_NUM_THREADS: expected an integer from 1 to " +
                                std::to_string(kMostThreads) + ", got '" + text + "'");
  }
  return static_cast<int>(n);
}

}  // namespace

int usable_cpus() {
  const int cpus = affinity_cpus();
  const int quota = cgroup_cpus();
  return quota > 0 && quota < cpus ? quota : cpus;
}

int num_threads() {
  if (t_num_threads > 0) return t_num_threads;
  const int n = g_num_threads.load(std::memory_order_relaxed);
  if (n > 0) return n;
  const int by_default = default_num_threads();
  g_num_threads.store(by_default, std::memory_order_relaxed);
  return by_default;
}

void set_num_threads(int n) {
  if (n < 1 || n > kMostThreads) {
    throw std::invalid_argument("num_threads: expected an integer from 1 to " +
                                std::to_string(kMostThreads) + ", got " + std::to_string(n));
  }
  g_num_threads.store(n, std::memory_order_relaxed);
}

int set_thread_local_num_threads(int n) {
  if (n < 0 || n > kMostThreads) {
    throw std::invalid_argument("num_threads: expected an integer from 1 to " +
                                std::to_string(kMostThreads) + ", got " + std::to_string(n));
  }
  const int before = t_num_threads;
  t_num_threads = n;
  return before;
}

}  // namespace fastlstm

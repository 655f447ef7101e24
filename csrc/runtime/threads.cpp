#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "fastlstm/runtime.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

namespace {

constexpr int kMostThreads = 4096;

std::atomic<int> g_num_threads{0};   // 0: not set yet, the default holds
thread_local int t_num_threads = 0;  // 0: the process's number holds

int default_num_threads() {
  const char* text = std::getenv("FASTLSTM_NUM_THREADS");
  if (text == nullptr || *text == '\0') return usable_cores();
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
  const int quota = quota_cpus();
  return quota > 0 && quota < cpus ? quota : cpus;
}

int usable_cores() {
  const int cores = affinity_cores();
  return cores > 0 ? std::min(cores, usable_cpus()) : usable_cpus();
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

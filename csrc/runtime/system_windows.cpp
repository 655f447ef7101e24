// Windows. It has no forks; large pages need a right that users do not have.
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
// After it:
#include <process.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>
#include <vector>

#include "runtime/system.hpp"

namespace fastlstm {

// --- CPUs ---------------------------------------------------------------------------------------

namespace {

/// CPUs of all groups: one has at most 64 of them.
int all_cpus() noexcept {
  const DWORD n = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
  return n > 0 ? static_cast<int>(n) : 1;
}

}  // namespace

int affinity_cpus() {
  DWORD_PTR process = 0, system = 0;
  // Both are zero for a process with threads in several groups, which no mask can say.
  if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system) == 0 || process == 0) {
    return all_cpus();
  }
  // One that nobody has limited may have threads in all groups, from Windows 11 on.
  if (process == system) return all_cpus();
  int n = 0;
  for (; process != 0; process &= process - 1) ++n;
  return n;
}

/// The hard cap of the job that this process is in, as containers have one: hundredths of a percent
/// of all CPUs.
int quota_cpus() {
  JOBOBJECT_CPU_RATE_CONTROL_INFORMATION rate = {};
  if (QueryInformationJobObject(nullptr, JobObjectCpuRateControlInformation, &rate, sizeof rate,
                                nullptr) == 0) {
    return 0;
  }
  constexpr DWORD kHard = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP;
  if ((rate.ControlFlags & kHard) != kHard || rate.CpuRate == 0) return 0;
  constexpr long long kWhole = 10000;
  return static_cast<int>((static_cast<long long>(rate.CpuRate) * all_cpus() + kWhole - 1) /
                          kWhole);
}

// Not asked for: there are no kernels for ARM on Windows that anybody tried.
bool cpu_has_dot_products() noexcept { return false; }

bool saves_avx512_at_first_use() noexcept { return false; }

// Not asked for: nobody has tried AMX on Windows.
bool allow_tiles() noexcept { return false; }

namespace {

/// What the system says of cores and caches; nothing where CPUs are in several groups.
std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> processor_information() {
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> all(
      bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
  if (GetActiveProcessorGroupCount() > 1 ||
      GetLogicalProcessorInformation(all.data(), &bytes) == 0) {
    all.clear();
  }
  return all;
}

}  // namespace

int affinity_cores() {
  DWORD_PTR process = 0, system = 0;
  if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system) == 0) return 0;
  int n = 0;
  for (const SYSTEM_LOGICAL_PROCESSOR_INFORMATION& of : processor_information()) {
    if (of.Relationship == RelationProcessorCore && (of.ProcessorMask & process) != 0) ++n;
  }
  return n;
}

CacheBytes cache_bytes() {
  CacheBytes caches;
  for (const SYSTEM_LOGICAL_PROCESSOR_INFORMATION& of : processor_information()) {
    if (of.Relationship != RelationCache || of.Cache.Type == CacheInstruction) continue;
    if (of.Cache.Level == 1) caches.L1 = of.Cache.Size;
    if (of.Cache.Level == 2) caches.L2 = of.Cache.Size;
    if (of.Cache.Level == 3) caches.L3 = of.Cache.Size;
  }
  return caches;
}

// --- memory -------------------------------------------------------------------------------------

void prefer_large_pages(void*, std::size_t) noexcept {}
void keep_released_memory() noexcept {}

// --- threads and processes ----------------------------------------------------------------------

namespace {

struct Start {
  void* (*start)(void*);
  void* argument;
};

unsigned __stdcall run_start(void* given) {
  const std::unique_ptr<Start> owned(static_cast<Start*>(given));
  owned->start(owned->argument);
  return 0;
}

}  // namespace

void start_thread(std::size_t stack_bytes, void* (*start)(void*), void* argument) {
  auto owned = std::make_unique<Start>(Start{start, argument});
  const std::uintptr_t handle =
      _beginthreadex(nullptr, static_cast<unsigned>(stack_bytes), run_start, owned.get(),
                     STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
  if (handle == 0) throw std::system_error(errno, std::generic_category());
  static_cast<void>(owned.release());  // the thread's
  CloseHandle(reinterpret_cast<HANDLE>(handle));
}

std::chrono::nanoseconds thread_cpu_time() noexcept { return {}; }  // by ticks of 16 ms

long this_process() noexcept { return static_cast<long>(GetCurrentProcessId()); }

int at_fork(void (*)(), void (*)(), void (*)()) noexcept { return 0; }

}  // namespace fastlstm

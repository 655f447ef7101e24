// What the core asks of the operating system: this header, and a file for each system. Nothing else
// in csrc/ calls one (tests/test_borders.py).
#pragma once

#include <chrono>
#include <cstddef>

namespace fastlstm {

// --- CPUs ---------------------------------------------------------------------------------------

/// The CPUs that this process's threads may run on, at least 1.
int affinity_cpus();
/// The CPUs that it may use on average by a quota of a container's, rounded up; 0 without one.
int quota_cpus();
/// The physical cores that affinity_cpus() are CPUs of; 0 where the system does not say.
int affinity_cores();

struct CacheBytes {
  std::size_t L1 = 0, L2 = 0, L3 = 0;
};
/// The sizes of the data caches that one CPU of this process has, alone or with others; 0 where the
/// system does not say.
CacheBytes cache_bytes();

/// Whether an ARM CPU has dot products of int8 (FEAT_DotProd), which none but the system can say.
bool cpu_has_dot_products() noexcept;

/// Whether the system saves AVX-512's registers from a thread's first use of them on, and says that
/// it does only then.
bool saves_avx512_at_first_use() noexcept;

/// Asks for the tiles of AMX, whose 8 KB the system keeps for processes that asked alone, and says
/// whether it gives them: to all threads, and to the children of forks. From then on it takes no
/// stack for signals (sigaltstack) that would not hold them, and where a thread has such a one, it
/// refuses.
bool allow_tiles() noexcept;

// --- memory -------------------------------------------------------------------------------------

/// Asks for large pages in memory of this size, where the system has them and gives them on demand.
/// Fresh memory comes page by page, 1.7 us for each 4 kB on a virtual machine: an update of an LSTM
/// with H = 1024 spent 30 of 55 ms so.
void prefer_large_pages(void* memory, std::size_t bytes) noexcept;

/// Lets the allocator keep what training releases for the next call, rather than give it back to
/// the system. glibc keeps free memory (for each of its arenas, of which a thread has one) of up to
/// twice the largest block of at most 32 MB that was ever released, or 128 kB: this releases one of
/// that size, without touching it. Without it the calls of a training loop found their memory gone,
/// or not, as it happened to lie: LSTM, T = 100, B = 32, H = 256, 3,800 fresh pages and 11 of 88 ms
/// for each call. Of other allocators nothing is known.
void keep_released_memory() noexcept;

// --- threads and processes ----------------------------------------------------------------------

/// Starts start(argument) in a thread of its own that nobody waits for, with a stack of so many
/// bytes. Throws std::system_error or std::bad_alloc where the system starts no more.
void start_thread(std::size_t stack_bytes, void* (*start)(void*), void* argument);

/// The CPU time that the calling thread has had; 0 where the system does not say, or only by ticks.
std::chrono::nanoseconds thread_cpu_time() noexcept;

/// This process's number: that of the child of a fork is another.
long this_process() noexcept;

/// Has these called at every fork from now on, in the thread that forks: before it, and after it in
/// both processes. Null: nothing is called. Returns 0, or an error's number. Without forks it does
/// nothing.
int at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) noexcept;

}  // namespace fastlstm

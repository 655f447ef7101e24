#include "runtime/buffer.hpp"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace fastlstm {

#if defined(__linux__)
void prefer_large_pages(void* memory, std::size_t bytes) noexcept {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t before = (page - first % page) % page;  // of the first whole page
  if (bytes < before) return;
  // What it says is of no interest: without large pages, memory is only slower.
  madvise(static_cast<char*>(memory) + before, (bytes - before) / page * page, MADV_HUGEPAGE);
}
#else
void prefer_large_pages(void*, std::size_t) noexcept {}
#endif

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

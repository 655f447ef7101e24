#include "runtime/buffer.hpp"

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

}  // namespace fastlstm

#include "runtime/cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstring>
#endif

namespace fastlstm {

// GCC's and Clang's __builtin_cpu_supports ask XGETBV too: a feature that the operating system does
// not save the registers of counts as absent.
bool cpu_has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool cpu_has_avx2_vnni() {
#if defined(__x86_64__)
  // Asked here: not all compilers' functions know it. Leaf 7 has its second part where EAX says so.
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!cpu_has_avx2() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || eax == 0) {
    return false;
  }
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnni) != 0;
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if defined(__x86_64__)
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool cpu_has_avx512_vnni() {
#if defined(__x86_64__)
  return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool cpu_has_avx512_bf16() {
#if defined(__x86_64__)
  return cpu_has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool cpu_has_amx() {
#if defined(__x86_64__)
  // Asked here: not all compilers' functions know AMX, or that the system must save its registers.
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // leaf 7, EDX
  constexpr unsigned kConfiguration = 1u << 17, kTileData = 1u << 18;       // XCR0
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!cpu_has_avx512_bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned kWanted = kBf16 | kTile | kInt8, kSaved = kConfiguration | kTileData;
  unsigned low = 0, high = 0;  // of XCR0, which can be read where there is AVX
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (edx & kWanted) == kWanted && (low & kSaved) == kSaved;
#else
  return false;
#endif
}

bool cpu_is_zen5() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__builtin_cpu_is("amd") || __get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  const unsigned family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
  return family >= 26 && cpu_has_avx512();
#else
  return false;
#endif
}

std::string cpu_name() {
#if defined(__x86_64__)
  unsigned words[3][4];
  for (unsigned k = 0; k < 3; ++k) {
    unsigned* const w = words[k];
    if (__get_cpuid(0x80000002 + k, &w[0], &w[1], &w[2], &w[3]) == 0) return "";
  }
  char name[sizeof words + 1] = {};
  std::memcpy(name, words, sizeof words);
  return name;
#else
  return "";
#endif
}

}  // namespace fastlstm

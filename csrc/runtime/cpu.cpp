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

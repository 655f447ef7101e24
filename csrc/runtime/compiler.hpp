// What the core takes from the compiler and the CPU where C++ has no words for it: the one file
// outside of the kernels (simd/lanes.hpp) that has constructs of GCC and Clang, and the only one
// with inline assembly. Other compilers, or FASTLSTM_PLAIN_CPP, do with less.
#pragma once

#if defined(__GNUC__) && !defined(FASTLSTM_PLAIN_CPP)
#define FASTLSTM_GNU
// CPUs that there are kernels for, beside the generic ones.
#if defined(__x86_64__)
#define FASTLSTM_X86_64
#elif defined(__aarch64__)
#define FASTLSTM_AARCH64
#endif
#endif

#if defined(FASTLSTM_X86_64)
#include <cpuid.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

#include <limits>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// Whether the result, of numbers that are not below zero, is none of an Index.
inline bool add_overflows(Index a, Index b, Index* sum) {
#if defined(FASTLSTM_GNU)
  return __builtin_add_overflow(a, b, sum);
#else
  if (a > std::numeric_limits<Index>::max() - b) return true;
  *sum = a + b;
  return false;
#endif
}
inline bool multiply_overflows(Index a, Index b, Index* product) {
#if defined(FASTLSTM_GNU)
  return __builtin_mul_overflow(a, b, product);
#else
  if (b != 0 && a > std::numeric_limits<Index>::max() / b) return true;
  *product = a * b;
  return false;
#endif
}

/// Between two looks at a word that another thread will write.
inline void cpu_relax() {
#if defined(__SSE2__) || defined(_M_X64)
  _mm_pause();
#elif defined(FASTLSTM_AARCH64)
  asm volatile("yield");
#endif
}

#if defined(FASTLSTM_X86_64)

struct CpuidRegisters {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
/// What CPUID says; zeros where the CPU has no such leaf.
inline CpuidRegisters cpuid(unsigned leaf, unsigned part) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

/// The lower half of XCR0, where CPUID says that it can be read.
inline unsigned read_xcr0() {
  unsigned low = 0, high = 0;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

#elif defined(FASTLSTM_AARCH64)

inline unsigned long floating_point_control() {
  unsigned long fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
inline void set_floating_point_control(unsigned long fpcr) {
  asm volatile("msr fpcr, %0" : : "r"(fpcr));
}

#endif

}  // namespace fastlstm

#include "runtime/cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstring>
#endif

namespace fastlstm {

// CPUID is asked here: not all compilers' __builtin_cpu_supports know AVX-VNNI and AMX, and that of
// Zig's Clang says no to everything.
#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// What CPUID says; zeros where the CPU has no such leaf.
Registers ask(unsigned leaf, unsigned part) {
  Registers r;
  if (__get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

/// The bits of XCR0: which registers the system saves.
unsigned saved_registers(const Registers& leaf_1) {
  constexpr unsigned kReadable = 1u << 27;
  if ((leaf_1.ecx & kReadable) == 0) return 0;
  unsigned low = 0, high = 0;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

struct Answers {
  Registers leaf_0 = ask(0, 0), leaf_1 = ask(1, 0), leaf_7 = ask(7, 0);
  Registers leaf_7_1 = leaf_7.eax > 0 ? ask(7, 1) : Registers{};
  unsigned saved = saved_registers(leaf_1);
};

/// Asked once: a virtual machine takes microseconds for each.
const Answers& answers() {
  static const Answers its;
  return its;
}

constexpr bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

bool is_made_by(const char (&name)[13]) {
  const Registers& r = answers().leaf_0;
  const unsigned words[] = {r.ebx, r.edx, r.ecx};
  return std::memcmp(words, name, sizeof words) == 0;
}

}  // namespace
#endif

bool cpu_has_avx2() {
#if defined(__x86_64__)
  constexpr unsigned kFma = 1u << 12, kAvx = 1u << 28;  // leaf 1, ECX
  constexpr unsigned kAvx2 = 1u << 5;                   // leaf 7, EBX
  constexpr unsigned kSaved = 1u << 1 | 1u << 2;        // XMM and YMM
  return has(answers().leaf_1.ecx, kFma | kAvx) && has(answers().leaf_7.ebx, kAvx2) &&
         has(answers().saved, kSaved);
#else
  return false;
#endif
}

bool cpu_has_avx2_vnni() {
#if defined(__x86_64__)
  constexpr unsigned kAvxVnni = 1u << 4;
  return cpu_has_avx2() && has(answers().leaf_7_1.eax, kAvxVnni);
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if defined(__x86_64__)
  constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;  // leaf 7, EBX
#if defined(__APPLE__)
  constexpr unsigned kSaved = 0;  // macOS saves them from their first use on, and says so then
#else
  constexpr unsigned kSaved = 1u << 5 | 1u << 6 | 1u << 7;  // masks, ZMM, ZMM16 to 31
#endif
  return cpu_has_avx2() && has(answers().leaf_7.ebx, kF | kDq | kBw | kVl) &&
         has(answers().saved, kSaved);
#else
  return false;
#endif
}

bool cpu_has_avx512_vnni() {
#if defined(__x86_64__)
  constexpr unsigned kVnni = 1u << 11;
  return cpu_has_avx512() && has(answers().leaf_7.ecx, kVnni);
#else
  return false;
#endif
}

bool cpu_has_avx512_bf16() {
#if defined(__x86_64__)
  constexpr unsigned kBf16 = 1u << 5;
  return cpu_has_avx512_vnni() && has(answers().leaf_7_1.eax, kBf16);
#else
  return false;
#endif
}

bool cpu_has_amx() {
#if defined(__x86_64__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // leaf 7, EDX
  constexpr unsigned kSaved = 1u << 17 | 1u << 18;                          // configuration, data
  return cpu_has_avx512_bf16() && has(answers().leaf_7.edx, kBf16 | kTile | kInt8) &&
         has(answers().saved, kSaved);
#else
  return false;
#endif
}

bool cpu_is_intels() {
#if defined(__x86_64__)
  return is_made_by("GenuineIntel");
#else
  return false;
#endif
}

bool cpu_is_zen5() {
#if defined(__x86_64__)
  const unsigned version = answers().leaf_1.eax;
  const unsigned family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
  return is_made_by("AuthenticAMD") && family >= 26 && cpu_has_avx512();
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

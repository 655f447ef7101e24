#include "runtime/cpu.hpp"

#include <cstring>

#include "runtime/compiler.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

#if defined(FASTLSTM_X86_64)

// CPUID is asked here: not all compilers' __builtin_cpu_supports know AVX-VNNI and AMX, and that of
// Zig's Clang says no to everything.
namespace {

/// The bits of XCR0: which registers the system saves.
unsigned saved_registers(const CpuidRegisters& leaf_1) {
  constexpr unsigned kReadable = 1u << 27;
  return (leaf_1.ecx & kReadable) != 0 ? read_xcr0() : 0;
}

struct Answers {
  CpuidRegisters leaf_0 = cpuid(0, 0), leaf_1 = cpuid(1, 0), leaf_7 = cpuid(7, 0);
  CpuidRegisters leaf_7_1 = leaf_7.eax > 0 ? cpuid(7, 1) : CpuidRegisters{};
  unsigned saved = saved_registers(leaf_1);
};

/// Asked once: a virtual machine takes microseconds for each.
const Answers& answers() {
  static const Answers its;
  return its;
}

constexpr bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

bool is_made_by(const char (&name)[13]) {
  const CpuidRegisters& r = answers().leaf_0;
  const unsigned words[] = {r.ebx, r.edx, r.ecx};
  return std::memcmp(words, name, sizeof words) == 0;
}

}  // namespace

bool cpu_has_avx2() {
  constexpr unsigned kFma = 1u << 12, kAvx = 1u << 28;  // leaf 1, ECX
  constexpr unsigned kAvx2 = 1u << 5;                   // leaf 7, EBX
  constexpr unsigned kSaved = 1u << 1 | 1u << 2;        // XMM and YMM
  return has(answers().leaf_1.ecx, kFma | kAvx) && has(answers().leaf_7.ebx, kAvx2) &&
         has(answers().saved, kSaved);
}

bool cpu_has_avx2_vnni() {
  constexpr unsigned kAvxVnni = 1u << 4;
  return cpu_has_avx2() && has(answers().leaf_7_1.eax, kAvxVnni);
}

bool cpu_has_avx512() {
  constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;  // leaf 7, EBX
  constexpr unsigned kSaved = 1u << 5 | 1u << 6 | 1u << 7;  // masks, ZMM, ZMM16 to 31
  return cpu_has_avx2() && has(answers().leaf_7.ebx, kF | kDq | kBw | kVl) &&
         (has(answers().saved, kSaved) || saves_avx512_at_first_use());
}

bool cpu_has_avx512_vnni() {
  constexpr unsigned kVnni = 1u << 11;
  return cpu_has_avx512() && has(answers().leaf_7.ecx, kVnni);
}

bool cpu_has_avx512_bf16() {
  constexpr unsigned kBf16 = 1u << 5;
  return cpu_has_avx512_vnni() && has(answers().leaf_7_1.eax, kBf16);
}

bool cpu_has_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // leaf 7, EDX
  constexpr unsigned kSaved = 1u << 17 | 1u << 18;                          // configuration, data
  return cpu_has_avx512_bf16() && has(answers().leaf_7.edx, kBf16 | kTile | kInt8) &&
         has(answers().saved, kSaved);
}

bool cpu_is_intels() { return is_made_by("GenuineIntel"); }

bool cpu_is_zen5() {
  const unsigned version = answers().leaf_1.eax;
  const unsigned family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
  return is_made_by("AuthenticAMD") && family >= 26 && cpu_has_avx512();
}

std::string cpu_name() {
  if (cpuid(0x80000000, 0).eax < 0x80000004) return "";
  CpuidRegisters words[3];
  for (unsigned k = 0; k < 3; ++k) words[k] = cpuid(0x80000002 + k, 0);
  char name[sizeof words + 1] = {};
  std::memcpy(name, words, sizeof words);
  return name;
}

#else

bool cpu_has_avx2() { return false; }
bool cpu_has_avx2_vnni() { return false; }
bool cpu_has_avx512() { return false; }
bool cpu_has_avx512_vnni() { return false; }
bool cpu_has_avx512_bf16() { return false; }
bool cpu_has_amx() { return false; }
bool cpu_is_intels() { return false; }
bool cpu_is_zen5() { return false; }
std::string cpu_name() { return ""; }

#endif

}  // namespace fastlstm

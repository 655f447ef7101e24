#include "runtime/cpu.hpp"

#include <cstring>

#include "runtime/compiler.hpp"

namespace fastlstm {

#if defined(FASTLSTM_X86_64)

namespace {

/// Whether the maker calls itself so.
bool made_by(const char* maker) {
  CpuidRegisters r;
  if (!cpuid(0, 0, &r)) return false;
  char name[12];
  const unsigned words[] = {r.ebx, r.edx, r.ecx};
  std::memcpy(name, words, sizeof name);
  return std::memcmp(name, maker, sizeof name) == 0;
}

}  // namespace

bool cpu_has_avx2() { return FASTLSTM_CPU_SUPPORTS("avx2") && FASTLSTM_CPU_SUPPORTS("fma"); }

bool cpu_has_avx2_vnni() {
  // Asked here: not all compilers' functions know it. Leaf 7 has its second part where EAX says so.
  constexpr unsigned kAvxVnni = 1u << 4;
  CpuidRegisters r;
  if (!cpu_has_avx2() || !cpuid(7, 0, &r) || r.eax == 0) return false;
  return cpuid(7, 1, &r) && (r.eax & kAvxVnni) != 0;
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && FASTLSTM_CPU_SUPPORTS("avx512f") && FASTLSTM_CPU_SUPPORTS("avx512dq") &&
         FASTLSTM_CPU_SUPPORTS("avx512bw") && FASTLSTM_CPU_SUPPORTS("avx512vl");
}

bool cpu_has_avx512_vnni() { return cpu_has_avx512() && FASTLSTM_CPU_SUPPORTS("avx512vnni"); }

bool cpu_has_avx512_bf16() { return cpu_has_avx512_vnni() && FASTLSTM_CPU_SUPPORTS("avx512bf16"); }

bool cpu_has_amx() {
  // Asked here: not all compilers' functions know AMX, or that the system must save its registers.
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // leaf 7, EDX
  constexpr unsigned kConfiguration = 1u << 17, kTileData = 1u << 18;       // XCR0
  CpuidRegisters r;
  if (!cpu_has_avx512_bf16() || !cpuid(7, 0, &r)) return false;
  constexpr unsigned kWanted = kBf16 | kTile | kInt8, kSaved = kConfiguration | kTileData;
  return (r.edx & kWanted) == kWanted && (saved_state() & kSaved) == kSaved;
}

bool cpu_is_of_intel() { return made_by("GenuineIntel"); }

bool cpu_is_zen5() {
  CpuidRegisters r;
  if (!made_by("AuthenticAMD") || !cpuid(1, 0, &r)) return false;
  const unsigned family = (r.eax >> 8 & 0xf) + (r.eax >> 20 & 0xff);
  return family >= 26 && cpu_has_avx512();
}

std::string cpu_name() {
  CpuidRegisters words[3];
  for (unsigned k = 0; k < 3; ++k) {
    if (!cpuid(0x80000002 + k, 0, &words[k])) return "";
  }
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
bool cpu_is_of_intel() { return false; }
bool cpu_is_zen5() { return false; }
std::string cpu_name() { return ""; }

#endif

}  // namespace fastlstm

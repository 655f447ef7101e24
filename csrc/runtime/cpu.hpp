// What this CPU can run, and what its operating system saves at a switch of threads.
#pragma once

#include <string>

namespace fastlstm {

/// AVX2 and FMA.
bool cpu_has_avx2();
/// AVX-VNNI, and all that cpu_has_avx2 asks for.
bool cpu_has_avx2_vnni();
/// AVX-512 F, DQ, BW, VL, and all that cpu_has_avx2 asks for.
bool cpu_has_avx512();
/// VNNI, and all that cpu_has_avx512 asks for.
bool cpu_has_avx512_vnni();
/// BF16, and all that cpu_has_avx512_vnni asks for.
bool cpu_has_avx512_bf16();
/// AMX's tiles, BF16 and INT8, and all that cpu_has_avx512_bf16 asks for. Whether the system lets
/// this process use them is another question: allow_tiles in runtime/system.hpp.
bool cpu_has_amx();
/// Intel's.
bool cpu_is_intels();
/// AMD's family 26 or a later one, and all that cpu_has_avx512 asks for.
bool cpu_is_zen5();
/// What the CPU calls itself; empty where it does not.
std::string cpu_name();

}  // namespace fastlstm

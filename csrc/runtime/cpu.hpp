// What this CPU can run, and what its operating system saves at a switch of threads.
#pragma once

namespace fastlstm {

/// AVX2 and FMA.
bool cpu_has_avx2();
/// AVX-512 F, DQ, BW, VL, and all that cpu_has_avx2 asks for.
bool cpu_has_avx512();
/// Whether a core reads the L3 cache almost as fast as its L2 cache: not on Intel's (29 against 135
/// GB/s on Emerald Rapids; 98 against 117 on Zen 4).
bool cpu_has_fast_l3();

}  // namespace fastlstm

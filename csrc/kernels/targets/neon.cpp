// The target for 64-bit ARM CPUs, all of which have Advanced SIMD (NEON) with FMA.
#if !defined(__aarch64__)
#error "compile this file for AArch64"
#endif
#define FASTLSTM_TARGET neon
#define FASTLSTM_VECTOR_BYTES 16
#include "kernels/target.hpp"

// The target for CPUs with AVX2 and FMA.
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile this file with -mavx2 -mfma"
#endif
#define FASTLSTM_TARGET avx2
#define FASTLSTM_VECTOR_BYTES 32
#include "kernels/target.hpp"

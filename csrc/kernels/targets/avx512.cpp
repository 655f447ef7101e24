// The target for CPUs with AVX-512 (F, DQ, BW, VL).
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || \
    !defined(__AVX512VL__)
#error "compile this file with -mavx512f -mavx512dq -mavx512bw -mavx512vl"
#endif
#define FASTLSTM_TARGET avx512
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/target.hpp"

// Products of bfloat16 for CPUs with AVX-512 BF16.
#if !defined(__AVX512BF16__) || !defined(__AVX512VL__)
#error "compile this file with the flags of avx512 and -mavx512bf16"
#endif
#define FASTLSTM_TARGET avx512_bf16
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/panel_kernels.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(bfloat16_kernels, Bfloat16Products)
}

// Products of bfloat16 and of int8 for CPUs with AMX.
#if !defined(__AMX_TILE__) || !defined(__AMX_BF16__) || !defined(__AMX_INT8__) || \
    !defined(__AVX512VL__)
#error "compile this file with the flags of avx512 and -mamx-tile -mamx-bf16 -mamx-int8"
#endif
#define FASTLSTM_TARGET amx
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/panel_kernels.hpp"
#include "kernels/unit_products.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(bfloat16_kernels, Bfloat16Tiles<AmxUnit>)
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Tiles<AmxUnit>)
}  // namespace fastlstm::FASTLSTM_TARGET

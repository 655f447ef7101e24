// The same on arrays, for tests on CPUs without AMX (but with AVX-512, for all else).
#if !defined(__AVX512F__) || !defined(__AVX512VL__)
#error "compile this file with the flags of avx512"
#endif
#define FASTLSTM_TARGET amx_emulated
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/panel_kernels.hpp"
#include "kernels/unit_products.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(bfloat16_kernels, Bfloat16Tiles<EmulatedUnit>)
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Tiles<EmulatedUnit>)
}  // namespace fastlstm::FASTLSTM_TARGET

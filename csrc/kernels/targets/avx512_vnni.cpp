// Products of int8 for CPUs with AVX-512 VNNI.
#if !defined(__AVX512VNNI__) || !defined(__AVX512VL__)
#error "compile this file with the flags of avx512 and -mavx512vnni"
#endif
#define FASTLSTM_TARGET avx512_vnni
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/panel_kernels.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Products)
}

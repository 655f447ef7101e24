// Products of int8 for CPUs with AVX-VNNI and without AVX-512.
#if !defined(__AVXVNNI__) || defined(__AVX512F__)
#error "compile this file with the flags of avx2 and -mavxvnni"
#endif
#define FASTLSTM_TARGET avx2_vnni
#define FASTLSTM_VECTOR_BYTES 32
#include "kernels/panel_kernels.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Products)
}

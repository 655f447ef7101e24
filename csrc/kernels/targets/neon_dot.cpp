// Products of int8 for 64-bit ARM CPUs with dot products (FEAT_DotProd).
#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile this file with -march=armv8.2-a+dotprod"
#endif
#define FASTLSTM_TARGET neon_dot
#define FASTLSTM_VECTOR_BYTES 16
#include "kernels/panel_kernels.hpp"

namespace fastlstm::FASTLSTM_TARGET {
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Products)
}

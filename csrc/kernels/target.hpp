// All kernels of one target, and their tables.
//
// A target's file checks the compiler flags it needs, sets FASTLSTM_TARGET (its namespace) and
// FASTLSTM_VECTOR_BYTES, and includes this. It is compiled with the flags of that target alone, so
// it must not define anything that the linker could share with other files (see simd/vec.hpp).
#pragma once

#include "kernels/add_outer_products.hpp"
#include "kernels/crf_step.hpp"
#include "kernels/ctc_step.hpp"
#include "kernels/gru_half_steps.hpp"
#include "kernels/gru_step_backward.hpp"
#include "kernels/hash_bytes.hpp"
#include "kernels/layer_norm.hpp"
#include "kernels/list.hpp"
#include "kernels/lstm_norm_backward.hpp"
#include "kernels/lstm_norm_step.hpp"
#include "kernels/lstm_step.hpp"
#include "kernels/lstm_step_backward.hpp"
#include "kernels/optimiser_step.hpp"
#include "kernels/panel_kernels.hpp"
#include "kernels/softmax.hpp"
#include "kernels/transpose_rows.hpp"
#include "kernels/values.hpp"

namespace fastlstm::FASTLSTM_TARGET {

#define FASTLSTM_FLOAT32_ENTRY(name, Arguments) name<float>,
#define FASTLSTM_FLOAT64_ENTRY(name, Arguments) name<double>,

extern const KernelTable<float> float32_kernels;
const KernelTable<float> float32_kernels = {Vec<float>::kLanes, kProjectsAhead,
                                            FASTLSTM_KERNELS(FASTLSTM_FLOAT32_ENTRY)};

extern const KernelTable<double> float64_kernels;
const KernelTable<double> float64_kernels = {Vec<double>::kLanes, kProjectsAhead,
                                             FASTLSTM_KERNELS(FASTLSTM_FLOAT64_ENTRY)};

#undef FASTLSTM_FLOAT32_ENTRY
#undef FASTLSTM_FLOAT64_ENTRY

FASTLSTM_PANEL_TABLE(bfloat16_weights_kernels, Bfloat16Weights)
FASTLSTM_PANEL_TABLE(int8_weights_kernels, Int8Weights)
FASTLSTM_PANEL_TABLE(bfloat16_kernels, Bfloat16Products)
FASTLSTM_PANEL_TABLE(int8_kernels, Int8Products)

}  // namespace fastlstm::FASTLSTM_TARGET

// What a file may do to its reader, whatever its bytes are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "fastlstm/fastlstm.h"

/// Loads a file's bytes and, if they are those of a layer, makes a step with it. Returns whether
/// they are. Ends the process where anything else happens than a layer or a refusal.
inline bool load_and_step(const void* bytes, std::size_t size) {
  fastlstm_stack* stack = nullptr;
  const fastlstm_status status =
      fastlstm_stack_load_bytes(bytes, size, nullptr, &stack, nullptr, 0);
  if (status != FASTLSTM_OK) {
    if (stack != nullptr || (status != FASTLSTM_BAD_FILE && status != FASTLSTM_UNSUPPORTED)) {
      std::abort();
    }
    return false;
  }
  const auto inputs = static_cast<std::size_t>(fastlstm_stack_input_size(stack));
  const auto outputs = static_cast<std::size_t>(fastlstm_stack_output_size(stack));
  fastlstm_status run = FASTLSTM_INTERNAL;
  if (fastlstm_stack_dtype(stack) == FASTLSTM_FLOAT32) {
    const std::vector<float> x(2 * inputs, 0.5f);
    std::vector<float> output(2 * outputs);
    run =
        fastlstm_stack_run_f32(stack, 2, 1, 0, nullptr, x.data(), nullptr, output.data(), nullptr);
  } else {
    const std::vector<double> x(2 * inputs, 0.5);
    std::vector<double> output(2 * outputs);
    run =
        fastlstm_stack_run_f64(stack, 2, 1, 0, nullptr, x.data(), nullptr, output.data(), nullptr);
  }
  if (run != FASTLSTM_OK) std::abort();
  fastlstm_stack_free(stack);
  return true;
}

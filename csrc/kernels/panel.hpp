// A panel of weights as kernels see it. How weights are stored and what multiplies them is one
// thing, the arithmetic: kernels are compiled for each, and who calls them picks those of its
// panels.
//
// Weights are packed so that V vectors of one input stand before those of the next input, all gates
// of the same units together:
//
//   panel: [block][K][V][lanes]
//   bias:  [block][V][lanes]
//
// with zeros for units that do not exist. Block b of an LSTM has the V = 4 gates of the units
// b * lanes ... (b + 1) * lanes - 1, that of a GRU its V = 3 gates. A plain matrix (of a
// projection, or of an RNN) has its columns in blocks of V = 4 vectors. A kernel works on the
// blocks first_block <= b < end_block. weights/weight_panel.hpp packs them.
//
// Small weights stand so too, or as groups of inputs in 32 bits, the last one filled up with zeros:
//
//   bfloat16:                 [block][K / 2][V][lanes], the first input of a pair in the upper half
//   int8, inputs of float32:  [block][K][V][lanes]
//   int8, inputs of int8:     [block][K / 4][V][lanes], the first input of four in the lowest byte
//
// The same for all targets, and what the instructions for pairs and fours read.
#pragma once

#include <cstdint>

#include "fastlstm/arithmetic.hpp"

namespace fastlstm {

template <class T>
struct Panel {
  const void* data = nullptr;
  Arithmetic arithmetic = Arithmetic::kFull;
  const float* scales = nullptr;  // int8: [block][V][lanes], of the columns
  /// kInt8: [block][V][lanes], -128 times the sum of a column's weights.
  const std::int32_t* offsets = nullptr;

  Panel() = default;
  Panel(const T* values) : data(values) {}  // NOLINT: values are a panel that is stored in full
};

/// Inputs of a group.
constexpr int inputs_in_group(Arithmetic a) {
  return a == Arithmetic::kInt8 ? 4 : !is_small(a) || is_int8(a) ? 1 : 2;
}

}  // namespace fastlstm

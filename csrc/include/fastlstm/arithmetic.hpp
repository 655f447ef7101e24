// How weights are stored, and what they are multiplied with.
#pragma once

namespace fastlstm {

/// Of a layer's W, R and projections. All but the first are for float32, and for inference alone.
/// bfloat16 is the upper half of a float32; int8 has a scale for each row of a matrix. Sums of
/// float32 are chains of FMAs over the inputs in order.
enum class Arithmetic : unsigned char {
  kFull,             // as what is computed with
  kBfloat16Weights,  // widened; inputs and sums are float32
  kInt8Weights,      // the same, and the sum times the scale: infinite where that of x q is
  kBfloat16,         // inputs are rounded to bfloat16; sums are float32
  kInt8,  // inputs are rounded to int8, with a scale for each row of them; sums are exact
};
constexpr int kArithmetics = 5;

/// Bits of a weight, and whether a row has a scale.
constexpr bool is_small(Arithmetic a) { return a != Arithmetic::kFull; }
constexpr bool is_int8(Arithmetic a) {
  return a == Arithmetic::kInt8Weights || a == Arithmetic::kInt8;
}
/// Whether inputs are converted before they are multiplied.
constexpr bool converts_inputs(Arithmetic a) {
  return a == Arithmetic::kBfloat16 || a == Arithmetic::kInt8;
}

/// So many products of int8 have a sum of 32 bits, whatever their values are.
constexpr long kMostInt8Inputs = 65536;

}  // namespace fastlstm

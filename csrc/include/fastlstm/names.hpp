// What activations, merges and kinds of arithmetic are called, in files and in Python.
#pragma once

#include <cstddef>
#include <iterator>
#include <optional>
#include <string_view>

#include "fastlstm/activation.hpp"
#include "fastlstm/arithmetic.hpp"
#include "fastlstm/config.hpp"

namespace fastlstm {

/// A function's name, how many parameters it has, and their defaults: ONNX's.
struct ActivationFacts {
  std::string_view name;
  std::size_t parameters;
  double defaults[2];
  bool has_defaults;
};

constexpr ActivationFacts kActivations[] = {
    {"Affine", 2, {}, false},       {"Relu", 0, {}, true},
    {"LeakyRelu", 1, {0.01}, true}, {"ThresholdedRelu", 1, {1.0}, true},
    {"Tanh", 0, {}, true},          {"ScaledTanh", 2, {}, false},
    {"Sigmoid", 0, {}, true},       {"HardSigmoid", 2, {0.2, 0.5}, true},
    {"Elu", 1, {1.0}, true},        {"Softsign", 0, {}, true},
    {"Softplus", 0, {}, true},
};  // in the order of ActivationKind
static_assert(std::size(kActivations) == static_cast<std::size_t>(ActivationKind::kSoftplus) + 1);

inline const ActivationFacts& facts_of(ActivationKind kind) {
  return kActivations[static_cast<std::size_t>(kind)];
}

inline std::optional<ActivationKind> activation_named(std::string_view name) {
  for (std::size_t k = 0; k < std::size(kActivations); ++k) {
    if (name == kActivations[k].name) return static_cast<ActivationKind>(k);
  }
  return std::nullopt;
}

inline std::optional<Merge> merge_named(std::string_view name) {
  constexpr std::string_view kNames[] = {"concat", "sum", "mul", "ave"};  // as Merge
  for (std::size_t k = 0; k < std::size(kNames); ++k) {
    if (name == kNames[k]) return static_cast<Merge>(k);
  }
  return std::nullopt;
}

/// What small weights are, and what the inputs are made before they are multiplied.
struct ArithmeticNames {
  std::string_view weights, activations;
};
constexpr ArithmeticNames kArithmeticNames[] = {
    {"float32", "float32"},   {"bfloat16", "float32"}, {"int8", "float32"},
    {"bfloat16", "bfloat16"}, {"int8", "int8"},
};  // in the order of Arithmetic
static_assert(std::size(kArithmeticNames) == kArithmetics);

inline std::optional<Arithmetic> arithmetic_named(std::string_view weights,
                                                  std::string_view activations) {
  for (std::size_t k = 0; k < std::size(kArithmeticNames); ++k) {
    const ArithmeticNames& names = kArithmeticNames[k];
    if (weights == names.weights && activations == names.activations) {
      return static_cast<Arithmetic>(k);
    }
  }
  return std::nullopt;
}

}  // namespace fastlstm

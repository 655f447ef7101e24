// The one list of parameters that a layer and direction can have. Arrays, checks, gradients, the
// binding and Python's names, shapes and initial values come from it.
#pragma once

#include <vector>

#include "fastlstm/config.hpp"

namespace fastlstm {

/// What a parameter starts with: uniform in +-1/sqrt(H), as PyTorch draws it, or a number.
enum class Initial { kUniform, kZero, kOne };

/// X(name, rows, columns, initial, whether it is present), in PyTorch's order, and row-major.
/// columns 0: a vector. The terms may use the StackConfig c, and GH (rows of all gates), H, P and I
/// (of the layer).
#define FASTLSTM_PARAMETERS(X)                                              \
  X(weight_ih, GH, I, kUniform, true)                                       \
  X(weight_hh, GH, P, kUniform, true)                                       \
  X(bias_ih, GH, 0, kUniform, c.bias)                                       \
  X(bias_hh, GH, 0, kUniform, c.bias)                                       \
  X(weight_hr, P, H, kUniform, c.proj_size > 0)                             \
  X(weight_peephole, 3 * H, 0, kUniform, c.options.peepholes) /* i f o */   \
  X(weight_ln_ih, GH, 0, kOne, c.options.layer_norm)          /* gain_ih */ \
  X(weight_ln_hh, GH, 0, kOne, c.options.layer_norm)          /* gain_hh */ \
  X(weight_ln_c, H, 0, kOne, c.options.layer_norm)            /* gain_c */  \
  X(bias_ln_c, H, 0, kZero, (c.options.layer_norm && c.bias))

/// The parameters of one layer and direction, or their gradients. A null pointer means that the
/// parameter is absent.
template <class T>
struct CellParams {
#define FASTLSTM_FIELD(name, rows, columns, initial, present) T* name = nullptr;
  FASTLSTM_PARAMETERS(FASTLSTM_FIELD)
#undef FASTLSTM_FIELD
};

/// A matrix of small weights: as float32's it has rows of columns.
struct SmallMatrix {
  const void* values = nullptr;   // uint16_t or int8_t (fastlstm/arithmetic.hpp)
  const float* scales = nullptr;  // int8: [rows]
};

/// The weights of one layer and direction, where they are small; its other parameters are in a
/// CellParams, whose own are null.
struct SmallWeights {
  SmallMatrix weight_ih, weight_hh, weight_hr;
};

/// A parameter of the list that is present.
template <class T>
struct Parameter {
  const char* name;
  Index rows, columns;
  Initial initial;
  T* CellParams<T>::* field;
  SmallMatrix SmallWeights::* small;  // its field there; null: it is never small

  Index size() const { return rows * (columns > 0 ? columns : 1); }
};

/// The parameters that a layer of this configuration has.
template <class T>
std::vector<Parameter<T>> parameters_of(const StackConfig& c, Index layer) {
  [[maybe_unused]] const Index H = c.hidden_size, P = c.output_size(), GH = c.gates() * H;
  const Index I = c.layer_input_size(layer);
  std::vector<Parameter<T>> list;
#define FASTLSTM_ADD(name, rows, columns, initial, present) \
  if (present) list.push_back({#name, rows, columns, Initial::initial, &CellParams<T>::name, {}});
  FASTLSTM_PARAMETERS(FASTLSTM_ADD)
#undef FASTLSTM_ADD
  for (Parameter<T>& parameter : list) {
    if (parameter.field == &CellParams<T>::weight_ih) parameter.small = &SmallWeights::weight_ih;
    if (parameter.field == &CellParams<T>::weight_hh) parameter.small = &SmallWeights::weight_hh;
    if (parameter.field == &CellParams<T>::weight_hr) parameter.small = &SmallWeights::weight_hr;
  }
  return list;
}

}  // namespace fastlstm

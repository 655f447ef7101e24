// What each kernel takes: plain structs, shared by all targets. A kernel's name is its
// specification, its struct the details. Rows are contiguous unless a leading dimension is given.
#pragma once

#include <cstdint>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// y = function(x), element by element. For exp_values, sigmoid_values and tanh_values.
template <class T>
struct MapValues {
  Index n;
  const T* x;  // [n] in
  T* y;        // [n] out; may be x
};

/// One time step of an LSTM for some rows, from its pre-activations.
template <class T>
struct LstmStep {
  Index rows;
  Index H;
  bool save_gates;
  const T* bias;  // [4H] in
  T* gates;       // [rows, 4H] in: W x + R h' without the bias; out, if save_gates: i, f, g, o
  T* c;           // [rows, H] in: c'; out: c
  T* h;           // [rows, H] out: o tanh(c), before a projection
};

/// The gradient of one time step for some rows.
template <class T>
struct LstmStepBackward {
  Index rows;
  Index H;
  const T* gates;   // [rows, 4H] in: i, f, g, o
  const T* c;       // [rows, H] in
  const T* c_prev;  // [rows, H] in
  const T* d_h;     // [rows, H] in: gradient of o tanh(c), from the output and the next step
  T* d_c;           // [rows, H] in: gradient of c from the next step; out: gradient of c_prev
  T* d_gates;       // [rows, 4H] out: gradient of the pre-activations; may be gates
};

/// What a projection reads: o tanh(c), for some rows.
template <class T>
struct LstmHidden {
  Index rows;
  Index H;
  const T* gates;  // [rows, 4H] in: i, f, g, o
  const T* c;      // [rows, H] in
  T* hidden;       // [rows, H] out
};

/// sums += the column sums of values.
template <class T>
struct AddColumnSums {
  Index rows;
  Index columns;
  const T* values;  // [rows, columns] in
  T* sums;          // [columns] in and out
};

/// Dropout of one row: y = x * mask / (1 - p), the mask drawn from (seed, layer, row, column).
template <class T>
struct DropoutRow {
  Index columns;
  std::uint64_t seed;
  std::uint32_t layer;
  std::uint64_t row;
  double p;    // 0 <= p <= 1: the part that becomes zero
  const T* x;  // [columns] in
  T* y;        // [columns] out; may be x
};

}  // namespace fastlstm

// Arrays of Python for the core. The Python layer has checked and converted everything; what is
// checked again here keeps a wrong call from touching memory that is not its own.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fastlstm/stack.hpp"

namespace fastlstm::python {

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;
template <class T>
using OptionalArray = std::optional<Array<T>>;
/// The parts of a state, or of its gradient; None: zeros, or not asked for.
template <class T>
using StateArrays = std::optional<std::vector<OptionalArray<T>>>;
/// The parameters of a cell, or their gradients, by name.
template <class T>
using ParameterArrays = std::map<std::string, Array<T>>;
using Shape = std::vector<Index>;

inline void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument("_core: wrong array: " + what);
}

template <class T>
bool has_shape(const Array<T>& a, const Shape& shape) {
  return Shape(a.shape(), a.shape() + a.ndim()) == shape;
}

/// array: contiguous, of this shape. Writable if the pointer is to be written to.
template <class T>
const T* read(const Array<T>& array, const Shape& shape, const std::string& what) {
  require(has_shape(array, shape), what);
  return array.data();
}
template <class T>
T* write(Array<T>& array, const Shape& shape, const std::string& what) {
  require(has_shape(array, shape), what);
  return array.mutable_data();
}
template <class T>
const T* read(const OptionalArray<T>& array, const Shape& shape, const std::string& what) {
  return array ? read(*array, shape, what) : nullptr;
}
template <class T>
T* write(OptionalArray<T>& array, const Shape& shape, const std::string& what) {
  return array ? write(*array, shape, what) : nullptr;
}

/// pointers: by part of the state, out. dimensions: those before a part's width.
template <class T>
void read_state(const StackConfig& config, const StateArrays<T>& arrays, Shape dimensions,
                const std::string& what, const T* (&pointers)[kMostStateParts]) {
  if (!arrays) return;
  const std::vector<StatePart> parts = config.state_parts();
  require(arrays->size() == parts.size(), what);
  dimensions.push_back(0);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    dimensions.back() = parts[p].width;
    pointers[p] = read((*arrays)[p], dimensions, what);
  }
}
/// The same of what is written: all parts or none.
template <class T>
void write_state(const StackConfig& config, StateArrays<T>& arrays, Shape dimensions,
                 const std::string& what, T* (&pointers)[kMostStateParts]) {
  if (!arrays) return;
  const std::vector<StatePart> parts = config.state_parts();
  require(arrays->size() == parts.size(), what);
  dimensions.push_back(0);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    require((*arrays)[p].has_value(), what);
    dimensions.back() = parts[p].width;
    pointers[p] = write((*arrays)[p], dimensions, what);
  }
}

/// New arrays for all parts of a state, and pointers to them.
template <class T>
std::vector<Array<T>> new_state(const StackConfig& config, Shape dimensions,
                                T* (&pointers)[kMostStateParts]) {
  std::vector<Array<T>> arrays;
  dimensions.push_back(0);
  for (const StatePart& part : config.state_parts()) {
    dimensions.back() = part.width;
    arrays.emplace_back(dimensions);
    pointers[arrays.size() - 1] = arrays.back().mutable_data();
  }
  return arrays;
}

template <class T>
Shape shape_of(const Parameter<T>& parameter) {
  if (parameter.columns == 0) return {parameter.rows};
  return {parameter.rows, parameter.columns};
}

/// The parameters of cell k, all that there are.
template <class T>
CellParams<const T> read_parameters(const StackConfig& config, Index k,
                                    const ParameterArrays<T>& arrays) {
  CellParams<const T> params;
  const auto list = parameters_of<const T>(config, k / config.directions());
  require(arrays.size() == list.size(), "number of parameters");
  for (const auto& parameter : list) {
    const auto found = arrays.find(parameter.name);
    require(found != arrays.end(), parameter.name);
    params.*parameter.field = read(found->second, shape_of(parameter), parameter.name);
  }
  return params;
}

/// Gradients of those that are asked for.
template <class T>
CellParams<T> write_parameters(const StackConfig& config, Index k, ParameterArrays<T>& arrays) {
  CellParams<T> params;
  std::size_t known = 0;
  for (const auto& parameter : parameters_of<T>(config, k / config.directions())) {
    const auto found = arrays.find(parameter.name);
    if (found == arrays.end()) continue;
    params.*parameter.field = write(found->second, shape_of(parameter), parameter.name);
    ++known;
  }
  require(known == arrays.size(), "names of parameters");
  return params;
}

/// How the rows of a sequence are ordered; the numbers are Python's.
enum class Order { kTimeFirst = 0, kBatchFirst = 1, kPacked = 2 };

/// The sizes of a call's sequences, and their order.
struct Layout {
  Index steps, B;
  Order order;
  Index rows;  // of all steps; packed, those that live

  Shape shape(Index width) const {
    if (order == Order::kPacked) return {rows, width};
    return order == Order::kBatchFirst ? Shape{B, steps, width} : Shape{steps, B, width};
  }
  template <class V>
  SequenceView<V> view(V* data, Index width) const {
    if (order == Order::kPacked) return SequenceView<V>::packed_rows(data, width);
    const bool batch_first = order == Order::kBatchFirst;
    return {data, batch_first ? width : B * width, batch_first ? steps * width : width};
  }
};

template <class T>
Layout layout_of(const Array<T>& x, bool batch_first) {
  require(x.ndim() == 3, "x");
  const Index steps = x.shape(batch_first ? 1 : 0), B = x.shape(batch_first ? 0 : 1);
  return {steps, B, batch_first ? Order::kBatchFirst : Order::kTimeFirst, steps * B};
}

/// lengths: [B] of sequences of so many steps.
inline void check_lengths(const Index* lengths, Index steps, Index B) {
  for (Index b = 0; b < B; ++b) require(0 <= lengths[b] && lengths[b] <= steps, "lengths");
}

/// A tape for Python knows the shape of its call.
template <class T>
struct PyTape {
  StackConfig config;
  Layout layout;
  Tape<T> tape;
};

}  // namespace fastlstm::python

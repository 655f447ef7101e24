// Tensors of PyTorch: what they are and where, by the table of C functions that their class has for
// it (DLPack's exchange API, https://dmlc.github.io/dlpack). No number of Python's is made.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "fastlstm/types.hpp"

namespace fastlstm::python {

/// A tensor of PyTorch's own class on the CPU, whose memory is its values, row-major.
struct TensorView {
  void* data = nullptr;
  const std::int64_t* shape = nullptr;  // [dimensions] the tensor's own
  int dimensions = 0;
  Index size = 0;

  /// columns 0: a vector.
  bool has_shape(Index rows, Index columns) const;
};

/// Whether the object is such a tensor, with values of so many bytes; if so, where.
/// Called with the interpreter's lock.
bool view_tensor(pybind11::handle object, std::size_t value_bytes, TensorView* view);

/// How often PyTorch has counted a write to the tensor; -1: it does not count.
std::int64_t version_of(pybind11::handle tensor);

/// tensor, parameter: the classes. Before anything else here.
void set_tensor_classes(const pybind11::type& tensor, const pybind11::type& parameter);

}  // namespace fastlstm::python

// Safetensors files: eight bytes of a length, a header of JSON, and the values of each tensor.
#pragma once

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "files/json.hpp"

namespace fastlstm {

/// A tensor of a file, or a caller's.
struct Tensor {
  std::string name;
  std::string dtype;         // as safetensors calls it: "F32"
  std::vector<Index> shape;  // row-major
  std::string_view bytes;    // in memory that is not the tensor's
};

struct Safetensors {
  std::vector<Tensor> tensors;
  std::optional<std::string> fastlstm;  // the metadata's entry of this name
};

/// Reads a whole file's bytes, which must outlive what is returned. Throws BadFile for one that is
/// damaged: then nothing of it is used.
Safetensors parse_safetensors(std::string_view bytes);

/// A file that the system does not give.
struct NotReadable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A whole file. Throws NotReadable.
std::vector<char> read_file(const std::string& path);

/// The values of a tensor as T, where T holds them without rounding: of F64, F32, F16 and BF16.
/// kept: gets memory for what cannot be used where it is. Throws Unsupported for other types.
template <class T>
const T* values_of(const Tensor& tensor, std::vector<std::vector<T>>& kept);

}  // namespace fastlstm

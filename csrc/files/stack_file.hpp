// Stacks from files: what a layer's `save` in Python writes, and PyTorch's tensors.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fastlstm/stack.hpp"
#include "files/safetensors.hpp"

namespace fastlstm {

/// A layer's configuration as its file has it.
struct Configuration {
  StackConfig config;
  bool is_double = false;
};

using AnyStack = std::variant<Stack<float>, Stack<double>>;

/// Reads {"layer": "LSTM", "options": {"input_size": 1, ...}}, the text in a file's metadata.
/// Options that are left out have their defaults; those of training alone and batch_first, the
/// order of arrays, change nothing here. Throws BadFile, or Unsupported for an option, by its name,
/// that this version does not know.
Configuration read_configuration(std::string_view text);

/// A stack of these tensors, named and shaped as PyTorch's: all of the configuration's, and no
/// others. Throws BadFile, or Unsupported for values of a type that would have to be rounded.
AnyStack make_stack(const Configuration& configuration, const std::vector<Tensor>& tensors);

/// The stack in the bytes of a safetensors file. Without a configuration of its own it is described
/// by `configuration`, or, where that is empty too, by its tensors' names and shapes: an LSTM, or a
/// GRU whose reset gate is applied after the product, with the usual functions. An RNN has tanh or
/// relu, and must be described. A file may have other tensors beside those of one module, whose
/// names all begin alike ("encoder.lstm.").
AnyStack read_stack(std::string_view bytes, std::string_view configuration);

}  // namespace fastlstm

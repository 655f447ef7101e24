// Layers of every kind for tests of the package, with what its users see alone: a configuration,
// tensors, and the safetensors file of both.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "fastlstm/fastlstm.hpp"
#include "file_parts.hpp"

/// A layer's file in the making.
template <class T>
struct Model {
  struct Parameter {
    std::string name;
    std::int64_t rows, columns;  // 0: a vector
    std::vector<T> values;
  };

  std::string configuration;
  std::vector<Parameter> parameters;

  std::vector<fastlstm::Tensor<T>> tensors() const {
    std::vector<fastlstm::Tensor<T>> all;
    for (const Parameter& p : parameters)
      all.push_back({p.name, p.values.data(), p.rows, p.columns});
    return all;
  }
  fastlstm::Stack<T> stack() const { return {configuration, tensors()}; }
};

/// What a layer is, in short; options: more of them, as JSON.
struct Kind {
  std::string name;
  int gates;
  std::int64_t I, H, L = 1, P = 0;
  std::string options{};
  bool bidirectional = false, bias = true, peepholes = false, layer_norm = false;
};

/// Every cell, with options of each.
inline std::vector<Kind> every_kind(std::int64_t I, std::int64_t H) {
  return {
      {"LSTM", 4, I, H, 2, 0, ""},
      {"LSTM", 4, I, H, 1, H / 2, R"("zoneout": [0.1, 0.2])"},
      {"LSTM", 4, I, H, 1, 0, R"("peepholes": true, "clip": 2.5)", false, true, true},
      {"LSTM", 4, I, H, 2, 0, R"("layer_norm": true)", false, true, false, true},
      {"LSTM", 4, I, H, 1, 0, R"("input_forget": true,
          "activations": [["HardSigmoid", 0.3, 0.4], "Softsign", ["LeakyRelu", 0.1]])"},
      {"GRU", 3, I, H, 2, 0, R"("bias": false)", false, false},
      {"GRU", 3, I, H, 1, 0, R"("reset_after": false, "zoneout": 0.25)"},
      {"RNN", 1, I, H, 2, 0, R"("nonlinearity": "relu")"},
      {"RNN", 1, I, H, 1, 0, R"("clip": 1.0, "activations": null)"},
  };
}

template <class T>
Model<T> make_model(const Kind& kind) {
  Model<T> model;
  std::uint32_t random = 1;
  const std::int64_t H = kind.H, P = kind.P > 0 ? kind.P : H, GH = kind.gates * H;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    auto& p = model.parameters.emplace_back();
    p.name = name;
    p.rows = rows;
    p.columns = columns;
    p.values.resize(static_cast<std::size_t>(rows * (columns > 0 ? columns : 1)));
    for (T& value : p.values) {
      random = random * 1664525u + 1013904223u;  // of Knuth and Lewis
      value = static_cast<T>(random >> 8) / static_cast<T>(1 << 24) - T(0.5);
    }
  };
  for (std::int64_t layer = 0; layer < kind.L; ++layer) {
    const std::int64_t inputs = layer == 0 ? kind.I : (kind.bidirectional ? 2 : 1) * P;
    for (const char* direction : {"", "_reverse"}) {
      if (*direction != '\0' && !kind.bidirectional) continue;
      const std::string end = "_l" + std::to_string(layer) + direction;
      add("weight_ih" + end, GH, inputs);
      add("weight_hh" + end, GH, P);
      if (kind.bias) add("bias_ih" + end, GH, 0);
      if (kind.bias) add("bias_hh" + end, GH, 0);
      if (kind.P > 0) add("weight_hr" + end, P, H);
      if (kind.peepholes) add("weight_peephole" + end, 3 * H, 0);
      if (kind.layer_norm) {
        add("weight_ln_ih" + end, GH, 0);
        add("weight_ln_hh" + end, GH, 0);
        add("weight_ln_c" + end, H, 0);
        if (kind.bias) add("bias_ln_c" + end, H, 0);
      }
    }
  }
  model.configuration = R"({"layer": ")" + kind.name + R"(", "options": {"input_size": )" +
                        std::to_string(kind.I) + R"(, "hidden_size": )" + std::to_string(H) +
                        R"(, "num_layers": )" + std::to_string(kind.L);
  if (kind.P > 0) model.configuration += R"(, "proj_size": )" + std::to_string(kind.P);
  if (kind.bidirectional) model.configuration += R"(, "bidirectional": true)";
  if (sizeof(T) == sizeof(double)) model.configuration += R"(, "dtype": "float64")";
  if (!kind.options.empty()) model.configuration += ", " + kind.options;
  model.configuration += "}}";
  return model;
}

/// with_configuration: as Python's; without: as PyTorch's state_dict of `prefix`.
template <class T>
std::string file_of(const Model<T>& model, bool with_configuration,
                    const std::string& prefix = "") {
  std::string header = "{", values;
  if (with_configuration) {
    header += R"("__metadata__": {"fastlstm": )" + quoted(model.configuration) + "}";
  }
  for (const auto& p : model.parameters) {
    const std::size_t begin = values.size(), bytes = p.values.size() * sizeof(T);
    values.resize(begin + bytes);
    std::memcpy(&values[begin], p.values.data(), bytes);
    if (header.size() > 1) header += ", ";
    header += quoted(prefix + p.name) + R"(: {"dtype": ")" +
              (sizeof(T) == sizeof(double) ? "F64" : "F32") + R"(", "shape": [)" +
              std::to_string(p.rows) + (p.columns > 0 ? ", " + std::to_string(p.columns) : "") +
              R"(], "data_offsets": [)" + std::to_string(begin) + ", " +
              std::to_string(begin + bytes) + "]}";
  }
  return file_of(header + "}", values);
}

#include "config.hpp"

#include <pybind11/stl.h>

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "fastlstm/names.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

/// What a key sets.
using Setters = std::map<std::string, std::function<void(py::handle)>>;

void apply(const py::dict& values, const Setters& setters, const char* what) {
  for (const auto& [key, value] : values) {
    const std::string name = py::str(key);
    const auto setter = setters.find(name);
    if (setter == setters.end()) {
      throw std::invalid_argument("_core: unknown " + std::string(what) + ": " + name);
    }
    try {
      setter->second(value);
    } catch (const py::cast_error&) {
      throw std::invalid_argument("_core: wrong " + std::string(what) + ": " + name);
    }
  }
}

template <class V>
std::function<void(py::handle)> into(V& to) {
  return [&to](py::handle value) { to = value.cast<V>(); };
}

CellKind cell_named(const std::string& name) {
  for (const CellFacts& facts : kCells) {
    if (name == facts.name) return facts.kind;
  }
  throw std::invalid_argument("_core: unknown cell: " + name);
}

Activation activation_of(py::handle function) {
  const auto [name, alpha, beta] = function.cast<std::tuple<std::string, double, double>>();
  const auto kind = activation_named(name);
  if (!kind.has_value()) throw std::invalid_argument("_core: unknown activation: " + name);
  return {*kind, alpha, beta};
}

Merge merge_of(const std::string& name) {
  const auto merge = merge_named(name);
  if (!merge.has_value()) throw std::invalid_argument("_core: unknown merge: " + name);
  return *merge;
}

Arithmetic arithmetic_of(py::handle names) {
  const auto [weights, activations] = names.cast<std::tuple<std::string, std::string>>();
  const auto arithmetic = arithmetic_named(weights, activations);
  if (!arithmetic.has_value()) {
    throw std::invalid_argument("_core: unknown arithmetic: " + weights + ", " + activations);
  }
  return *arithmetic;
}

}  // namespace

StackConfig config_of(const py::dict& values) {
  StackConfig c;
  CellOptions& o = c.options;
  apply(values,
        {{"cell", [&](py::handle v) { c.cell = cell_named(v.cast<std::string>()); }},
         {"input_size", into(c.input_size)},
         {"hidden_size", into(c.hidden_size)},
         {"num_layers", into(c.num_layers)},
         {"bias", into(c.bias)},
         {"proj_size", into(c.proj_size)},
         {"bidirectional", into(c.bidirectional)},
         {"reverse", into(c.reverse)},
         {"arithmetic", [&](py::handle v) { c.arithmetic = arithmetic_of(v); }},
         {"merge", [&](py::handle v) { c.merge = merge_of(v.cast<std::string>()); }},
         {"activations",
          [&](py::handle v) {
            const auto functions = v.cast<std::vector<py::object>>();
            if (functions.size() != 3) throw std::invalid_argument("_core: activations: not 3");
            o.gate = activation_of(functions[0]);
            o.candidate = activation_of(functions[1]);
            o.hidden = activation_of(functions[2]);
          }},
         {"clip", into(o.clip)},
         {"input_forget", into(o.input_forget)},
         {"peepholes", into(o.peepholes)},
         {"layer_norm", into(o.layer_norm)},
         {"zoneout_h", into(o.zoneout_h)},
         {"zoneout_c", into(o.zoneout_c)}},
        "option");
  check_config(c);
  return c;
}

Regularisation regularisation_of(const py::dict& values) {
  Regularisation r;
  apply(values,
        {{"dropout", into(r.dropout)},
         {"seed", into(r.seed)},
         {"recurrent_dropout", into(r.recurrent_dropout)},
         {"weight_dropout", into(r.weight_dropout)},
         {"zoneout", into(r.zoneout)}},
        "regularisation");
  return r;
}

}  // namespace fastlstm::python

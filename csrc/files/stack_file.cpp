#include "files/stack_file.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>

#include "fastlstm/names.hpp"

namespace fastlstm {

namespace {

// Of small weights another, which readers that do not know them refuse.
constexpr Index kFormat = 1, kSmallFormat = 2;

// --- functions -----------------------------------------------------------------------------------

/// "Tanh", or with parameters ["HardSigmoid", 0.2, 0.5].
Activation read_function(JsonReader& json) {
  std::string name;
  std::vector<double> given;
  if (json.next_kind() == '"') {
    name = json.string();
  } else {
    bool first = true;
    json.array([&] {
      if (std::exchange(first, false)) {
        name = json.string();
      } else {
        given.push_back(json.number());
        if (given.size() > 2) throw BadFile("too many parameters of a function");
      }
    });
  }
  const auto kind = activation_named(name);
  if (!kind.has_value()) throw Unsupported("function " + shown(name));
  const ActivationFacts& facts = facts_of(*kind);
  if (given.size() > facts.parameters || (!facts.has_defaults && given.size() < facts.parameters)) {
    throw BadFile("function " + name + ": another number of parameters");
  }
  double parameters[2] = {facts.defaults[0], facts.defaults[1]};
  std::copy(given.begin(), given.end(), parameters);
  return {*kind, parameters[0], parameters[1]};
}

// --- options -------------------------------------------------------------------------------------

/// What stands in a configuration, before it is known which layer it is of.
struct Options {
  std::string layer;
  StackConfig config;
  bool reset_after = true;
  std::string nonlinearity = "tanh";
  std::vector<Activation> functions;  // empty: the usual ones
  std::vector<double> zoneout;        // of h and c, of an LSTM one number is both; empty: none
  std::set<std::string> given;
  std::string dtype = "float32";
};

Merge read_merge(JsonReader& json) {
  if (json.next_kind() == 'n') {
    json.null();  // in Python an array for each direction; here they are side by side
    return Merge::kConcat;
  }
  const std::string name = json.string();
  const auto merge = merge_named(name);
  if (!merge.has_value()) throw Unsupported("merge " + shown(name));
  return *merge;
}

/// One probability, or two, for h and c.
std::vector<double> read_zoneout(JsonReader& json) {
  if (json.next_kind() != '[') return {json.number()};
  std::vector<double> both;
  json.array([&] {
    both.push_back(json.number());
    if (both.size() > 2) throw BadFile("zoneout: expected two numbers");
  });
  if (both.size() != 2) throw BadFile("zoneout: expected two numbers");
  return both;
}

/// How small weights are stored and multiplied.
Arithmetic read_quantization(JsonReader& json) {
  std::string weights, activations;
  json.object([&](const std::string& name) {
    if (name != "weights" && name != "activations") throw Unsupported("entry " + shown(name));
    (name == "weights" ? weights : activations) = json.string();
  });
  const auto arithmetic = arithmetic_named(weights, activations);
  if (!arithmetic.has_value() || !is_small(*arithmetic)) {
    throw Unsupported("weights of " + shown(weights) + " with " + shown(activations));
  }
  return *arithmetic;
}

void read_option(JsonReader& json, const std::string& name, Options& options) {
  StackConfig& c = options.config;
  if (!options.given.insert(name).second) throw BadFile("option " + shown(name) + " twice");
  if (name == "input_size") {
    c.input_size = json.integer();
  } else if (name == "hidden_size") {
    c.hidden_size = json.integer();
  } else if (name == "num_layers") {
    c.num_layers = json.integer();
  } else if (name == "proj_size") {
    c.proj_size = json.integer();
  } else if (name == "bias") {
    c.bias = json.boolean();
  } else if (name == "bidirectional") {
    c.bidirectional = json.boolean();
  } else if (name == "reverse") {
    c.reverse = json.boolean();
  } else if (name == "merge") {
    c.merge = read_merge(json);
  } else if (name == "dtype") {
    options.dtype = json.string();
  } else if (name == "peepholes") {
    c.options.peepholes = json.boolean();
  } else if (name == "input_forget") {
    c.options.input_forget = json.boolean();
  } else if (name == "layer_norm") {
    c.options.layer_norm = json.boolean();
  } else if (name == "reset_after") {
    options.reset_after = json.boolean();
  } else if (name == "nonlinearity") {
    options.nonlinearity = json.string();
  } else if (name == "zoneout") {
    options.zoneout = read_zoneout(json);
  } else if (name == "clip") {
    if (json.next_kind() == 'n') {
      json.null();
    } else {
      c.options.clip = json.number();
    }
  } else if (name == "activations") {
    if (json.next_kind() == 'n') {
      json.null();
    } else {
      json.array([&] {
        options.functions.push_back(read_function(json));
        if (options.functions.size() > 3) throw BadFile("activations: more than three");
      });
      if (options.functions.empty()) throw BadFile("activations: none");
    }
  } else if (name == "batch_first") {
    static_cast<void>(json.boolean());
  } else if (name == "dropout" || name == "recurrent_dropout" || name == "weight_dropout") {
    static_cast<void>(json.number());
  } else {
    throw Unsupported("option " + shown(name));
  }
}

/// Options that only some layers have.
void check_options(const Options& options, const std::set<std::string>& own) {
  for (const char* name :
       {"proj_size", "peepholes", "input_forget", "layer_norm", "reset_after", "nonlinearity"}) {
    if (options.given.count(name) > 0 && own.count(name) == 0) {
      throw BadFile("option " + shown(name) + " of a layer that has none");
    }
  }
}

void set_functions(const Options& options, const std::vector<Activation*>& to) {
  if (options.functions.empty()) return;
  if (options.functions.size() != to.size()) throw BadFile("activations: another number");
  for (std::size_t k = 0; k < to.size(); ++k) *to[k] = options.functions[k];
}

StackConfig config_of(const Options& options) {
  StackConfig c = options.config;
  CellOptions& o = c.options;
  if (!options.zoneout.empty()) {
    const bool has_c = options.layer == "LSTM";
    if (!has_c && options.zoneout.size() > 1) throw BadFile("zoneout: expected a number");
    o.zoneout_h = options.zoneout.front();
    if (has_c) o.zoneout_c = options.zoneout.back();
  }
  if (options.layer == "LSTM") {
    check_options(options, {"proj_size", "peepholes", "input_forget", "layer_norm"});
    set_functions(options, {&o.gate, &o.candidate, &o.hidden});
  } else if (options.layer == "GRU") {
    check_options(options, {"reset_after"});
    c.cell = options.reset_after ? CellKind::kGru : CellKind::kGruResetBefore;
    set_functions(options, {&o.gate, &o.candidate});
  } else if (options.layer == "RNN") {
    check_options(options, {"nonlinearity"});
    const bool relu = options.nonlinearity == "relu";
    if (!relu && options.nonlinearity != "tanh") {
      throw Unsupported("nonlinearity " + shown(options.nonlinearity));
    }
    if (options.functions.empty() && o.clip == CellOptions().clip) {
      c.cell = relu ? CellKind::kRnnRelu : CellKind::kRnnTanh;
    } else {  // the cell with any function
      c.cell = CellKind::kRnnTanh;
      if (relu) o.candidate = {ActivationKind::kRelu};
      set_functions(options, {&o.candidate});
    }
  } else {
    throw Unsupported("layer " + shown(options.layer));
  }
  return c;
}

// --- tensors ------------------------------------------------------------------------------------

/// In the order of their names.
using Tensors = std::vector<const Tensor*>;

Tensors sorted(const std::vector<Tensor>& tensors) {
  Tensors all;
  for (const Tensor& tensor : tensors) all.push_back(&tensor);
  std::sort(all.begin(), all.end(),
            [](const Tensor* a, const Tensor* b) { return a->name < b->name; });
  return all;
}

/// Null: there is none.
const Tensor* find(const Tensors& tensors, const std::string& name) {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const Tensor* tensor, const std::string& n) { return tensor->name < n; });
  return at != tensors.end() && (*at)->name == name ? *at : nullptr;
}

std::string suffix(Index layer, bool second) {
  return "_l" + std::to_string(layer) + (second ? "_reverse" : "");
}

std::string text_of(const std::vector<Index>& shape) {
  std::string text = "[";
  for (const Index size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

/// Tensors that are asked for, each of which must be there, and no others.
class NamedTensors {
 public:
  explicit NamedTensors(const std::vector<Tensor>& given) : tensors_(sorted(given)) {}

  const Tensor& of(const std::string& name, const std::vector<Index>& shape) {
    const Tensor* tensor = find(tensors_, name);
    if (tensor == nullptr) throw BadFile("no tensor " + shown(name));
    if (tensor->shape != shape) {
      throw BadFile(name + ": expected the shape " + text_of(shape) + ", got " +
                    text_of(tensor->shape));
    }
    used_.insert(tensor);
    return *tensor;
  }
  void check_all_used() const {
    for (const Tensor* tensor : tensors_) {
      if (used_.count(tensor) == 0) throw BadFile("unexpected tensor " + shown(tensor->name));
    }
  }

 private:
  const Tensors tensors_;
  std::set<const Tensor*> used_;
};

/// The bytes of values of this type, aligned to two.
const void* stored_values(const Tensor& tensor, const std::string& dtype,
                          std::vector<std::vector<std::uint16_t>>& kept) {
  if (tensor.dtype != dtype) {
    throw Unsupported(shown(tensor.name) + ": expected " + dtype + ", got " + shown(tensor.dtype));
  }
  const char* bytes = tensor.bytes.data();
  if (reinterpret_cast<std::uintptr_t>(bytes) % 2 == 0) return bytes;
  std::vector<std::uint16_t>& copy = kept.emplace_back((tensor.bytes.size() + 1) / 2);
  std::memcpy(copy.data(), bytes, tensor.bytes.size());
  return copy.data();
}

SmallMatrix small_matrix(const StackConfig& config, const Parameter<const float>& parameter,
                         const std::string& name, const Tensor& tensor, NamedTensors& tensors,
                         std::vector<std::vector<std::uint16_t>>& kept_small,
                         std::vector<std::vector<float>>& kept) {
  SmallMatrix matrix;
  matrix.values = stored_values(tensor, is_int8(config.arithmetic) ? "I8" : "BF16", kept_small);
  if (!is_int8(config.arithmetic)) return matrix;
  matrix.scales = values_of(tensors.of(name + "_scale", {parameter.rows}), kept);
  for (Index row = 0; row < parameter.rows; ++row) {
    const float scale = matrix.scales[row];
    if (!(scale >= 0 && scale <= std::numeric_limits<float>::max())) {
      throw BadFile(name + "_scale: expected finite scales of at least 0");
    }
  }
  return matrix;
}

template <class T>
Stack<T> make_stack_of(const StackConfig& config, const std::vector<Tensor>& given) {
  NamedTensors tensors(given);
  const bool small = is_small(config.arithmetic);
  std::vector<CellParams<const T>> params;
  std::vector<SmallWeights> weights;
  std::vector<std::vector<T>> kept;
  std::vector<std::vector<std::uint16_t>> kept_small;
  for (Index k = 0; k < config.cells(); ++k) {
    const Index layer = k / config.directions();
    CellParams<const T>& cell = params.emplace_back();
    SmallWeights& of_cell = weights.emplace_back();
    for (const auto& parameter : parameters_of<const T>(config, layer)) {
      const std::string name = parameter.name + suffix(layer, k % config.directions() == 1);
      std::vector<Index> shape{parameter.rows};
      if (parameter.columns > 0) shape.push_back(parameter.columns);
      const Tensor& tensor = tensors.of(name, shape);
      if constexpr (std::is_same_v<T, float>) {
        if (small && parameter.small != nullptr) {
          of_cell.*parameter.small =
              small_matrix(config, parameter, name, tensor, tensors, kept_small, kept);
          continue;
        }
      }
      cell.*parameter.field = values_of(tensor, kept);
    }
  }
  tensors.check_all_used();
  if (small) return Stack<T>(config, params.data(), weights.data());
  return Stack<T>(config, params.data());
}

// --- files without a configuration --------------------------------------------------------------

/// The tensors of the one module of these, with names that no longer begin with the module's.
std::vector<Tensor> only_module(const std::vector<Tensor>& tensors) {
  constexpr std::string_view kFirst = "weight_ih_l0";
  std::optional<std::string> prefix;
  for (const Tensor& tensor : tensors) {
    if (tensor.name.size() < kFirst.size()) continue;
    const std::size_t at = tensor.name.size() - kFirst.size();
    if (tensor.name.compare(at, kFirst.size(), kFirst) != 0) continue;
    if (at > 0 && tensor.name[at - 1] != '.') continue;
    if (prefix) {
      throw BadFile("it has several recurrent modules: " + shown(*prefix) + ", " +
                    shown(tensor.name.substr(0, at)));
    }
    prefix = tensor.name.substr(0, at);
  }
  if (!prefix) throw BadFile("it has no recurrent module: no tensor weight_ih_l0");
  std::vector<Tensor> own;
  for (const Tensor& tensor : tensors) {
    // In a model without a module's name others may stand beside.
    const bool is_own = prefix->empty() ? tensor.name.find('.') == std::string::npos
                                        : tensor.name.compare(0, prefix->size(), *prefix) == 0;
    if (is_own) own.emplace_back(tensor).name.erase(0, prefix->size());
  }
  return own;
}

/// What names and shapes say of a module of PyTorch's.
Configuration guess_configuration(const std::vector<Tensor>& tensors) {
  const Tensors all = sorted(tensors);
  const auto has = [&](const char* name, Index layer, bool second) {
    return find(all, name + suffix(layer, second)) != nullptr;
  };
  const auto matrix = [&](const char* name) -> const Tensor& {
    const Tensor* tensor = find(all, name + suffix(0, false));
    if (tensor == nullptr || tensor->shape.size() != 2 || tensor->shape[0] < 1 ||
        tensor->shape[1] < 1) {
      throw BadFile(std::string("no matrix ") + name + "_l0");
    }
    return *tensor;
  };
  const Tensor &W = matrix("weight_ih"), &R = matrix("weight_hh");
  Configuration found;
  found.is_double = W.dtype == "F64";
  StackConfig& c = found.config;
  c.input_size = W.shape[1];
  c.hidden_size = R.shape[1];
  if (has("weight_hr", 0, false)) {
    c.proj_size = R.shape[1];
    c.hidden_size = matrix("weight_hr").shape[1];
  }
  if (R.shape[0] == c.hidden_size) {
    throw Unsupported("a file that does not say whether its RNN has tanh or relu: give options");
  }
  if (R.shape[0] % c.hidden_size != 0 ||
      (R.shape[0] / c.hidden_size != 4 && R.shape[0] / c.hidden_size != 3)) {
    throw BadFile("weight_hh_l0: the shape " + text_of(R.shape) + " is no LSTM's nor GRU's");
  }
  c.cell = R.shape[0] / c.hidden_size == 4 ? CellKind::kLstm : CellKind::kGru;
  c.bidirectional = has("weight_ih", 0, true);
  c.bias = has("bias_ih", 0, false);
  while (has("weight_ih", c.num_layers, false)) ++c.num_layers;
  return found;
}

}  // namespace

Configuration read_configuration(std::string_view text) {
  JsonReader json(text);
  Options options;
  Index format = kFormat;
  std::optional<Arithmetic> arithmetic;
  std::set<std::string> seen;
  json.object([&](const std::string& name) {
    if (!seen.insert(name).second) throw BadFile(shown(name) + " stands there twice");
    if (name == "format") {
      format = json.integer();
      if (format != kFormat && format != kSmallFormat) {
        throw Unsupported("format " + std::to_string(format));
      }
    } else if (name == "layer") {
      options.layer = json.string();
    } else if (name == "options") {
      json.object([&](const std::string& option) { read_option(json, option, options); });
    } else if (name == "quantization") {
      arithmetic = read_quantization(json);
    } else if (name == "module") {
      throw Unsupported("a module of several parts: save its layer alone");
    } else {
      throw Unsupported("entry " + shown(name));
    }
  });
  json.end();
  if (options.dtype != "float32" && options.dtype != "float64") {
    throw Unsupported("dtype " + shown(options.dtype));
  }
  if (arithmetic.has_value() != (format == kSmallFormat) ||
      (arithmetic.has_value() && options.dtype != "float32")) {
    throw BadFile("quantization: expected of format 2 and float32 alone");
  }
  options.config.arithmetic = arithmetic.value_or(Arithmetic::kFull);
  return {config_of(options), options.dtype == "float64"};
}

AnyStack make_stack(const Configuration& configuration, const std::vector<Tensor>& tensors) {
  try {
    check_config(configuration.config);
  } catch (const std::invalid_argument&) {
    throw BadFile("a size or an option is out of range, or two do not go together");
  }
  if (configuration.is_double) return make_stack_of<double>(configuration.config, tensors);
  return make_stack_of<float>(configuration.config, tensors);
}

AnyStack read_stack(std::string_view bytes, std::string_view configuration) {
  const Safetensors file = parse_safetensors(bytes);
  if (file.fastlstm) {
    if (!configuration.empty()) throw BadFile("it has a configuration, and another was given");
    return make_stack(read_configuration(*file.fastlstm), file.tensors);
  }
  const std::vector<Tensor> own = only_module(file.tensors);
  return make_stack(
      configuration.empty() ? guess_configuration(own) : read_configuration(configuration), own);
}

}  // namespace fastlstm

// Stacks for Python: packed weights, and calls on whole sequences.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "addresses.hpp"
#include "arrays.hpp"
#include "config.hpp"
#include "core_call.hpp"
#include "fastlstm/stack.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

const char* name_of(Initial initial) {
  switch (initial) {
    case Initial::kZero:
      return "zero";
    case Initial::kOne:
      return "one";
    default:
      return "uniform";
  }
}

/// By cell: the shape and the initial value of each parameter, in PyTorch's order.
std::vector<py::dict> parameters(const py::dict& values) {
  const StackConfig config = config_of(values);
  std::vector<py::dict> cells;
  for (Index k = 0; k < config.cells(); ++k) {
    py::dict cell;
    for (const auto& parameter : parameters_of<float>(config, k / config.directions())) {
      cell[parameter.name] =
          py::make_tuple(py::tuple(py::cast(shape_of(parameter))), name_of(parameter.initial));
    }
    cells.push_back(std::move(cell));
  }
  return cells;
}

std::vector<std::pair<std::string, Index>> state_parts(const py::dict& values) {
  std::vector<std::pair<std::string, Index>> parts;
  for (const StatePart& part : config_of(values).state_parts()) {
    parts.emplace_back(part.name, part.width);
  }
  return parts;
}

template <class T>
Stack<T> make_stack(const py::dict& values, const std::vector<ParameterArrays<T>>& cells) {
  const StackConfig config = config_of(values);
  require(static_cast<Index>(cells.size()) == config.cells(), "number of cells");
  std::vector<CellParams<const T>> params;
  for (const ParameterArrays<T>& cell : cells) {
    params.push_back(read_parameters(config, static_cast<Index>(params.size()), cell));
  }
  const CoreCall core_call;
  return Stack<T>(config, params.data());
}

/// Arrays of any type, by the name of a parameter, and of the scales of one.
using AnyArrays = std::map<std::string, py::array>;

/// The array of a name, whose values must be contiguous V.
template <class V>
const V* read_any(const AnyArrays& arrays, const std::string& name, const Shape& shape) {
  const auto found = arrays.find(name);
  require(found != arrays.end() && py::isinstance<Array<V>>(found->second), name);
  return read(py::reinterpret_borrow<Array<V>>(found->second), shape, name);
}

/// The same of small weights: of a parameter's name uint16 or int8, and then of name + "_scale".
Stack<float> make_small(const py::dict& values, const std::vector<AnyArrays>& cells) {
  const StackConfig config = config_of(values);
  require(is_small(config.arithmetic), "weights of this arithmetic");
  require(static_cast<Index>(cells.size()) == config.cells(), "number of cells");
  std::vector<CellParams<const float>> params(cells.size());
  std::vector<SmallWeights> weights(cells.size());
  for (std::size_t k = 0; k < cells.size(); ++k) {
    const AnyArrays& arrays = cells[k];
    std::size_t read_arrays = 0;
    const Index layer = static_cast<Index>(k) / config.directions();
    for (const auto& parameter : parameters_of<const float>(config, layer)) {
      const std::string name = parameter.name;
      const Shape shape = shape_of(parameter);
      ++read_arrays;
      if (parameter.small == nullptr) {
        params[k].*parameter.field = read_any<float>(arrays, name, shape);
        continue;
      }
      SmallMatrix& matrix = weights[k].*parameter.small;
      if (is_int8(config.arithmetic)) {
        matrix.values = read_any<std::int8_t>(arrays, name, shape);
        matrix.scales = read_any<float>(arrays, name + "_scale", {parameter.rows});
        ++read_arrays;
      } else {
        matrix.values = read_any<std::uint16_t>(arrays, name, shape);
      }
    }
    require(arrays.size() == read_arrays, "number of parameters");
  }
  const CoreCall core_call;
  return {config, params.data(), weights.data()};
}

template <class T>
Stack<T> with_params(const Stack<T>& stack, const std::map<Index, ParameterArrays<T>>& cells) {
  std::vector<std::pair<Index, CellParams<const T>>> params;
  for (const auto& [k, arrays] : cells) {
    require(0 <= k && k < stack.config().cells(), "index of a cell");
    params.emplace_back(k, read_parameters(stack.config(), k, arrays));
  }
  const CoreCall core_call;
  Stack<T> other = stack;
  for (const auto& [k, of_cell] : params) other = other.with_params(k, of_cell);
  return other;
}

/// A forward call's arrays, checked; `call` points into them.
template <class T>
ForwardCall<T> forward_call(const StackConfig& config, const Array<T>& x,
                            const StateArrays<T>& initial,
                            const std::optional<Array<Index>>& lengths, Array<T>& output,
                            StateArrays<T>& final, bool batch_first) {
  const Layout layout = layout_of(x, batch_first);
  const Index B = layout.B;
  if (lengths) {
    check_lengths(read(*lengths, {B}, "lengths"), layout.steps, B);
  }
  require(final.has_value(), "final");
  ForwardCall<T> call;
  call.steps = layout.steps;
  call.B = B;
  call.lengths = lengths ? lengths->data() : nullptr;
  call.x = layout.view(read(x, layout.shape(config.input_size), "x"), config.input_size);
  read_state(config, initial, {config.cells(), B}, "initial", call.state_0);
  call.output = layout.view(write(output, layout.shape(config.merged_size()), "output"),
                            config.merged_size());
  write_state(config, final, {config.cells(), B}, "final", call.state_n);
  return call;
}

template <class T>
void forward(const Stack<T>& stack, const Array<T>& x, const StateArrays<T>& initial,
             const std::optional<Array<Index>>& lengths, Array<T> output, StateArrays<T> final,
             bool batch_first) {
  const ForwardCall<T> call =
      forward_call<T>(stack.config(), x, initial, lengths, output, final, batch_first);
  const CoreCall core_call;
  stack.forward(call);
}

template <class T>
PyTape<T> forward_train(const Stack<T>& stack, const Array<T>& x, const StateArrays<T>& initial,
                        const std::optional<Array<Index>>& lengths, Array<T> output,
                        StateArrays<T> final, bool batch_first, const py::dict& regularisation,
                        Index memory_limit) {
  const ForwardCall<T> call =
      forward_call<T>(stack.config(), x, initial, lengths, output, final, batch_first);
  const Regularisation of_call = regularisation_of(regularisation);
  const CoreCall core_call;
  return {stack.config(), layout_of(x, batch_first),
          stack.forward_train(call, of_call, memory_limit)};
}

/// The same for sequences at addresses.
template <class T>
void forward_at(const Stack<T>& stack, Address x, Index steps, Index B, int order, Address lengths,
                const StateAddresses& initial, Address output, const StateAddresses& final) {
  const Layout layout = layout_at(steps, B, order, pointer<const Index>(lengths));
  const ForwardCall<T> call =
      forward_call_at<T>(stack.config(), layout, x, lengths, initial, output, final);
  const CoreCall core_call;
  stack.forward(call);
}

template <class T>
PyTape<T> forward_train_at(const Stack<T>& stack, Address x, Index steps, Index B, int order,
                           Address lengths, const StateAddresses& initial, Address output,
                           const StateAddresses& final, const py::dict& regularisation,
                           Index memory_limit) {
  const Layout layout = layout_at(steps, B, order, pointer<const Index>(lengths));
  const ForwardCall<T> call =
      forward_call_at<T>(stack.config(), layout, x, lengths, initial, output, final);
  const Regularisation of_call = regularisation_of(regularisation);
  const CoreCall core_call;
  return {stack.config(), layout, stack.forward_train(call, of_call, memory_limit)};
}

template <class T>
py::object training_memory(const Stack<T>& stack, Index steps, Index B,
                           const std::optional<Array<Index>>& lengths, bool batch_first,
                           const py::dict& regularisation, Index memory_limit) {
  const Index* of_rows = lengths ? read(*lengths, {B}, "lengths") : nullptr;
  const ThreadsOfContext threads;
  const TrainingMemory memory = stack.training_memory(
      steps, B, of_rows, batch_first, regularisation_of(regularisation), memory_limit);
  // Of a pair pybind11 would say that it cannot be converted.
  const auto both = py::reinterpret_steal<py::object>(
      Py_BuildValue("(Ld)", static_cast<long long>(memory.bytes), memory.extra_time));
  if (!both) throw py::error_already_set();
  return both;
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<Stack<T>> made(m, ("Stack" + suffix).c_str());
  throw_without_memory(made);
  if constexpr (std::is_same_v<T, float>) {
    made.def_static("make_small", &make_small, py::arg("config"), py::arg("cells").noconvert());
  }
  made.def_static("make", &make_stack<T>, py::arg("config"), py::arg("cells").noconvert())
      .def("with_params", &with_params<T>, py::arg("cells").noconvert())
      .def("forward", &forward<T>, py::arg("x").noconvert(), py::arg("initial").noconvert(),
           py::arg("lengths").noconvert(), py::arg("output").noconvert(),
           py::arg("final").noconvert(), py::arg("batch_first"))
      .def("forward_train", &forward_train<T>, py::arg("x").noconvert(),
           py::arg("initial").noconvert(), py::arg("lengths").noconvert(),
           py::arg("output").noconvert(), py::arg("final").noconvert(), py::arg("batch_first"),
           py::arg("regularisation"), py::arg("memory_limit"))
      .def("forward_at", &forward_at<T>, py::arg("x"), py::arg("steps"), py::arg("batch_size"),
           py::arg("order"), py::arg("lengths"), py::arg("initial"), py::arg("output"),
           py::arg("final"))
      .def("forward_train_at", &forward_train_at<T>, py::arg("x"), py::arg("steps"),
           py::arg("batch_size"), py::arg("order"), py::arg("lengths"), py::arg("initial"),
           py::arg("output"), py::arg("final"), py::arg("regularisation"), py::arg("memory_limit"))
      .def("training_memory", &training_memory<T>, py::arg("steps"), py::arg("batch_size"),
           py::arg("lengths").noconvert(), py::arg("batch_first"), py::arg("regularisation"),
           py::arg("memory_limit"));
}

/// The values of an array in another that cannot be made writable: the first is where nobody in
/// Python comes to it, unlike the base of a view.
py::array read_only(const py::array& array) {
  void* const kept = py::object(array).release().ptr();
  const py::capsule owner(kept, [](void* it) { Py_DECREF(static_cast<PyObject*>(it)); });
  const Shape shape(array.shape(), array.shape() + array.ndim());
  const Shape strides(array.strides(), array.strides() + array.ndim());
  py::array values(array.dtype(), shape, strides, array.data(), owner);
  py::detail::array_proxy(values.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return values;
}

}  // namespace

void register_stack(py::module_& m) {
  m.def("read_only", &read_only, py::arg("array"));
  m.def("parameters", &parameters, py::arg("config"));
  m.def("state_parts", &state_parts, py::arg("config"));
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

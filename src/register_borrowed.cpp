// Parameters in memory of Python's, for Python.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "addresses.hpp"
#include "config.hpp"
#include "core_call.hpp"
#include "fastlstm/borrowed.hpp"
#include "register.hpp"
#include "tensors.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
BorrowedParams<T> make(const py::dict& config) {
  return BorrowedParams<T>(config_of(config));
}

template <class T>
Stack<T> stack(BorrowedParams<T>& of, const std::vector<Address>& addresses, std::int64_t version) {
  const std::vector<CellParams<const T>> params = parameters_at<const T>(of.config(), addresses);
  const CoreCall core_call;
  return of.stack(params.data(), version);
}

/// The weights of all cells as the core reads them, and the number of writes to them; false: one of
/// them is not a tensor that it can read.
template <class T>
bool read_weights(const StackConfig& config, const py::tuple& weights,
                  std::vector<CellParams<const T>>* params, std::int64_t* version) {
  params->resize(static_cast<std::size_t>(config.cells()));
  std::size_t next = 0;
  for (std::size_t k = 0; k < params->size(); ++k) {
    const Index layer = static_cast<Index>(k) / config.directions();
    for (const auto& parameter : parameters_of<const T>(config, layer)) {
      if (next == weights.size()) return false;
      const py::handle weight = weights[next++];
      TensorView view;
      if (!view_tensor(weight, sizeof(T), &view)) return false;
      if (!view.has_shape(parameter.rows, parameter.columns)) return false;
      (*params)[k].*parameter.field = static_cast<const T*>(view.data);
      const std::int64_t writes = *version < 0 ? -1 : version_of(weight);
      *version = writes < 0 ? -1 : *version + writes;
    }
  }
  return next == weights.size();
}

/// Whether this is a part of the state of a call with this x: [L * D, B, width], without a batch
/// [L * D, width]; of a cell's single step [B, width], without a batch [width].
template <class T>
bool is_state_of(const StackConfig& config, const TensorView& x, const Layout& layout, bool single,
                 Index width, const TensorView& part) {
  const bool batched =
      single ? x.dimensions == 2 : x.dimensions == 3 || layout.order == Order::kPacked;
  std::int64_t shape[3];
  int n = 0;
  if (!single) shape[n++] = config.cells();
  if (batched) shape[n++] = layout.B;
  shape[n++] = width;
  return part.dimensions == n && std::equal(shape, shape + n, part.shape);
}

/// A call on tensors, checked here: None, where one of them is not as the core reads it, and
/// nothing is done; True; or, in training, the tape. The output of a cell's single step is its h.
template <class T>
py::object run(BorrowedParams<T>& of, const py::object& x, Index steps, Index B, int order,
               Address lengths, const py::tuple& initial, const py::tuple& weights,
               const py::object& output, const py::tuple& final, const py::object& regularisation) {
  const StackConfig& config = of.config();
  const Layout layout = layout_at(steps, B, order, pointer<const Index>(lengths));
  std::vector<CellParams<const T>> params;
  std::int64_t version = 0;
  TensorView of_x, view;
  if (!view_tensor(x, sizeof(T), &of_x) || of_x.size != layout.rows * config.input_size ||
      !read_weights<T>(config, weights, &params, &version)) {
    return py::none();
  }
  const std::vector<StatePart> parts = config.state_parts();
  require(final.size() == parts.size(), "final");
  if (initial.size() != parts.size() && !initial.empty()) return py::none();
  const bool single = output.is(final[0]);
  const auto read_state = [&](const py::tuple& state, std::vector<Address>* addresses) {
    for (std::size_t p = 0; p < state.size(); ++p) {
      if (!view_tensor(state[p], sizeof(T), &view) ||
          !is_state_of<T>(config, of_x, layout, single, parts[p].width, view)) {
        return false;
      }
      addresses->push_back(reinterpret_cast<Address>(view.data));
    }
    return true;
  };
  std::vector<Address> initial_at, final_at;
  if (!read_state(initial, &initial_at) || !read_state(final, &final_at)) return py::none();
  if (!view_tensor(output, sizeof(T), &view) || view.size != layout.rows * config.merged_size()) {
    return py::none();
  }
  const auto x_at = reinterpret_cast<Address>(of_x.data);
  const auto output_at = reinterpret_cast<Address>(view.data);
  const ForwardCall<T> call = forward_call_at<T>(
      config, layout, x_at, lengths,
      initial.empty() ? StateAddresses() : StateAddresses(initial_at), output_at, final_at);
  if (regularisation.is_none()) {
    const CoreCall core_call;
    of.stack(params.data(), version).forward(call);
    return py::bool_(true);
  }
  const Regularisation of_call = regularisation_of(py::cast<py::dict>(regularisation));
  return py::cast([&]() -> PyTape<T> {
    const CoreCall core_call;
    return {config, layout, of.stack(params.data(), version).forward_train(call, of_call, 0)};
  }());
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<BorrowedParams<T>> made(m, ("Borrowed" + suffix).c_str());
  throw_without_memory(made);
  made.def_static("make", &make<T>, py::arg("config"))
      .def("stack", &stack<T>, py::arg("addresses"), py::arg("version"))
      .def("run", &run<T>, py::arg("x"), py::arg("steps"), py::arg("batch_size"), py::arg("order"),
           py::arg("lengths"), py::arg("initial"), py::arg("weights"), py::arg("output"),
           py::arg("final"), py::arg("regularisation"))
      .def_property("frozen", &BorrowedParams<T>::frozen, &BorrowedParams<T>::set_frozen);
}

}  // namespace

void register_borrowed(py::module_& m) {
  m.def("set_tensor_classes", &set_tensor_classes, py::arg("tensor"), py::arg("parameter"));
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

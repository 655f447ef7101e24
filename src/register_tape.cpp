// What a training call leaves, for Python.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "addresses.hpp"
#include "arrays.hpp"
#include "config.hpp"
#include "core_call.hpp"
#include "fastlstm/collected.hpp"
#include "register.hpp"
#include "tensors.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
void backward(const PyTape<T>& of_call, const OptionalArray<T>& d_output,
              const StateArrays<T>& d_final, OptionalArray<T> d_x, StateArrays<T> d_initial,
              std::vector<ParameterArrays<T>> d_params, StateArrays<T> d_steps) {
  const StackConfig& config = of_call.config;
  const Layout& layout = of_call.layout;
  const Index cells = config.cells(), width = config.merged_size(), I = config.input_size;
  require(static_cast<Index>(d_params.size()) == cells, "number of cells");
  std::vector<CellParams<T>> params;
  for (ParameterArrays<T>& cell : d_params) {
    params.push_back(write_parameters(config, static_cast<Index>(params.size()), cell));
  }
  BackwardCall<T> call;
  call.d_output = layout.view(read(d_output, layout.shape(width), "d_output"), width);
  read_state(config, d_final, {cells, layout.B}, "d_final", call.d_state_n);
  call.d_x = layout.view(write(d_x, layout.shape(I), "d_x"), I);
  write_state(config, d_initial, {cells, layout.B}, "d_initial", call.d_state_0);
  call.d_params = params.data();
  write_state(config, d_steps, {cells, layout.steps, layout.B}, "d_steps", call.d_state_steps);
  const CoreCall core_call;
  of_call.tape.backward(call);
}

/// The same for sequences at addresses; gradients of parameters are written, not added to, or go to
/// `collected` where that is given.
template <class T>
void backward_at(const PyTape<T>& of_call, Address d_output, const StateAddresses& d_final,
                 Address d_x, const StateAddresses& d_initial, const std::vector<Address>& d_params,
                 CollectedGradients<T>* collected) {
  const StackConfig& config = of_call.config;
  const Layout& layout = of_call.layout;
  std::vector<CellParams<T>> params;
  if (collected == nullptr) params = parameters_at<T>(config, d_params);
  BackwardCall<T> call;
  call.collected = collected;
  call.d_output = layout.view(pointer<const T>(d_output), config.merged_size());
  state_at(config, d_final, "d_final", call.d_state_n);
  call.d_x = layout.view(pointer<T>(d_x), config.input_size);
  written_state_at(config, d_initial, "d_initial", call.d_state_0);
  call.d_params = params.data();
  call.adds_to_d_params = false;
  const CoreCall core_call;
  of_call.tape.backward(call);
}

/// Where a gradient that is read is: 0 for None. False: it is not a tensor of this many values that
/// the core can read.
template <class T>
bool read_gradient(const py::handle& d, Index size, Address* address) {
  *address = 0;
  if (d.is_none()) return true;
  TensorView view;
  if (!view_tensor(d, sizeof(T), &view) || view.size != size) return false;
  *address = reinterpret_cast<Address>(view.data);
  return true;
}

/// The same of one that is written.
template <class T>
Address written_gradient(const py::handle& d, Index size) {
  Address address = 0;
  require(read_gradient<T>(d, size, &address), "gradient to be written");
  return address;
}

/// backward_at on tensors, where None is none; False, where a gradient is not as the core reads it,
/// and nothing is done. d_initial, d_params: empty for none.
template <class T>
bool backward_of(const PyTape<T>& of_call, const py::object& d_output, const py::tuple& d_final,
                 const py::object& d_x, const py::tuple& d_initial, const py::tuple& d_params,
                 CollectedGradients<T>* collected) {
  const StackConfig& config = of_call.config;
  const Layout& layout = of_call.layout;
  const std::vector<StatePart> parts = config.state_parts();
  require(d_final.size() == parts.size(), "d_final");
  require(d_initial.empty() || d_initial.size() == parts.size(), "d_initial");
  Address of_output = 0;
  if (!read_gradient<T>(d_output, layout.rows * config.merged_size(), &of_output)) return false;
  std::vector<Address> of_final(parts.size()), of_initial, of_params;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const Index size = config.cells() * layout.B * parts[p].width;
    if (!read_gradient<T>(d_final[p], size, &of_final[p])) return false;
    if (!d_initial.empty()) of_initial.push_back(written_gradient<T>(d_initial[p], size));
  }
  const std::size_t given = d_params.size();
  for (Index k = 0; k < config.cells(); ++k) {
    for (const auto& parameter : parameters_of<T>(config, k / config.directions())) {
      const std::size_t next = of_params.size();
      require(given == 0 || next < given, "number of parameters");
      of_params.push_back(given == 0 ? 0 : written_gradient<T>(d_params[next], parameter.size()));
    }
  }
  require(given == 0 || given == of_params.size(), "number of parameters");
  backward_at(of_call, of_output, StateAddresses(of_final),
              written_gradient<T>(d_x, layout.rows * config.input_size),
              of_initial.empty() ? StateAddresses() : StateAddresses(of_initial), of_params,
              collected);
  return true;
}

template <class T>
void require_cell(const PyTape<T>& of_call, Index k) {
  require(0 <= k && k < of_call.config.cells(), "index of a cell");
}

template <class T>
Array<T> gates(const PyTape<T>& of_call, Index k) {
  require_cell(of_call, k);
  const Layout& layout = of_call.layout;
  Array<T> to({layout.steps, layout.B, of_call.tape.gates_width()});
  T* const values = to.mutable_data();
  {
    const WithoutLock without_lock;
    of_call.tape.copy_gates(k, values);
  }
  return to;
}

template <class T>
Array<T> state(const PyTape<T>& of_call, Index k, Index part) {
  require_cell(of_call, k);
  const std::vector<StatePart> parts = of_call.config.state_parts();
  require(0 <= part && part < static_cast<Index>(parts.size()), "index of a part");
  const Layout& layout = of_call.layout;
  Array<T> to({layout.steps, layout.B, parts[static_cast<std::size_t>(part)].width});
  T* const values = to.mutable_data();
  {
    const WithoutLock without_lock;
    of_call.tape.copy_state(k, part, values);
  }
  return to;
}

template <class T>
CollectedGradients<T> make_collected(const py::dict& config, const std::vector<Address>& d_params) {
  const StackConfig of_cell = config_of(config);
  const std::vector<CellParams<T>> params = parameters_at<T>(of_cell, d_params);
  require(!params.empty(), "number of cells");
  return CollectedGradients<T>(of_cell, params.front());
}

template <class T>
void finish(CollectedGradients<T>& collected) {
  const CoreCall core_call;
  collected.finish();
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<CollectedGradients<T>> collected(m, ("Collected" + suffix).c_str());
  throw_without_memory(collected);
  collected.def_static("make", &make_collected<T>, py::arg("config"), py::arg("d_params"))
      .def("finish", &finish<T>);
  py::class_<PyTape<T>> made(m, ("Tape" + suffix).c_str());
  throw_without_memory(made);
  made.def("backward", &backward<T>, py::arg("d_output").noconvert(),
           py::arg("d_final").noconvert(), py::arg("d_x").noconvert(),
           py::arg("d_initial").noconvert(), py::arg("d_params").noconvert(),
           py::arg("d_steps").noconvert() = py::none())
      .def("backward_at", &backward_at<T>, py::arg("d_output"), py::arg("d_final"), py::arg("d_x"),
           py::arg("d_initial"), py::arg("d_params"), py::arg("collected") = py::none())
      .def("backward_of", &backward_of<T>, py::arg("d_output"), py::arg("d_final"), py::arg("d_x"),
           py::arg("d_initial"), py::arg("d_params"), py::arg("collected"))
      .def("gates", &gates<T>, py::arg("cell"))
      .def("state", &state<T>, py::arg("cell"), py::arg("part"));
}

}  // namespace

void register_tape(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

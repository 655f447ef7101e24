// What a training call leaves, for Python.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "addresses.hpp"
#include "arrays.hpp"
#include "core_call.hpp"
#include "register.hpp"

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

/// The same for sequences at addresses; gradients of parameters are written, not added to.
template <class T>
void backward_at(const PyTape<T>& of_call, Address d_output, const StateAddresses& d_final,
                 Address d_x, const StateAddresses& d_initial,
                 const std::vector<Address>& d_params) {
  const StackConfig& config = of_call.config;
  const Layout& layout = of_call.layout;
  const std::vector<CellParams<T>> params = parameters_at<T>(config, d_params);
  BackwardCall<T> call;
  call.d_output = layout.view(pointer<const T>(d_output), config.merged_size());
  state_at(config, d_final, "d_final", call.d_state_n);
  call.d_x = layout.view(pointer<T>(d_x), config.input_size);
  written_state_at(config, d_initial, "d_initial", call.d_state_0);
  call.d_params = params.data();
  call.adds_to_d_params = false;
  const CoreCall core_call;
  of_call.tape.backward(call);
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
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<PyTape<T>> made(m, ("Tape" + suffix).c_str());
  throw_without_memory(made);
  made.def("backward", &backward<T>, py::arg("d_output").noconvert(),
           py::arg("d_final").noconvert(), py::arg("d_x").noconvert(),
           py::arg("d_initial").noconvert(), py::arg("d_params").noconvert(),
           py::arg("d_steps").noconvert() = py::none())
      .def("backward_at", &backward_at<T>, py::arg("d_output"), py::arg("d_final"), py::arg("d_x"),
           py::arg("d_initial"), py::arg("d_params"))
      .def("gates", &gates<T>, py::arg("cell"))
      .def("state", &state<T>, py::arg("cell"), py::arg("part"));
}

}  // namespace

void register_tape(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

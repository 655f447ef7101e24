// Streams for Python: one step at a time, with as little as possible around it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "register.hpp"
#include "runtime/tuning.hpp"
#include "threads_of_context.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
std::unique_ptr<Stream<T>> make_stream(const Stack<T>& stack, Index batch_size) {
  const ThreadsOfContext threads;
  return std::make_unique<Stream<T>>(stack, batch_size);
}

template <class T>
void run_step(Stream<T>& stream, const T* x, T* out) {
  const double products =
      stream.config().products_per_row() * static_cast<double>(stream.batch_size());
  if (products < tuning().products_per_spinner) {  // not worth a second thread
    stream.step(x, out);
    return;
  }
  const ThreadsOfContext threads;
  if (products < tuning().products_to_release) {
    stream.step(x, out);
  } else {
    const py::gil_scoped_release release;
    stream.step(x, out);
  }
}

template <class T>
void step(Stream<T>& stream, const Array<T>& x, Array<T> out) {
  const StackConfig& config = stream.config();
  const Index B = stream.batch_size();
  run_step(stream, read(x, {B, config.input_size}, "x"),
           write(out, {B, config.output_size()}, "out"));
}

/// The data of an array that can be used as it is, [rows, columns] of T; null otherwise. It looks
/// at the array itself, since at a microsecond a step pybind11's conversions would cost as much.
template <class T>
T* plain_matrix(py::handle object, Index rows, Index columns, bool writable) {
  auto& api = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != api.PyArray_Type_) return nullptr;  // a subclass may mean more
  const auto* array = py::detail::array_proxy(object.ptr());
  static PyObject* const native = py::dtype::of<T>().release().ptr();  // one object in a process
  int flags =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (writable) flags |= py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  const bool plain = array->descr == native && array->nd == 2 && array->dimensions[0] == rows &&
                     array->dimensions[1] == columns && (array->flags & flags) == flags;
  return plain ? reinterpret_cast<T*>(array->data) : nullptr;
}

/// The quick way into a step: false, with nothing done, where x or out need checks or conversions.
template <class T>
bool try_step(Stream<T>& stream, py::handle x, py::handle out) {
  const StackConfig& config = stream.config();
  const Index B = stream.batch_size();
  const T* from = plain_matrix<T>(x, B, config.input_size, false);
  T* to = plain_matrix<T>(out, B, config.output_size(), true);
  if (from == nullptr || to == nullptr) return false;
  const T* from_end = from + B * config.input_size;
  const T* to_end = to + B * config.output_size();
  if (to < from_end && from < to_end) return false;
  run_step(stream, from, to);
  return true;
}

/// The same as a function of C: pybind11 takes 0.1 us to call a method, as long as the step of a
/// small layer. self: a capsule of the stream.
template <class T>
PyObject* c_try_step(PyObject* self, PyObject* const* arguments, Py_ssize_t n) {
  if (n != 2) {
    PyErr_SetString(PyExc_TypeError, "try_step: expected x and out");
    return nullptr;
  }
  try {
    auto& stream = *static_cast<Stream<T>*>(PyCapsule_GetPointer(self, nullptr));
    return PyBool_FromLong(try_step(stream, arguments[0], arguments[1]));
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

/// stream: a StreamFloat32 or StreamFloat64, which lives as long as the function.
template <class T>
py::object stepper(const py::object& stream) {
  static PyMethodDef definition = {
      "try_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&c_try_step<T>)),
      METH_FASTCALL, "try_step(x, out): False, with nothing done, where they need conversions."};
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(
      stream.cast<Stream<T>*>(), nullptr,
      [](PyObject* self) { Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(self))); }));
  if (!capsule) throw py::error_already_set();
  PyCapsule_SetContext(capsule.ptr(), py::object(stream).release().ptr());
  return py::reinterpret_steal<py::object>(PyCFunction_New(&definition, capsule.ptr()));
}

template <class T>
void run(Stream<T>& stream, const Array<T>& x, Array<T> output, bool batch_first) {
  const Index I = stream.config().input_size, width = stream.config().merged_size();
  const Layout layout = layout_of(x, batch_first);
  require(layout.B == stream.batch_size(), "x");
  const auto from = layout.view(read(x, layout.shape(I), "x"), I);
  const auto to = layout.view(write(output, layout.shape(width), "output"), width);
  const ThreadsOfContext threads;
  const py::gil_scoped_release release;
  stream.run(layout.steps, from, to);
}

/// The parts of the state: [L, B, width] each.
template <class T>
std::vector<Array<T>> state(const Stream<T>& stream) {
  T* pointers[kMostStateParts] = {};
  auto arrays =
      new_state(stream.config(), {stream.config().cells(), stream.batch_size()}, pointers);
  stream.get_state(pointers);
  return arrays;
}

template <class T>
void set_state(Stream<T>& stream, const StateArrays<T>& state) {
  const T* pointers[kMostStateParts] = {};
  require(state.has_value(), "state");
  for (const OptionalArray<T>& part : *state) require(part.has_value(), "state");
  read_state(stream.config(), state, {stream.config().cells(), stream.batch_size()}, "state",
             pointers);
  stream.set_state(pointers);
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<Stream<T>>(m, ("Stream" + suffix).c_str())
      .def(py::init(&make_stream<T>), py::arg("stack"), py::arg("batch_size"))
      .def("step", &step<T>, py::arg("x").noconvert(), py::arg("out").noconvert())
      .def("stepper", &stepper<T>)
      .def("run", &run<T>, py::arg("x").noconvert(), py::arg("output").noconvert(),
           py::arg("batch_first"))
      .def("state", &state<T>)
      .def("set_state", &set_state<T>, py::arg("state").noconvert());
}

}  // namespace

void register_stream(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

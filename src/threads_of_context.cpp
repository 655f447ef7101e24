#include "threads_of_context.hpp"

#include "fastlstm/runtime.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

PyObject* g_variable = nullptr;

/// 0: no block is open.
int number() {
  PyObject* value = nullptr;
  if (PyContextVar_Get(g_variable, nullptr, &value) < 0) throw py::error_already_set();
  const auto blocks = py::reinterpret_steal<py::object>(value);
  for (Py_ssize_t k = PyTuple_GET_SIZE(value); k-- > 0;) {
    PyObject* const block = PyTuple_GET_ITEM(value, k);
    if (PyList_GET_SIZE(block) > 0) {
      return static_cast<int>(PyLong_AsLong(PyList_GET_ITEM(block, 0)));
    }
  }
  return 0;
}

}  // namespace

void set_threads_variable(const py::object& variable) {
  g_variable = py::object(variable).release().ptr();
}

ThreadsOfContext::ThreadsOfContext() : before_(set_thread_local_num_threads(number())) {}

ThreadsOfContext::~ThreadsOfContext() { set_thread_local_num_threads(before_); }

}  // namespace fastlstm::python

#include "threads_of_context.hpp"

#include "fastlstm/runtime.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

PyObject* g_variable = nullptr;

/// The innermost block that has not ended: a list; null: none.
PyObject* open_block(PyObject* blocks) {
  for (Py_ssize_t k = PyTuple_GET_SIZE(blocks); k-- > 0;) {
    PyObject* const block = PyTuple_GET_ITEM(blocks, k);
    if (PyList_GET_SIZE(block) > 0) return block;
  }
  return nullptr;
}

}  // namespace

void set_threads_variable(const py::object& variable) {
  g_variable = py::object(variable).release().ptr();
}

ThreadsOfContext::ThreadsOfContext() {
  PyObject* value = nullptr;
  if (PyContextVar_Get(g_variable, nullptr, &value) < 0) throw py::error_already_set();
  const auto blocks = py::reinterpret_steal<py::object>(value);
  PyObject* const block = open_block(value);
  const long number = block == nullptr ? 0 : PyLong_AsLong(PyList_GET_ITEM(block, 0));
  threads_before_ = set_thread_local_num_threads(static_cast<int>(number));
  openmp_before_ = set_thread_local_openmp(block != nullptr && PyList_GET_SIZE(block) > 1);
}

ThreadsOfContext::~ThreadsOfContext() {
  set_thread_local_openmp(openmp_before_);
  set_thread_local_num_threads(threads_before_);
}

}  // namespace fastlstm::python

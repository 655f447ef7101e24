#include "threads_of_context.hpp"

#include "fastlstm/runtime.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

PyObject* g_variable = nullptr;

struct Block {
  int number = 0;  // 0: no block
  bool on_openmp = false;
};

/// The innermost block that has not ended. In a Python without the interpreter's lock another
/// thread may end one while it is looked at.
Block open_block(PyObject* blocks) {
  Block open;
  for (Py_ssize_t k = PyTuple_GET_SIZE(blocks); k-- > 0 && open.number == 0;) {
    PyObject* const block = PyTuple_GET_ITEM(blocks, k);
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(block);
#endif
    if (PyList_GET_SIZE(block) > 0) {
      open.number = static_cast<int>(PyLong_AsLong(PyList_GET_ITEM(block, 0)));
      open.on_openmp = PyList_GET_SIZE(block) > 1;
    }
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
  }
  return open;
}

}  // namespace

void set_threads_variable(const py::object& variable) {
  g_variable = py::object(variable).release().ptr();
}

ThreadsOfContext::ThreadsOfContext() {
  PyObject* value = nullptr;
  if (PyContextVar_Get(g_variable, nullptr, &value) < 0) throw py::error_already_set();
  const auto blocks = py::reinterpret_steal<py::object>(value);
  const Block block = open_block(value);
  threads_before_ = set_thread_local_num_threads(block.number);
  openmp_before_ = set_thread_local_openmp(block.on_openmp);
}

ThreadsOfContext::~ThreadsOfContext() {
  set_thread_local_openmp(openmp_before_);
  set_thread_local_num_threads(threads_before_);
}

}  // namespace fastlstm::python

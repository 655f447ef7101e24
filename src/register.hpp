// What the files of the module give each other.
//
// Classes have no constructors but functions that make their objects: in what pybind11 does around
// a constructor, a failed allocation would end the process. They return values: what holds a
// pointer would be released twice.
#pragma once

#include <pybind11/pybind11.h>

#include <new>

namespace fastlstm::python {

/// pybind11 uses an object that it has made without a look whether there was memory for one.
template <class Class>
void throw_without_memory(Class& of) {
  reinterpret_cast<PyTypeObject*>(of.ptr())->tp_alloc = [](PyTypeObject* type, Py_ssize_t n) {
    PyObject* const made = PyType_GenericAlloc(type, n);
    if (made != nullptr) return made;
    PyErr_Clear();
    throw std::bad_alloc();
  };
}

void register_borrowed(pybind11::module_& m);
void register_blocks(pybind11::module_& m);
void register_kernels(pybind11::module_& m);
void register_nn(pybind11::module_& m);
void register_optim(pybind11::module_& m);
void register_plan(pybind11::module_& m);
void register_runtime(pybind11::module_& m);
void register_stack(pybind11::module_& m);
void register_stream(pybind11::module_& m);
void register_tape(pybind11::module_& m);

}  // namespace fastlstm::python

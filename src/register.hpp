// What the files of the module give each other.
//
// Classes have no constructors but functions that make their objects: in what pybind11 does around
// a constructor, a failed allocation would end the process. They return values: what holds a
// pointer would be released twice.
#pragma once

#include <pybind11/pybind11.h>

namespace fastlstm::python {

void register_kernels(pybind11::module_& m);
void register_optim(pybind11::module_& m);
void register_runtime(pybind11::module_& m);
void register_stack(pybind11::module_& m);
void register_stream(pybind11::module_& m);
void register_tape(pybind11::module_& m);

}  // namespace fastlstm::python

// What each register_*.cpp adds to the module `_core`.
#pragma once

#include <pybind11/pybind11.h>

namespace fastlstm::python {

void register_runtime(pybind11::module_& m);
void register_kernels(pybind11::module_& m);
void register_stack(pybind11::module_& m);
void register_optim(pybind11::module_& m);

}  // namespace fastlstm::python

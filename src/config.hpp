// A stack's configuration and a call's regularisation from Python's dictionaries.
#pragma once

#include <pybind11/pybind11.h>

#include "fastlstm/stack.hpp"

namespace fastlstm::python {

/// Keys as in _core.pyi; those left out have their defaults. Throws std::invalid_argument for
/// others, and for what makes no sense (check_config).
StackConfig config_of(const pybind11::dict& config);
Regularisation regularisation_of(const pybind11::dict& regularisation);

}  // namespace fastlstm::python

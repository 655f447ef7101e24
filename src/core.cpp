// The private module fastlstm._core: the C++ core for Python. No arithmetic here.
#include "register.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The C++ core of fastlstm. Private: its interface changes without notice.";
  fastlstm::python::register_runtime(m);
  fastlstm::python::register_plan(m);
  fastlstm::python::register_kernels(m);
  fastlstm::python::register_tape(m);
  fastlstm::python::register_stack(m);
  fastlstm::python::register_borrowed(m);
  fastlstm::python::register_stream(m);
  fastlstm::python::register_optim(m);
  fastlstm::python::register_blocks(m);
  fastlstm::python::register_nn(m);
}

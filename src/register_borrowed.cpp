// Parameters in memory of Python's, for Python.
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "addresses.hpp"
#include "config.hpp"
#include "core_call.hpp"
#include "fastlstm/borrowed.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
BorrowedParams<T> make(const py::dict& config) {
  return BorrowedParams<T>(config_of(config));
}

template <class T>
Stack<T> stack(BorrowedParams<T>& of, const std::vector<Address>& addresses, std::int64_t version) {
  const std::vector<CellParams<const T>> params = parameters_at<const T>(of.config(), addresses);
  const CoreCall core_call;
  return of.stack(params.data(), version);
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<BorrowedParams<T>> made(m, ("Borrowed" + suffix).c_str());
  throw_without_memory(made);
  made.def_static("make", &make<T>, py::arg("config"))
      .def("stack", &stack<T>, py::arg("addresses"), py::arg("version"))
      .def_property("frozen", &BorrowedParams<T>::frozen, &BorrowedParams<T>::set_frozen);
}

}  // namespace

void register_borrowed(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

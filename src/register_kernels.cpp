// The kernels' mathematical functions by target, for the accuracy tests and tables.
#include <pybind11/numpy.h>

#include <string>

#include "register.hpp"
#include "runtime/targets.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
py::array_t<T> map_values(void (*kernel)(const MapValues<T>&) noexcept,
                          const py::array_t<T, py::array::c_style>& x) {
  py::array_t<T> y(x.size());
  kernel({static_cast<Index>(x.size()), x.data(), y.mutable_data()});
  return y;
}

template <class T>
void register_values(py::module_& m) {
  using Array = py::array_t<T, py::array::c_style>;
  const auto define = [&m](const char* name, auto field) {
    m.def(
        name,
        [field](const std::string& isa, const Array& x) {
          return map_values<T>(kernels_of<T>(find_target(isa, "isa")).*field, x);
        },
        py::arg("isa"), py::arg("x").noconvert());
  };
  define("exp", &KernelTable<T>::exp_values);
  define("log", &KernelTable<T>::log_values);
  define("sigmoid", &KernelTable<T>::sigmoid_values);
  define("tanh", &KernelTable<T>::tanh_values);
}

}  // namespace

void register_kernels(py::module_& m) {
  py::module_ kernels = m.def_submodule("kernels", "Element-wise kernels, for tests.");
  register_values<float>(kernels);
  register_values<double>(kernels);
}

}  // namespace fastlstm::python

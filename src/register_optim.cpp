// An optimiser's step, for fastlstm.optim, which has checked that shapes and types agree.
#include <pybind11/numpy.h>

#include <stdexcept>

#include "arrays.hpp"
#include "fastlstm/optim.hpp"
#include "register.hpp"
#include "threads_of_context.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
void require_size(const Array<T>& array, py::ssize_t size) {
  if (array.size() != size) throw std::invalid_argument("_core: arrays of different sizes");
}

template <class T>
double sum_of(const Array<T>& x) {
  const T* const values = x.data();
  const ThreadsOfContext threads;
  const py::gil_scoped_release release;
  return sum_of_squares<T>(x.size(), values);
}

template <class T>
void scale_into(const Array<T>& x, double factor, Array<T> y) {
  require_size(y, x.size());
  const T* const from = x.data();
  T* const to = y.mutable_data();
  const ThreadsOfContext threads;
  const py::gil_scoped_release release;
  scale<T>(x.size(), from, factor, to);
}

template <class T>
void adam_on(const Array<T>& p, const Array<T>& g, Array<T> m, Array<T> v, Array<T> p_new,
             double beta1, double beta2, double eps, double decay, double shrink, double root,
             double step) {
  for (const Array<T>* array :
       {&g, static_cast<const Array<T>*>(&m), static_cast<const Array<T>*>(&v),
        static_cast<const Array<T>*>(&p_new)}) {
    require_size(*array, p.size());
  }
  AdamStep<T> call{};
  call.n = p.size();
  call.beta1 = beta1;
  call.beta2 = beta2;
  call.eps = eps;
  call.decay = decay;
  call.shrink = shrink;
  call.root = root;
  call.step = step;
  call.p = p.data();
  call.g = g.data();
  call.m = m.mutable_data();
  call.v = v.mutable_data();
  call.p_new = p_new.mutable_data();
  const ThreadsOfContext threads;
  const py::gil_scoped_release release;
  adam<T>(call);
}

template <class T>
void register_for(py::module_& m) {
  m.def("sum_of_squares", &sum_of<T>, py::arg("x").noconvert());
  m.def("scale", &scale_into<T>, py::arg("x").noconvert(), py::arg("factor"),
        py::arg("y").noconvert());
  m.def("adam", &adam_on<T>, py::arg("p").noconvert(), py::arg("g").noconvert(),
        py::arg("m").noconvert(), py::arg("v").noconvert(), py::arg("p_new").noconvert(),
        py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("decay"), py::arg("shrink"),
        py::arg("root"), py::arg("step"));
}

}  // namespace

void register_optim(py::module_& m) {
  register_for<float>(m);
  register_for<double>(m);
}

}  // namespace fastlstm::python

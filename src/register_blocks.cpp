// What stands around recurrent layers, for fastlstm.nn, which has checked shapes and values.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>

#include "arrays.hpp"
#include "core_call.hpp"
#include "fastlstm/blocks.hpp"
#include "fastlstm/matrix.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

/// Of a matrix: [rows, columns], with as many columns.
template <class T>
Index rows_of(const Array<T>& array, Index columns, const std::string& what) {
  require(array.ndim() == 2 && array.shape(1) == columns, what);
  return array.shape(0);
}

template <class T>
Index columns_of(const Array<T>& array, const std::string& what) {
  require(array.ndim() == 2, what);
  return array.shape(1);
}

template <class T>
PackedMatrix<T> pack(const Array<T>& W) {
  const Index columns = columns_of(W, "W"), rows = W.shape(0);
  const T* const values = W.data();
  const CoreCall core_call;
  return {rows, columns, values};
}

template <class T>
PackedMatrix<T> transposed(const PackedMatrix<T>& matrix) {
  const CoreCall core_call;
  return matrix.transposed();
}

template <class T>
void multiply(const PackedMatrix<T>& matrix, const Array<T>& x, const OptionalArray<T>& bias,
              Array<T> y) {
  const Index n = rows_of(x, matrix.columns(), "x");
  const T* const of_bias = read(bias, {matrix.rows()}, "bias");
  T* const to = write(y, {n, matrix.rows()}, "y");
  const T* const from = x.data();
  const CoreCall core_call;
  matrix.multiply(n, from, of_bias, to);
}

template <class T>
void add_products_to(const Array<T>& d_y, const Array<T>& x, Array<T> d_W) {
  const Index rows = columns_of(d_y, "d_y"), columns = columns_of(x, "x"), n = x.shape(0);
  const T* const from = read(d_y, {n, rows}, "d_y");
  const T* const inputs = x.data();
  T* const to = write(d_W, {rows, columns}, "d_W");
  const CoreCall core_call;
  add_products<T>(n, rows, columns, from, inputs, to);
}

template <class T>
void add_sums_to(const Array<T>& values, Array<T> sums) {
  const Index columns = columns_of(values, "values"), n = values.shape(0);
  const T* const from = values.data();
  T* const to = write(sums, {columns}, "sums");
  const CoreCall core_call;
  add_sums<T>(n, columns, from, to);
}

template <class T>
void cross_entropy(const Array<T>& logits, const Array<Index>& classes,
                   const OptionalArray<double>& class_weights, double smoothing, double factor,
                   Array<double> losses, Array<T> d_logits) {
  CrossEntropyRows<T> call{};
  call.V = columns_of(logits, "logits");
  call.n = logits.shape(0);
  call.smoothing = smoothing;
  call.factor = factor;
  call.logits = logits.data();
  call.classes = read(classes, {call.n}, "classes");
  call.class_weights = read(class_weights, {call.V}, "class_weights");
  call.losses = write(losses, {call.n}, "losses");
  call.d_logits = write(d_logits, {call.n, call.V}, "d_logits");
  require(std::all_of(call.classes, call.classes + call.n, [&](Index y) { return y < call.V; }),
          "classes");
  const CoreCall core_call;
  cross_entropy_rows<T>(call);
}

template <class T>
void sum_rows_to(const Array<T>& values, const Array<Index>& first, const Array<Index>& order,
                 Array<T> sums) {
  const Index width = columns_of(values, "values"), n = values.shape(0);
  const Index groups = rows_of(sums, width, "sums");
  const Index* const starts = read(first, {groups + 1}, "first");
  const Index* const rows = read(order, {order.size()}, "order");
  require(std::all_of(rows, rows + order.size(), [&](Index k) { return 0 <= k && k < n; }),
          "order");
  require(0 <= starts[0] && starts[groups] <= order.size(), "first");
  for (Index g = 0; g < groups; ++g) require(starts[g] < starts[g + 1], "first");
  const T* const from = values.data();
  T* const to = sums.mutable_data();
  const CoreCall core_call;
  sum_rows<T>(groups, width, starts, rows, from, to);
}

template <class T>
void drop_into(const Array<T>& x, std::uint64_t seed, double p, Array<T> y) {
  const Index width = columns_of(x, "x"), n = x.shape(0);
  const T* const from = x.data();
  T* const to = write(y, {n, width}, "y");
  const CoreCall core_call;
  drop<T>(n, width, seed, p, from, to);
}

/// Checked lengths of a sequence [T, B, width], or batch first.
template <class T>
const Index* lengths_of(const Array<Index>& lengths, const Layout& layout) {
  const Index* const of_rows = read(lengths, {layout.B}, "lengths");
  require(std::all_of(of_rows, of_rows + layout.B,
                      [&](Index n) { return 0 <= n && n <= layout.steps; }),
          "lengths");
  return of_rows;
}

template <class T>
void max_into(const Array<T>& x, const Array<Index>& lengths, bool batch_first, Array<T> largest,
              Array<Index> at) {
  const Layout layout = layout_of(x, batch_first);
  const Index width = x.shape(2);
  const Index* const of_rows = lengths_of<T>(lengths, layout);
  T* const to = write(largest, {layout.B, width}, "largest");
  Index* const steps = write(at, {layout.B, width}, "at");
  const SequenceView<const T> view = layout.view(x.data(), width);
  const CoreCall core_call;
  max_over_time<T>(layout.B, width, of_rows, view, to, steps);
}

template <class T>
void sum_into(const Array<T>& x, const Array<Index>& lengths, bool batch_first, Array<T> sums) {
  const Layout layout = layout_of(x, batch_first);
  const Index width = x.shape(2);
  const Index* const of_rows = lengths_of<T>(lengths, layout);
  T* const to = write(sums, {layout.B, width}, "sums");
  const SequenceView<const T> view = layout.view(x.data(), width);
  const CoreCall core_call;
  sum_over_time<T>(layout.B, width, of_rows, view, to);
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<PackedMatrix<T>> made(m, ("PackedMatrix" + suffix).c_str());
  throw_without_memory(made);
  made.def_static("make", &pack<T>, py::arg("W").noconvert())
      .def("transposed", &transposed<T>)
      .def("multiply", &multiply<T>, py::arg("x").noconvert(), py::arg("bias").noconvert(),
           py::arg("y").noconvert());
  m.def("add_products", &add_products_to<T>, py::arg("d_y").noconvert(), py::arg("x").noconvert(),
        py::arg("d_W").noconvert());
  m.def("add_sums", &add_sums_to<T>, py::arg("values").noconvert(), py::arg("sums").noconvert());
  m.def("cross_entropy", &cross_entropy<T>, py::arg("logits").noconvert(),
        py::arg("classes").noconvert(), py::arg("class_weights").noconvert(), py::arg("smoothing"),
        py::arg("factor"), py::arg("losses").noconvert(), py::arg("d_logits").noconvert());
  m.def("sum_rows", &sum_rows_to<T>, py::arg("values").noconvert(), py::arg("first").noconvert(),
        py::arg("order").noconvert(), py::arg("sums").noconvert());
  m.def("drop", &drop_into<T>, py::arg("x").noconvert(), py::arg("seed"), py::arg("p"),
        py::arg("y").noconvert());
  m.def("max_over_time", &max_into<T>, py::arg("x").noconvert(), py::arg("lengths").noconvert(),
        py::arg("batch_first"), py::arg("largest").noconvert(), py::arg("at").noconvert());
  m.def("sum_over_time", &sum_into<T>, py::arg("x").noconvert(), py::arg("lengths").noconvert(),
        py::arg("batch_first"), py::arg("sums").noconvert());
}

}  // namespace

void register_blocks(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

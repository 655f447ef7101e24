// Stack, Tape and Stream for Python. The Python layer has checked and converted everything;
// what is checked again here keeps a wrong call from touching memory that is not its own.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fastlstm/stack.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
template <class T>
using OptionalArray = std::optional<Array<T>>;
using Shape = std::vector<Index>;

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(std::string("_core: wrong array: ") + what);
}

template <class T>
bool has_shape(const Array<T>& a, const Shape& shape) {
  return Shape(a.shape(), a.shape() + a.ndim()) == shape;
}

/// array: contiguous, of this shape. Writable if the pointer is to be written to.
template <class T>
const T* read(const Array<T>& array, const Shape& shape, const char* what) {
  require(has_shape(array, shape), what);
  return array.data();
}
template <class T>
T* write(Array<T>& array, const Shape& shape, const char* what) {
  require(has_shape(array, shape), what);
  return array.mutable_data();
}
template <class T>
const T* read(const OptionalArray<T>& array, const Shape& shape, const char* what) {
  return array ? read(*array, shape, what) : nullptr;
}
template <class T>
T* write(OptionalArray<T>& array, const Shape& shape, const char* what) {
  return array ? write(*array, shape, what) : nullptr;
}

/// The order of the first two axes of a sequence.
struct Layout {
  Index T, B;
  bool batch_first;

  Shape shape(Index width) const { return batch_first ? Shape{B, T, width} : Shape{T, B, width}; }
  template <class V>
  SequenceView<V> view(V* data, Index width) const {
    return {data, batch_first ? width : B * width, batch_first ? T * width : width};
  }
};

template <class T>
Layout layout_of(const Array<T>& x, bool batch_first) {
  require(x.ndim() == 3, "x");
  return {x.shape(batch_first ? 1 : 0), x.shape(batch_first ? 0 : 1), batch_first};
}

struct Sizes {
  explicit Sizes(const StackConfig& c)
      : I(c.input_size),
        H(c.hidden_size),
        C(c.c_size()),
        GH(c.gates() * c.hidden_size),
        P(c.output_size()),
        cells(c.cells()),
        width(c.merged_size()) {}
  Index I, H, C, GH, P, cells, width;
};

/// The arrays of one cell: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole,
/// weight_ln_ih, weight_ln_hh, weight_ln_c, bias_ln_c, absent ones None.
template <class T>
using CellArrays = std::vector<OptionalArray<T>>;

template <class T, class Pointer>
CellParams<std::remove_pointer_t<Pointer>> cell_params(
    const StackConfig& config, Index layer, CellArrays<T>& arrays,
    Pointer (*access)(OptionalArray<T>&, const Shape&, const char*)) {
  const Sizes s(config);
  const bool norm = config.options.layer_norm;
  require(arrays.size() == 10 && (!arrays[4] || config.proj_size > 0) &&
              (!arrays[5] || config.options.peepholes) &&
              (norm || (!arrays[6] && !arrays[7] && !arrays[8] && !arrays[9])),
          "parameters");
  return {access(arrays[0], {s.GH, config.layer_input_size(layer)}, "weight_ih"),
          access(arrays[1], {s.GH, s.P}, "weight_hh"),
          access(arrays[2], {s.GH}, "bias_ih"),
          access(arrays[3], {s.GH}, "bias_hh"),
          access(arrays[4], {s.P, s.H}, "weight_hr"),
          access(arrays[5], {3 * s.H}, "weight_peephole"),
          access(arrays[6], {s.GH}, "weight_ln_ih"),
          access(arrays[7], {s.GH}, "weight_ln_hh"),
          access(arrays[8], {s.H}, "weight_ln_c"),
          access(arrays[9], {s.H}, "bias_ln_c")};
}

template <class T>
CellParams<const T> readable(const StackConfig& config, Index layer, CellArrays<T>& arrays) {
  const bool norm = config.options.layer_norm;
  require(arrays.size() == 10 && arrays[0] && arrays[1] &&
              arrays[2].has_value() == arrays[3].has_value() &&
              arrays[4].has_value() == (config.proj_size > 0) &&
              arrays[5].has_value() == config.options.peepholes && arrays[6].has_value() == norm &&
              arrays[7].has_value() == norm && arrays[8].has_value() == norm &&
              arrays[9].has_value() == (norm && arrays[2].has_value()),
          "parameters");
  return cell_params<T, const T*>(
      config, layer, arrays,
      +[](OptionalArray<T>& a, const Shape& shape, const char* what) -> const T* {
        return read(std::as_const(a), shape, what);
      });
}

template <class T>
CellParams<T> writable(const StackConfig& config, Index layer, CellArrays<T>& arrays) {
  return cell_params<T, T*>(
      config, layer, arrays, +[](OptionalArray<T>& a, const Shape& shape, const char* what) -> T* {
        return write(a, shape, what);
      });
}

CellKind cell_kind(const std::string& name) {
  if (name == "lstm") return CellKind::kLstm;
  if (name == "gru") return CellKind::kGru;
  if (name == "gru_reset_before") return CellKind::kGruResetBefore;
  if (name == "rnn_tanh") return CellKind::kRnnTanh;
  if (name == "rnn_relu") return CellKind::kRnnRelu;
  throw std::invalid_argument("_core: unknown cell: " + name);
}

/// A function's name and its parameters.
using ActivationTuple = std::tuple<std::string, double, double>;

Activation activation(const ActivationTuple& function) {
  static const char* const kNames[] = {"Affine", "Relu",       "LeakyRelu", "ThresholdedRelu",
                                       "Tanh",   "ScaledTanh", "Sigmoid",   "HardSigmoid",
                                       "Elu",    "Softsign",   "Softplus"};  // as ActivationKind
  const auto& [name, alpha, beta] = function;
  for (std::size_t k = 0; k < std::size(kNames); ++k) {
    if (name == kNames[k]) return {static_cast<ActivationKind>(k), alpha, beta};
  }
  throw std::invalid_argument("_core: unknown activation: " + name);
}

Merge merge_named(const std::string& name) {
  if (name == "concat") return Merge::kConcat;
  if (name == "sum") return Merge::kSum;
  if (name == "mul") return Merge::kMul;
  if (name == "ave") return Merge::kAve;
  throw std::invalid_argument("_core: unknown merge: " + name);
}

template <class T>
Stack<T> make_stack(const std::string& cell, Index input_size, Index hidden_size, Index num_layers,
                    Index proj_size, bool bidirectional, bool reverse,
                    const std::vector<ActivationTuple>& activations, double clip, bool input_forget,
                    bool peepholes, bool layer_norm, double zoneout_h, double zoneout_c,
                    const std::string& merge, std::vector<CellArrays<T>> cells) {
  require(activations.size() == 3, "activations");
  const CellOptions options{activation(activations[0]),
                            activation(activations[1]),
                            activation(activations[2]),
                            clip,
                            input_forget,
                            zoneout_h,
                            zoneout_c,
                            peepholes,
                            layer_norm};
  const StackConfig config{input_size,      hidden_size,   num_layers,
                           proj_size,       bidirectional, reverse,
                           cell_kind(cell), options,       merge_named(merge)};
  require(static_cast<Index>(cells.size()) == config.cells(), "number of cells");
  std::vector<CellParams<const T>> params;
  for (Index k = 0; k < config.cells(); ++k) {
    params.push_back(readable(config, k / config.directions(), cells[static_cast<std::size_t>(k)]));
  }
  return Stack<T>(config, params.data());
}

/// A forward call's arrays, checked; `call` points into them.
template <class T>
ForwardCall<T> forward_call(const StackConfig& config, const Array<T>& x,
                            const OptionalArray<T>& h_0, const OptionalArray<T>& c_0,
                            const std::optional<Array<Index>>& lengths, Array<T>& output,
                            Array<T>& h_n, OptionalArray<T>& c_n, bool batch_first) {
  const Sizes s(config);
  const Layout layout = layout_of(x, batch_first);
  const Index B = layout.B;
  require(c_n.has_value() == (s.C > 0), "c_n");
  if (lengths) {
    read(*lengths, {B}, "lengths");
    for (Index b = 0; b < B; ++b) {
      require(0 <= lengths->data()[b] && lengths->data()[b] <= layout.T, "lengths");
    }
  }
  const Shape h_shape{s.cells, B, s.P}, c_shape{s.cells, B, s.C};
  return {layout.T,
          B,
          lengths ? lengths->data() : nullptr,
          layout.view(read(x, layout.shape(s.I), "x"), s.I),
          read(h_0, h_shape, "h_0"),
          read(c_0, c_shape, "c_0"),
          layout.view(write(output, layout.shape(s.width), "output"), s.width),
          write(h_n, h_shape, "h_n"),
          write(c_n, c_shape, "c_n")};
}

/// A tape for Python knows the shape of its call.
template <class T>
struct PyTape {
  StackConfig config;
  Layout layout;
  Tape<T> tape;

  void backward(const OptionalArray<T>& d_output, const OptionalArray<T>& d_h_n,
                const OptionalArray<T>& d_c_n, OptionalArray<T> d_x, OptionalArray<T> d_h_0,
                OptionalArray<T> d_c_0, std::vector<CellArrays<T>> d_params,
                OptionalArray<T> d_h_steps, OptionalArray<T> d_c_steps) const {
    const Sizes s(config);
    require(static_cast<Index>(d_params.size()) == s.cells, "number of cells");
    require(d_c_0.has_value() == (d_h_0.has_value() && s.C > 0), "d_c_0");
    std::vector<CellParams<T>> params;
    for (Index k = 0; k < s.cells; ++k) {
      params.push_back(
          writable(config, k / config.directions(), d_params[static_cast<std::size_t>(k)]));
    }
    const Shape h_shape{s.cells, layout.B, s.P}, c_shape{s.cells, layout.B, s.C};
    const BackwardCall<T> call{
        layout.view(read(d_output, layout.shape(s.width), "d_output"), s.width),
        read(d_h_n, h_shape, "d_h_n"),
        read(d_c_n, c_shape, "d_c_n"),
        layout.view(write(d_x, layout.shape(s.I), "d_x"), s.I),
        write(d_h_0, h_shape, "d_h_0"),
        write(d_c_0, c_shape, "d_c_0"),
        params.data(),
        write(d_h_steps, {s.cells, layout.T, layout.B, s.P}, "d_h_steps"),
        write(d_c_steps, {s.cells, layout.T, layout.B, s.C}, "d_c_steps")};
    require(d_c_steps.has_value() == (d_h_steps.has_value() && s.C > 0), "d_c_steps");
    const py::gil_scoped_release release;
    tape.backward(call);
  }

  Array<T> copied(Index k, Index width, void (Tape<T>::*copy)(Index, T*) const) const {
    require(0 <= k && k < config.cells(), "index of a cell");
    Array<T> to({layout.T, layout.B, width});
    (tape.*copy)(k, to.mutable_data());
    return to;
  }
};

/// Multiply-adds of one step below which letting go of the interpreter lock would cost more than it
/// gives: about 10 us of work.
constexpr double kProductsToRelease = 250000;

template <class T>
void step_stream(Stream<T>& stream, const T* x, T* out) {
  const double products =
      stream.config().products_per_row() * static_cast<double>(stream.batch_size());
  if (products < kProductsToRelease) {
    stream.step(x, out);
  } else {
    const py::gil_scoped_release release;
    stream.step(x, out);
  }
}

template <class T>
void stream_step(Stream<T>& stream, const Array<T>& x, Array<T> out) {
  const StackConfig& config = stream.config();
  const Index B = stream.batch_size();
  step_stream(stream, read(x, {B, config.input_size}, "x"),
              write(out, {B, config.output_size()}, "out"));
}

/// The data of an array that can be used as it is, [rows, columns] of T; null otherwise. It looks
/// at the array itself, since at a microsecond a step pybind11's conversions would cost as much.
template <class T>
T* plain_matrix(py::handle object, Index rows, Index columns, bool writable) {
  auto& api = py::detail::npy_api::get();
  if (!api.PyArray_Check_(object.ptr())) return nullptr;
  const auto* array = py::detail::array_proxy(object.ptr());
  static PyObject* const native = py::dtype::of<T>().release().ptr();  // one object in a process
  int flags =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (writable) flags |= py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  const bool plain = array->descr == native && array->nd == 2 && array->dimensions[0] == rows &&
                     array->dimensions[1] == columns && (array->flags & flags) == flags;
  return plain ? reinterpret_cast<T*>(array->data) : nullptr;
}

/// The quick way into a step: false, with nothing done, where x or out need checks or conversions.
template <class T>
bool stream_try_step(Stream<T>& stream, py::handle x, py::handle out) {
  const StackConfig& config = stream.config();
  const Index B = stream.batch_size();
  const T* from = plain_matrix<T>(x, B, config.input_size, false);
  T* to = plain_matrix<T>(out, B, config.output_size(), true);
  if (from == nullptr || to == nullptr) return false;
  const T* from_end = from + B * config.input_size;
  const T* to_end = to + B * config.output_size();
  if (to < from_end && from < to_end) return false;
  step_stream(stream, from, to);
  return true;
}

/// The same as a function of C: pybind11 takes 0.1 us to call a method, as long as the step of a
/// small layer. self: a capsule of the stream.
template <class T>
PyObject* c_try_step(PyObject* self, PyObject* const* arguments, Py_ssize_t n) {
  if (n != 2) {
    PyErr_SetString(PyExc_TypeError, "try_step: expected x and out");
    return nullptr;
  }
  try {
    auto& stream = *static_cast<Stream<T>*>(PyCapsule_GetPointer(self, nullptr));
    return PyBool_FromLong(stream_try_step(stream, arguments[0], arguments[1]));
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

/// stream: a StreamFloat32 or StreamFloat64, which lives as long as the function.
template <class T>
py::object stream_stepper(const py::object& stream) {
  static PyMethodDef definition = {
      "try_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&c_try_step<T>)),
      METH_FASTCALL, "try_step(x, out): False, with nothing done, where they need conversions."};
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(
      stream.cast<Stream<T>*>(), nullptr,
      [](PyObject* self) { Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(self))); }));
  if (!capsule) throw py::error_already_set();
  PyCapsule_SetContext(capsule.ptr(), py::object(stream).release().ptr());
  return py::reinterpret_steal<py::object>(PyCFunction_New(&definition, capsule.ptr()));
}

template <class T>
void stream_run(Stream<T>& stream, const Array<T>& x, Array<T> output, bool batch_first) {
  const Sizes s(stream.config());
  const Layout layout = layout_of(x, batch_first);
  require(layout.B == stream.batch_size(), "x");
  const auto from = layout.view(read(x, layout.shape(s.I), "x"), s.I);
  const auto to = layout.view(write(output, layout.shape(s.width), "output"), s.width);
  const py::gil_scoped_release release;
  stream.run(layout.T, from, to);
}

/// h: [L, B, P] and c: [L, B, H], or h alone.
template <class T>
std::vector<Array<T>> stream_state(const Stream<T>& stream) {
  const Sizes s(stream.config());
  Array<T> h({s.cells, stream.batch_size(), s.P}), c({s.cells, stream.batch_size(), s.C});
  stream.get_state(h.mutable_data(), c.mutable_data());
  if (s.C == 0) return {h};
  return {h, c};
}

template <class T>
void set_stream_state(Stream<T>& stream, const Array<T>& h, const OptionalArray<T>& c) {
  const Sizes s(stream.config());
  const Index B = stream.batch_size();
  require(c.has_value() == (s.C > 0), "c");
  stream.set_state(read(h, {s.cells, B, s.P}, "h"), read(c, {s.cells, B, s.C}, "c"));
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  using Layers = Stack<T>;
  using TapeOfCall = PyTape<T>;

  py::class_<TapeOfCall>(m, ("Tape" + suffix).c_str())
      .def("backward", &TapeOfCall::backward, py::arg("d_output").noconvert(),
           py::arg("d_h_n").noconvert(), py::arg("d_c_n").noconvert(), py::arg("d_x").noconvert(),
           py::arg("d_h_0").noconvert(), py::arg("d_c_0").noconvert(),
           py::arg("d_params").noconvert(), py::arg("d_h_steps").noconvert() = py::none(),
           py::arg("d_c_steps").noconvert() = py::none())
      .def(
          "gates",
          [](const TapeOfCall& t, Index k) {
            return t.copied(k, t.config.saved_gates() * t.config.hidden_size, &Tape<T>::copy_gates);
          },
          py::arg("cell"))
      .def(
          "cells",
          [](const TapeOfCall& t, Index k) {
            return t.copied(k, t.config.c_size(), &Tape<T>::copy_cells);
          },
          py::arg("cell"))
      .def(
          "hidden",
          [](const TapeOfCall& t, Index k) {
            return t.copied(k, t.config.output_size(), &Tape<T>::copy_hidden);
          },
          py::arg("cell"));

  py::class_<Layers>(m, ("Stack" + suffix).c_str())
      .def(py::init(&make_stack<T>), py::arg("cell"), py::arg("input_size"), py::arg("hidden_size"),
           py::arg("num_layers"), py::arg("proj_size"), py::arg("bidirectional"),
           py::arg("reverse"), py::arg("activations"), py::arg("clip"), py::arg("input_forget"),
           py::arg("peepholes"), py::arg("layer_norm"), py::arg("zoneout_h"), py::arg("zoneout_c"),
           py::arg("merge"), py::arg("cells").noconvert())
      .def(
          "with_params",
          [](const Layers& stack, Index k, CellArrays<T> arrays) {
            const StackConfig& config = stack.config();
            require(0 <= k && k < config.cells(), "index of a cell");
            return stack.with_params(k, readable(config, k / config.directions(), arrays));
          },
          py::arg("cell"), py::arg("arrays").noconvert())
      .def(
          "forward",
          [](const Layers& stack, const Array<T>& x, const OptionalArray<T>& h_0,
             const OptionalArray<T>& c_0, const std::optional<Array<Index>>& lengths,
             Array<T> output, Array<T> h_n, OptionalArray<T> c_n, bool batch_first) {
            const ForwardCall<T> call = forward_call<T>(stack.config(), x, h_0, c_0, lengths,
                                                        output, h_n, c_n, batch_first);
            const py::gil_scoped_release release;
            stack.forward(call);
          },
          py::arg("x").noconvert(), py::arg("h_0").noconvert(), py::arg("c_0").noconvert(),
          py::arg("lengths").noconvert(), py::arg("output").noconvert(), py::arg("h_n").noconvert(),
          py::arg("c_n").noconvert(), py::arg("batch_first"))
      .def(
          "forward_train",
          [](const Layers& stack, const Array<T>& x, const OptionalArray<T>& h_0,
             const OptionalArray<T>& c_0, const std::optional<Array<Index>>& lengths,
             Array<T> output, Array<T> h_n, OptionalArray<T> c_n, bool batch_first, double dropout,
             std::uint64_t seed, double recurrent_dropout, double weight_dropout, bool zoneout,
             Index memory_limit) {
            const ForwardCall<T> call = forward_call<T>(stack.config(), x, h_0, c_0, lengths,
                                                        output, h_n, c_n, batch_first);
            const py::gil_scoped_release release;
            return TapeOfCall{stack.config(),
                              {call.T_, call.B, batch_first},
                              stack.forward_train(
                                  call, {dropout, seed, recurrent_dropout, weight_dropout, zoneout},
                                  memory_limit)};
          },
          py::arg("x").noconvert(), py::arg("h_0").noconvert(), py::arg("c_0").noconvert(),
          py::arg("lengths").noconvert(), py::arg("output").noconvert(), py::arg("h_n").noconvert(),
          py::arg("c_n").noconvert(), py::arg("batch_first"), py::arg("dropout"), py::arg("seed"),
          py::arg("recurrent_dropout"), py::arg("weight_dropout"), py::arg("zoneout"),
          py::arg("memory_limit"))
      .def(
          "training_memory",
          [](const Layers& stack, Index steps, Index B, const std::optional<Array<Index>>& lengths,
             bool batch_first, double dropout, double weight_dropout, Index memory_limit) {
            const Index* of_rows = lengths ? read(*lengths, {B}, "lengths") : nullptr;
            const TrainingMemory memory = stack.training_memory(
                steps, B, of_rows, batch_first, {dropout, 0, 0, weight_dropout}, memory_limit);
            return std::make_pair(memory.bytes, memory.extra_time);
          },
          py::arg("steps"), py::arg("batch_size"), py::arg("lengths").noconvert(),
          py::arg("batch_first"), py::arg("dropout"), py::arg("weight_dropout"),
          py::arg("memory_limit"));

  py::class_<Stream<T>>(m, ("Stream" + suffix).c_str())
      .def(py::init<const Layers&, Index>(), py::arg("stack"), py::arg("batch_size"))
      .def("step", &stream_step<T>, py::arg("x").noconvert(), py::arg("out").noconvert())
      .def("stepper", &stream_stepper<T>)
      .def("run", &stream_run<T>, py::arg("x").noconvert(), py::arg("output").noconvert(),
           py::arg("batch_first"))
      .def("state", &stream_state<T>)
      .def("set_state", &set_stream_state<T>, py::arg("h").noconvert(),
           py::arg("c").noconvert() = py::none());
}

}  // namespace

void register_stack(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

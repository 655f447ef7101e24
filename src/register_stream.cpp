// Streams for Python: one step at a time, with as little as possible around it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "core_call.hpp"
#include "register.hpp"
#include "runtime/system.hpp"
#include "runtime/tuning.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

// Threads by numbers that are given once. After a fork there are the thread that forked, and those
// that get theirs later.
std::atomic<std::uint32_t> g_threads{0};
std::atomic<std::uint32_t> g_threads_at_fork{0};
std::atomic<std::uint32_t> g_forker{0};
thread_local std::uint32_t t_thread = 0;

std::uint32_t this_thread() {
  if (t_thread == 0) t_thread = ++g_threads;
  return t_thread;
}

const int g_fork_handler = at_fork(nullptr, nullptr, [] {
  g_threads_at_fork.store(g_threads.load());
  g_forker.store(this_thread());
});

bool was_left_by_fork(std::uint32_t thread) {
  return thread <= g_threads_at_fork.load() && thread != g_forker.load();
}

/// A stream, which one thread at a time may use: another is refused, and so is what a signal's
/// handler or a finaliser wants of it in the middle of a step.
template <class T>
struct PyStream {
  PyStream(const Stack<T>& stack, Index batch_size)
      : stream(stack, batch_size),
        products(stack.config().products_per_row() * static_cast<double>(batch_size)) {}
  PyStream(PyStream&& unused) noexcept
      : stream(std::move(unused.stream)), products(unused.products) {}

  Stream<T> stream;
  const double products;               // multiply-adds of a step
  std::atomic<std::uint32_t> user{0};  // the thread that uses it; 0: none
};

/// The use of a stream. What a fork left in the middle of another thread's call has no state any
/// more: only sets_state may use it.
template <class T>
class Use {
 public:
  explicit Use(PyStream<T>& stream, bool sets_state = false) : user_(stream.user) {
    std::uint32_t user = 0;
    if (user_.compare_exchange_strong(user, this_thread(), std::memory_order_acquire)) return;
    if (!was_left_by_fork(user)) {
      throw std::runtime_error(
          "stream: in use by another call (one thread at a time may use a stream)");
    }
    if (!sets_state) {
      throw std::runtime_error(
          "stream: a fork in the middle of another thread's call: set its state, or reset it");
    }
    if (!user_.compare_exchange_strong(user, this_thread(), std::memory_order_acquire)) {
      throw std::runtime_error("stream: in use by another call");
    }
  }
  ~Use() { user_.store(0, std::memory_order_release); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  std::atomic<std::uint32_t>& user_;
};

template <class T>
PyStream<T> make_stream(const Stack<T>& stack, Index batch_size) {
  const ThreadsOfContext threads;
  return {stack, batch_size};
}

template <class T>
void run_step(PyStream<T>& of, const T* x, T* out) {
  const Use<T> use(of);
  Stream<T>& stream = of.stream;
  if (!stream.shares_steps()) {
    stream.step(x, out);
    return;
  }
  const ThreadsOfContext threads;
  if (of.products < tuning().products_to_release) {
    stream.step(x, out);
  } else {
    const WithoutLock without_lock;
    stream.step(x, out);
  }
}

template <class T>
void step(PyStream<T>& of, const Array<T>& x, Array<T> out) {
  const StackConfig& config = of.stream.config();
  const Index B = of.stream.batch_size();
  run_step(of, read(x, {B, config.input_size}, "x"), write(out, {B, config.output_size()}, "out"));
}

// --- the quick ways ------------------------------------------------------------------------------

// At a microsecond a step, conversions and calls of pybind11's would cost as much. So these look at
// the arrays themselves and are functions of C. They return None, with nothing done, where an array
// needs checks or conversions.

/// The one object in a process that says T to NumPy.
template <class T>
PyObject* native_type() {
  static PyObject* const type = py::dtype::of<T>().release().ptr();
  return type;
}

/// An array whose data can be used as it is: contiguous values of T; null otherwise.
template <class T>
const py::detail::PyArray_Proxy* plain_array(PyObject* object, bool writable) {
  auto& api = py::detail::npy_api::get();
  if (Py_TYPE(object) != api.PyArray_Type_) return nullptr;  // a subclass may mean more
  const auto* array = py::detail::array_proxy(object);
  int flags =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (writable) flags |= py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array->descr == native_type<T>() && (array->flags & flags) == flags ? array : nullptr;
}

/// The data of such an array of [rows, columns], or null.
template <class T>
T* plain_matrix(PyObject* object, Index rows, Index columns, bool writable) {
  const auto* array = plain_array<T>(object, writable);
  const bool is_it = array != nullptr && array->nd == 2 && array->dimensions[0] == rows &&
                     array->dimensions[1] == columns;
  return is_it ? reinterpret_cast<T*>(array->data) : nullptr;
}

/// An array that is not initialised.
template <class T>
py::object new_array(int dimensions, const Py_intptr_t* shape) {
  auto& api = py::detail::npy_api::get();
  Py_INCREF(native_type<T>());  // which the array takes
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, native_type<T>(), dimensions,
                                              shape, nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

/// out: None, for a new array, or where the result goes. Returns it.
template <class T>
py::object try_step(PyStream<T>& of, PyObject* x, PyObject* out) {
  const StackConfig& config = of.stream.config();
  const Index B = of.stream.batch_size(), I = config.input_size, P = config.output_size();
  const T* from = plain_matrix<T>(x, B, I, false);
  if (from == nullptr) return py::none();
  if (out == Py_None) {
    const Py_intptr_t shape[] = {B, P};
    py::object result = new_array<T>(2, shape);
    run_step(of, from, reinterpret_cast<T*>(py::detail::array_proxy(result.ptr())->data));
    return result;
  }
  T* to = plain_matrix<T>(out, B, P, true);
  if (to == nullptr || (to < from + B * I && from < to + B * P)) return py::none();
  run_step(of, from, to);
  return py::reinterpret_borrow<py::object>(out);
}

/// x: [T, B, I] or, batch first, [B, T, I]; for a single sequence [T, I], too.
template <class T>
py::object try_run(PyStream<T>& of, PyObject* x, bool batch_first) {
  const StackConfig& config = of.stream.config();
  const Index B = of.stream.batch_size(), I = config.input_size, P = config.output_size();
  const auto* array = plain_array<T>(x, false);
  if (array == nullptr || array->nd < 2 || array->nd > 3) return py::none();
  const bool batched = array->nd == 3;
  const Py_intptr_t* const sizes = array->dimensions;
  const Index steps = sizes[batched && batch_first ? 1 : 0];
  const Index rows = batched ? sizes[batch_first ? 0 : 1] : 1;
  if (steps == 0 || rows != B || sizes[array->nd - 1] != I) return py::none();
  const Py_intptr_t shape[] = {sizes[0], batched ? sizes[1] : P, P};
  py::object output = new_array<T>(array->nd, shape);
  const Layout layout{steps, B, batch_first ? Order::kBatchFirst : Order::kTimeFirst, steps * B};
  const Use<T> use(of);
  const CoreCall core_call;
  of.stream.run(steps, layout.view(reinterpret_cast<const T*>(array->data), I),
                layout.view(reinterpret_cast<T*>(py::detail::array_proxy(output.ptr())->data), P));
  return output;
}

/// Calls body(stream) for a function of C. self: a capsule of the stream.
template <class T, class Body>
PyObject* c_call(PyObject* self, const Body& body) {
  try {
    return body(*static_cast<PyStream<T>*>(PyCapsule_GetPointer(self, nullptr))).release().ptr();
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

template <class T>
PyObject* c_try_step(PyObject* self, PyObject* const* arguments, Py_ssize_t n) {
  if (n != 2) {
    PyErr_SetString(PyExc_TypeError, "try_step: expected x and out");
    return nullptr;
  }
  return c_call<T>(self, [&](PyStream<T>& of) { return try_step(of, arguments[0], arguments[1]); });
}

template <class T>
PyObject* c_try_run(PyObject* self, PyObject* const* arguments, Py_ssize_t n) {
  if (n != 2) {
    PyErr_SetString(PyExc_TypeError, "try_run: expected x and batch_first");
    return nullptr;
  }
  const bool batch_first = arguments[1] == Py_True;
  return c_call<T>(self, [&](PyStream<T>& of) { return try_run(of, arguments[0], batch_first); });
}

/// Functions of C of a stream, a StreamFloat32 or StreamFloat64, which lives as long as they.
template <class T>
std::pair<py::object, py::object> quick_calls(const py::object& stream) {
  const auto as_function = [](PyObject* (*f)(PyObject*, PyObject* const*, Py_ssize_t)) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
  };
  static PyMethodDef step_definition = {"try_step", as_function(&c_try_step<T>), METH_FASTCALL,
                                        "try_step(x, out): the result, or None."};
  static PyMethodDef run_definition = {"try_run", as_function(&c_try_run<T>), METH_FASTCALL,
                                       "try_run(x, batch_first): the output, or None."};
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(
      stream.cast<PyStream<T>*>(), nullptr,
      [](PyObject* self) { Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(self))); }));
  if (!capsule) throw py::error_already_set();
  PyCapsule_SetContext(capsule.ptr(), py::object(stream).release().ptr());
  return {py::reinterpret_steal<py::object>(PyCFunction_New(&step_definition, capsule.ptr())),
          py::reinterpret_steal<py::object>(PyCFunction_New(&run_definition, capsule.ptr()))};
}

template <class T>
void run(PyStream<T>& of, const Array<T>& x, Array<T> output, bool batch_first) {
  const StackConfig& config = of.stream.config();
  const Index I = config.input_size, width = config.merged_size();
  const Layout layout = layout_of(x, batch_first);
  require(layout.B == of.stream.batch_size(), "x");
  const auto from = layout.view(read(x, layout.shape(I), "x"), I);
  const auto to = layout.view(write(output, layout.shape(width), "output"), width);
  const Use<T> use(of);
  const CoreCall core_call;
  of.stream.run(layout.steps, from, to);
}

/// The parts of the state: [L, B, width] each.
template <class T>
std::vector<Array<T>> state(PyStream<T>& of) {
  T* pointers[kMostStateParts] = {};
  auto arrays =
      new_state(of.stream.config(), {of.stream.config().cells(), of.stream.batch_size()}, pointers);
  const Use<T> use(of);
  of.stream.get_state(pointers);
  return arrays;
}

template <class T>
void set_state(PyStream<T>& of, const StateArrays<T>& state) {
  const T* pointers[kMostStateParts] = {};
  require(state.has_value(), "state");
  for (const OptionalArray<T>& part : *state) require(part.has_value(), "state");
  read_state(of.stream.config(), state, {of.stream.config().cells(), of.stream.batch_size()},
             "state", pointers);
  const Use<T> use(of, true);
  of.stream.set_state(pointers);
}

/// Sets the state of some rows to zero. rows: [B] which
template <class T>
void reset(PyStream<T>& of, const Array<bool>& rows) {
  const StackConfig& config = of.stream.config();
  const Index B = of.stream.batch_size();
  const bool* which = read(rows, {B}, "rows");
  T* pointers[kMostStateParts] = {};
  auto arrays = new_state(config, {config.cells(), B}, pointers);
  const Use<T> use(of, std::all_of(which, which + B, [](bool row) { return row; }));
  of.stream.get_state(pointers);
  const std::vector<StatePart> parts = config.state_parts();
  for (std::size_t p = 0; p < parts.size(); ++p) {
    for (Index row = 0; row < config.cells() * B; ++row) {
      if (which[row % B]) std::fill_n(pointers[p] + row * parts[p].width, parts[p].width, T(0));
    }
  }
  of.stream.set_state(pointers);
}

/// Row b goes on from what row rows[b] was. rows: [B]
template <class T>
void reorder(PyStream<T>& of, const Array<Index>& rows) {
  const Index B = of.stream.batch_size();
  const Index* const from = read(rows, {B}, "rows");
  require(std::all_of(from, from + B, [B](Index row) { return 0 <= row && row < B; }), "rows");
  const Use<T> use(of);
  of.stream.reorder(from);
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
  py::class_<PyStream<T>> made(m, ("Stream" + suffix).c_str());
  throw_without_memory(made);
  made.def_static("make", &make_stream<T>, py::arg("stack"), py::arg("batch_size"))
      .def("step", &step<T>, py::arg("x").noconvert(), py::arg("out").noconvert())
      .def("quick_calls", &quick_calls<T>)
      .def("run", &run<T>, py::arg("x").noconvert(), py::arg("output").noconvert(),
           py::arg("batch_first"))
      .def("state", &state<T>)
      .def("set_state", &set_state<T>, py::arg("state").noconvert())
      .def("reset", &reset<T>, py::arg("rows").noconvert())
      .def("reorder", &reorder<T>, py::arg("rows").noconvert());
}

}  // namespace

void register_stream(py::module_& m) {
  register_for<float>(m, "Float32");
  register_for<double>(m, "Float64");
}

}  // namespace fastlstm::python

#include "tensors.hpp"

#include <stdexcept>

namespace py = pybind11;

namespace fastlstm::python {

namespace {

// As in DLPack 1.x, whose layout does not change within a major version.
struct DlVersion {
  std::uint32_t major, minor;
};
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t dimensions;
  std::uint8_t type_code, type_bits;
  std::uint16_t type_lanes;
  std::int64_t *shape, *strides;  // strides null: row-major
  std::uint64_t byte_offset;
};
struct DlExchange {
  DlVersion version;
  void* before;
  void *allocate, *from_object, *to_object;
  int (*view)(void* object, DlTensor* out);  // 0, or -1 with an exception of Python's
  void* stream;
};
constexpr int kCpu = 1, kFloat = 2;

struct Classes {
  PyTypeObject *tensor, *parameter;
  const DlExchange* exchange;
  PyObject *is_negated, *version;  // Tensor.is_neg, "_version"
};
Classes g_classes{};

bool is_row_major(const DlTensor& t) {
  if (t.strides == nullptr) return true;
  std::int64_t step = 1;
  for (int k = t.dimensions; k-- > 0;) {
    if (t.shape[k] == 0) return true;
    if (t.shape[k] != 1 && t.strides[k] != step) return false;
    step *= t.shape[k];
  }
  return true;
}

}  // namespace

bool TensorView::has_shape(Index rows, Index columns) const {
  if (columns == 0) return dimensions == 1 && shape[0] == rows;
  return dimensions == 2 && shape[0] == rows && shape[1] == columns;
}

bool view_tensor(py::handle object, std::size_t value_bytes, TensorView* view) {
  const PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type != g_classes.tensor && type != g_classes.parameter) return false;
  DlTensor t{};
  if (g_classes.exchange->view(object.ptr(), &t) != 0) {
    PyErr_Clear();  // sparse, nested, wrapped by a transformation
    return false;
  }
  if (t.device_type != kCpu || t.type_code != kFloat || t.type_lanes != 1 ||
      t.type_bits != 8 * value_bytes || !is_row_major(t)) {
    return false;
  }
  Index size = 1;
  for (int k = 0; k < t.dimensions; ++k) size *= static_cast<Index>(t.shape[k]);
  // Zeros without memory have no address. Negations that are to come are nowhere in the view.
  if (t.data == nullptr && size > 0) return false;
  PyObject* const negated = PyObject_CallOneArg(g_classes.is_negated, object.ptr());
  if (negated == nullptr) throw py::error_already_set();
  const bool plain = negated == Py_False;
  Py_DECREF(negated);
  if (!plain) return false;
  *view = {static_cast<char*>(t.data) + t.byte_offset, t.shape, t.dimensions, size};
  return true;
}

std::int64_t version_of(py::handle tensor) {
  PyObject* const version = PyObject_GetAttr(tensor.ptr(), g_classes.version);
  if (version == nullptr) {  // of inference mode
    PyErr_Clear();
    return -1;
  }
  const long long number = PyLong_AsLongLong(version);
  Py_DECREF(version);
  return number;
}

void set_tensor_classes(const py::type& tensor, const py::type& parameter) {
  const py::object capsule = tensor.attr("__dlpack_c_exchange_api__");
  const auto* const exchange =
      static_cast<const DlExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (exchange == nullptr) throw py::error_already_set();
  if (exchange->version.major != 1 || exchange->view == nullptr) {
    throw std::runtime_error("Tensor.__dlpack_c_exchange_api__: expected DLPack 1.x with views");
  }
  // For the rest of the process, as the classes are.
  py::object is_negated = tensor.attr("is_neg"), version = py::str("_version");
  g_classes = {reinterpret_cast<PyTypeObject*>(py::object(tensor).release().ptr()),
               reinterpret_cast<PyTypeObject*>(py::object(parameter).release().ptr()), exchange,
               is_negated.release().ptr(), version.release().ptr()};
}

}  // namespace fastlstm::python

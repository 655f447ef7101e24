#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "register.hpp"
#include "runtime/tuning.hpp"
#include "threads_of_context.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

#define FASTLSTM_TEXT_OF(x) #x
#define FASTLSTM_TEXT(x) FASTLSTM_TEXT_OF(x)

const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

/// Addresses of functions, as the Cython module and ctypes know them; 0: absent.
void set_blas_addresses(std::uintptr_t sgemm, std::uintptr_t dgemm, std::uintptr_t get_num_threads,
                        std::uintptr_t set_num_threads) {
  BlasTable table;
  table.sgemm = reinterpret_cast<BlasTable::Sgemm>(sgemm);
  table.dgemm = reinterpret_cast<BlasTable::Dgemm>(dgemm);
  table.get_num_threads = reinterpret_cast<int (*)()>(get_num_threads);
  table.set_num_threads = reinterpret_cast<void (*)(int)>(set_num_threads);
  set_blas(table);
}

/// Runs Python's signal handlers; what they raise ends the call that asked.
void check_signals() {
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

int num_threads_here() {
  const ThreadsOfContext threads;
  return num_threads();
}

/// Name, value and meaning of all that is tuned for this machine.
std::vector<std::tuple<std::string, double, std::string>> tuning_of_machine() {
  std::vector<std::tuple<std::string, double, std::string>> entries;
  for (const TuningEntry& entry : tuning_table()) {
    entries.emplace_back(entry.name, entry.value, entry.meaning);
  }
  return entries;
}

const char* machine_name() {
  return machine() == Machine::kSlowL3 ? "a slow L3 cache" : "a fast L3 cache";
}

}  // namespace

void register_runtime(py::module_& m) {
  set_interrupt_check(&check_signals);
  m.def("available_isas", &available_isas);
  m.def("isa", &isa);
  m.def("usable_cpus", &usable_cpus);
  m.def("num_threads", &num_threads_here);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_threads_variable", &set_threads_variable, py::arg("variable"));
  m.def("has_blas", &has_blas);
  m.def("set_blas", &set_blas_addresses, py::arg("sgemm"), py::arg("dgemm"),
        py::arg("get_num_threads"), py::arg("set_num_threads"));
  m.def("compiler", &compiler);
  m.def("machine", &machine_name);
  m.def("tuning", &tuning_of_machine);
}

}  // namespace fastlstm::python

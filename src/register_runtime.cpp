#include <pybind11/stl.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "register.hpp"
#include "runtime/system.hpp"
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

void set_openmp_addresses(std::uintptr_t parallel, std::uintptr_t thread_num,
                          std::uintptr_t num_threads, std::uintptr_t in_parallel) {
  OpenMp openmp;
  openmp.parallel = reinterpret_cast<decltype(openmp.parallel)>(parallel);
  openmp.thread_num = reinterpret_cast<int (*)()>(thread_num);
  openmp.num_threads = reinterpret_cast<int (*)()>(num_threads);
  openmp.in_parallel = reinterpret_cast<int (*)()>(in_parallel);
  set_openmp(openmp);
}

/// Python's number of the thread that runs signal handlers. In the child of a fork it is the one
/// that forked.
std::atomic<unsigned long> g_main_thread{0};

void note_main_thread() {
  const py::object main_thread = py::module_::import("threading").attr("main_thread")();
  g_main_thread.store(main_thread.attr("ident").cast<unsigned long>());
  static const int fork_handler =
      at_fork(nullptr, nullptr, [] { g_main_thread.store(PyThread_get_thread_ident()); });
  static_cast<void>(fork_handler);
}

/// Runs Python's signal handlers; what they raise ends the call that asked. In other threads, for
/// which it would be in vain, it does not ask for the interpreter's lock: where the interpreter
/// ends, that would end the thread in the middle of its work.
void check_signals() {
  if (PyThread_get_thread_ident() != g_main_thread.load(std::memory_order_relaxed)) return;
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
  switch (machine()) {
    case Machine::kZen5:
      return "a Zen 5";
    case Machine::kSlowL3:
      return "a slow L3 cache";
    case Machine::kFastL3:
      break;
  }
  return "a fast L3 cache";
}

}  // namespace

void register_runtime(py::module_& m) {
  note_main_thread();
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
  m.def("set_openmp", &set_openmp_addresses, py::arg("parallel"), py::arg("thread_num"),
        py::arg("num_threads"), py::arg("in_parallel"));
  m.def("compiler", &compiler);
  m.def("machine", &machine_name);
  m.def("tuning", &tuning_of_machine);
}

}  // namespace fastlstm::python

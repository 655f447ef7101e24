// Plans for Python, and what tests and benchmarks change of them.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "config.hpp"
#include "fastlstm/plan.hpp"
#include "register.hpp"
#include "runtime/cpu.hpp"
#include "runtime/crowding.hpp"
#include "runtime/hardware.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"
#include "threads_of_context.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

using Parts = std::vector<std::pair<std::string, double>>;
/// threads, rows, directions, layers, units; us; what takes the most of them; what they go to.
using Work = std::tuple<std::tuple<int, int, int, int, int>, double, std::string, Parts>;

std::vector<Work> plan(const py::dict& values, Index value_bytes, Index steps, Index B,
                       const std::optional<Array<Index>>& lengths, bool training, double dropout) {
  const StackConfig config = config_of(values);
  const Index* of_rows = lengths ? read(*lengths, {B}, "lengths") : nullptr;
  const ThreadsOfContext threads;
  std::vector<Work> works;
  for (const PlannedWork& work :
       plan_call(config, value_bytes, steps, B, of_rows, training, dropout)) {
    works.emplace_back(
        std::make_tuple(work.threads, work.rows, work.directions, work.layers, work.units),
        work.microseconds, work.bound, Parts(work.parts.begin(), work.parts.end()));
  }
  return works;
}

void force(int rows, int directions, int layers, int units) {
  const ThreadPlan plan{rows, directions, layers, units};
  if (plan.threads() == 0) return force_plan(nullptr);
  if (rows < 1 || directions < 1 || layers < 1 || units < 1 || plan.threads() > 4096) {
    throw std::invalid_argument("force_plan: expected numbers of threads, or zeros");
  }
  force_plan(&plan);
}

}  // namespace

void register_plan(py::module_& m) {
  m.def("plan", &plan, py::arg("config"), py::arg("value_bytes"), py::arg("steps"),
        py::arg("batch_size"), py::arg("lengths").noconvert(), py::arg("training"),
        py::arg("dropout"));
  m.def("force_plan", &force, py::arg("rows"), py::arg("directions"), py::arg("layers"),
        py::arg("units"));
  m.def("set_costs", &set_costs, py::arg("costs"));
  m.def("hardware", [] { return std::make_tuple(hardware().L2, hardware().L3, hardware().cpus); });
  m.def("cpu_name", &cpu_name);
  m.def(
      "plan_for_cpus",
      [](int n) {
        forget_late_threads();  // which were those of other CPUs
        return plan_for_cpus(n);
      },
      py::arg("n"));
}

}  // namespace fastlstm::python

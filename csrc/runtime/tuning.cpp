#include "runtime/tuning.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>

#include "runtime/cpu.hpp"

namespace fastlstm {

namespace {

#define FASTLSTM_FAST(name, fast, zen5, slow, meaning) fast,
constexpr Tuning kOfFastL3 = {FASTLSTM_TUNING(FASTLSTM_FAST)};
#undef FASTLSTM_FAST
#define FASTLSTM_ZEN5(name, fast, zen5, slow, meaning) zen5,
constexpr Tuning kOfZen5 = {FASTLSTM_TUNING(FASTLSTM_ZEN5)};
#undef FASTLSTM_ZEN5
#define FASTLSTM_SLOW(name, fast, zen5, slow, meaning) slow,
constexpr Tuning kOfSlowL3 = {FASTLSTM_TUNING(FASTLSTM_SLOW)};
#undef FASTLSTM_SLOW

// With costs that were measured; null: the kind's. Never destroyed: calls may be reading it.
std::atomic<const Tuning*> g_measured{nullptr};

Machine find_machine() noexcept {
  if (cpu_is_intels()) return Machine::kSlowL3;
  if (cpu_is_zen5()) return Machine::kZen5;
  return Machine::kFastL3;
}

// Once: a virtual machine takes microseconds to ask the CPU.
const Machine kMachine = find_machine();

struct CostField {
  const char* name;
  double Tuning::* field;
};
constexpr CostField kCosts[] = {
#define FASTLSTM_COST(name, fast, zen5, slow, meaning) {#name, &Tuning::name},
    FASTLSTM_COSTS(FASTLSTM_COST)
#undef FASTLSTM_COST
};

}  // namespace

Machine machine() noexcept { return kMachine; }

const Tuning& tuning_of(Machine kind) noexcept {
  switch (kind) {
    case Machine::kZen5:
      return kOfZen5;
    case Machine::kSlowL3:
      return kOfSlowL3;
    case Machine::kFastL3:
      break;
  }
  return kOfFastL3;
}

const Tuning& tuning() noexcept {
  const Tuning* const measured = g_measured.load(std::memory_order_acquire);
  return measured != nullptr ? *measured : tuning_of(machine());
}

void set_costs(const std::vector<std::pair<std::string, double>>& costs) {
  auto changed = std::make_unique<Tuning>(tuning());
  for (const auto& [name, value] : costs) {
    const CostField* found = nullptr;
    for (const CostField& cost : kCosts) {
      if (name == cost.name) found = &cost;
    }
    if (found == nullptr) throw std::invalid_argument("costs: no cost is called '" + name + "'");
    // A thousandth, or a thousand times what is usual, is no measurement.
    const double usual = tuning_of(machine()).*found->field;
    // More than all of the shorter cannot be hidden: calls would take less than no time.
    const double most = found->field == &Tuning::overlap ? 1 : 1000 * std::max(usual, 1e-3);
    const bool near = value <= most && (value >= usual / 1000 || usual < 1);
    if (!(value >= 0) || !near) {
      throw std::invalid_argument("costs: " + name + " cannot be " + std::to_string(value));
    }
    (*changed).*found->field = value;
  }
  g_measured.store(changed.release(), std::memory_order_release);
}

std::vector<TuningEntry> tuning_table() {
  const Tuning& t = tuning();
#define FASTLSTM_ENTRY(name, fast, zen5, slow, meaning) {#name, t.name, meaning},
  return {FASTLSTM_TUNING(FASTLSTM_ENTRY)};
#undef FASTLSTM_ENTRY
}

}  // namespace fastlstm

// Which targets this build has, and which one is active.
#pragma once

#include <string>
#include <vector>

#include "kernels/list.hpp"

namespace fastlstm {

/// A target: its name, what it needs of the CPU, and its kernels.
struct Target {
  const char* name;
  bool (*supported)();
  const KernelTable<float>* float32;
  const KernelTable<double>* float64;
  const PanelKernels<float>* small[kArithmetics];  // by arithmetic; null for kFull
};

/// The targets of this build that this CPU can run, best first; the last, generic, runs anywhere.
const std::vector<Target>& supported_targets();

/// The supported target called so. Throws std::invalid_argument, naming source and the valid names.
const Target& find_target(const std::string& name, const std::string& source);

/// The best supported target, or the one that FASTLSTM_ISA asks for. Chosen once.
const Target& active_target();

template <class T>
const KernelTable<T>& kernels_of(const Target& target);

/// The active target's kernels.
template <class T>
const KernelTable<T>& kernels() {
  return kernels_of<T>(active_target());
}

/// Those that multiply with panels of an arithmetic. Only float has others than kFull.
template <class T>
PanelKernels<T> panel_kernels_of(const Target& target, Arithmetic arithmetic) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (is_small(arithmetic)) return *target.small[static_cast<int>(arithmetic)];
  }
  const KernelTable<T>& table = kernels_of<T>(target);
#define FASTLSTM_FIELD(name, Arguments) table.name,
  return {FASTLSTM_PANEL_KERNELS(FASTLSTM_FIELD)};
#undef FASTLSTM_FIELD
}
template <class T>
PanelKernels<T> panel_kernels(Arithmetic arithmetic) {
  return panel_kernels_of<T>(active_target(), arithmetic);
}

}  // namespace fastlstm

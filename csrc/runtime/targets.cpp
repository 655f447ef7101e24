#include "runtime/targets.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "fastlstm/runtime.hpp"
#include "runtime/compiler.hpp"
#include "runtime/cpu.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

#define FASTLSTM_DECLARE(target)                             \
  namespace target {                                         \
  extern const KernelTable<float> float32_kernels;           \
  extern const KernelTable<double> float64_kernels;          \
  extern const PanelKernels<float> bfloat16_weights_kernels; \
  extern const PanelKernels<float> int8_weights_kernels;     \
  extern const PanelKernels<float> bfloat16_kernels;         \
  extern const PanelKernels<float> int8_kernels;             \
  }
/// Those of a target, and the targets whose products of bfloat16 and of int8 it takes.
#define FASTLSTM_KERNELS_OF(target, of_bfloat16, of_int8)                      \
  &target::float32_kernels, &target::float64_kernels, {                        \
    nullptr, &target::bfloat16_weights_kernels, &target::int8_weights_kernels, \
        &of_bfloat16::bfloat16_kernels, &of_int8::int8_kernels                 \
  }

FASTLSTM_DECLARE(generic)
#if defined(FASTLSTM_X86_64)
FASTLSTM_DECLARE(avx2)
FASTLSTM_DECLARE(avx512)
namespace avx2_vnni {
extern const PanelKernels<float> int8_kernels;
}
namespace avx512_bf16 {
extern const PanelKernels<float> bfloat16_kernels;
}
namespace avx512_vnni {
extern const PanelKernels<float> int8_kernels;
}
#if defined(FASTLSTM_AMX)
namespace amx {
extern const PanelKernels<float> bfloat16_kernels;
extern const PanelKernels<float> int8_kernels;
}  // namespace amx
#endif
#if defined(FASTLSTM_EMULATED_AMX)
namespace amx_emulated {
extern const PanelKernels<float> bfloat16_kernels;
extern const PanelKernels<float> int8_kernels;
}  // namespace amx_emulated
#endif
#elif defined(FASTLSTM_AARCH64)
FASTLSTM_DECLARE(neon)
namespace neon_dot {
extern const PanelKernels<float> int8_kernels;
}
#endif

namespace {

bool always() { return true; }
const char* asked_for() {
  const char* name = std::getenv("FASTLSTM_ISA");
  return name != nullptr ? name : "";
}

#if defined(FASTLSTM_AMX)
/// Only for who asks for it: nobody has run it on a CPU yet.
bool has_amx() { return std::strcmp(asked_for(), "amx") == 0 && cpu_has_amx() && allow_tiles(); }
#endif

// Best first. A new target is a line here, one above, a file in kernels/targets, and a line in
// CMakeLists.txt.
const Target kTargets[] = {
#if defined(FASTLSTM_X86_64)
#if defined(FASTLSTM_AMX)
    {"amx", has_amx, FASTLSTM_KERNELS_OF(avx512, amx, amx)},
#endif
    {"avx512_bf16", cpu_has_avx512_bf16, FASTLSTM_KERNELS_OF(avx512, avx512_bf16, avx512_vnni)},
    {"avx512_vnni", cpu_has_avx512_vnni, FASTLSTM_KERNELS_OF(avx512, avx512, avx512_vnni)},
    {"avx512", cpu_has_avx512, FASTLSTM_KERNELS_OF(avx512, avx512, avx512)},
    {"avx2_vnni", cpu_has_avx2_vnni, FASTLSTM_KERNELS_OF(avx2, avx2, avx2_vnni)},
    {"avx2", cpu_has_avx2, FASTLSTM_KERNELS_OF(avx2, avx2, avx2)},
#if defined(FASTLSTM_EMULATED_AMX)  // not the best of any CPU: for tests
    {"amx_emulated", cpu_has_avx512, FASTLSTM_KERNELS_OF(avx512, amx_emulated, amx_emulated)},
#endif
#elif defined(FASTLSTM_AARCH64)
    {"neon_dot", cpu_has_dot_products, FASTLSTM_KERNELS_OF(neon, neon, neon_dot)},
    {"neon", always, FASTLSTM_KERNELS_OF(neon, neon, neon)},
#endif
    {"generic", always, FASTLSTM_KERNELS_OF(generic, generic, generic)},
};

}  // namespace

const std::vector<Target>& supported_targets() {
  // Never destroyed: threads may compute until the process is gone.
  static const std::vector<Target>& supported = *[] {
    auto list = std::make_unique<std::vector<Target>>();
    for (const Target& target : kTargets) {
      if (target.supported()) list->push_back(target);
    }
    return list.release();
  }();
  return supported;
}

namespace {

// Made before there are threads. Without memory for it nothing would work.
const auto& g_supported = supported_targets();  // NOLINT(cert-err58-cpp)
std::atomic<const Target*> g_active{nullptr};

const Target& wanted_target() {
  const char* name = asked_for();
  return *name == '\0' ? g_supported.front() : find_target(name, "FASTLSTM_ISA");
}

}  // namespace

const Target& find_target(const std::string& name, const std::string& source) {
  std::string valid;
  for (const Target& target : supported_targets()) {
    if (name == target.name) return target;
    valid += std::string(valid.empty() ? "" : ", ") + "'" + target.name + "'";
  }
  throw std::invalid_argument(source + ": expected one of " + valid + " on this CPU, got '" + name +
                              "'");
}

const Target& active_target() {
  // Not a static of its own: a fork while another thread initialises one leaves it locked.
  const Target* active = g_active.load(std::memory_order_acquire);
  if (active == nullptr) {
    const Target* wanted = &wanted_target();
    if (g_active.compare_exchange_strong(active, wanted)) active = wanted;
  }
  return *active;
}

template <>
const KernelTable<float>& kernels_of<float>(const Target& target) {
  return *target.float32;
}

template <>
const KernelTable<double>& kernels_of<double>(const Target& target) {
  return *target.float64;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Target& target : supported_targets()) names.emplace_back(target.name);
  return names;
}

std::string isa() { return active_target().name; }

}  // namespace fastlstm

#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

#define FASTLSTM_FAST(name, fast, slow, meaning) fast,
constexpr Tuning kOfFastL3 = {FASTLSTM_TUNING(FASTLSTM_FAST)};
#undef FASTLSTM_FAST
#define FASTLSTM_SLOW(name, fast, slow, meaning) slow,
constexpr Tuning kOfSlowL3 = {FASTLSTM_TUNING(FASTLSTM_SLOW)};
#undef FASTLSTM_SLOW

}  // namespace

Machine machine() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel")) return Machine::kSlowL3;
#endif
  return Machine::kFastL3;
}

const Tuning& tuning() noexcept { return machine() == Machine::kSlowL3 ? kOfSlowL3 : kOfFastL3; }

std::vector<TuningEntry> tuning_table() {
  const Tuning& t = tuning();
#define FASTLSTM_ENTRY(name, fast, slow, meaning) {#name, t.name, meaning},
  return {FASTLSTM_TUNING(FASTLSTM_ENTRY)};
#undef FASTLSTM_ENTRY
}

}  // namespace fastlstm

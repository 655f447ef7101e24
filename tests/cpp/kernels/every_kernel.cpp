// The targets whose kernels are tested, and that each kernel of the list has a test.
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernel_tests.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

#if defined(FASTLSTM_TEST_WIDE)
namespace wide {
extern const KernelTable<float> float32_kernels;
extern const KernelTable<double> float64_kernels;
extern const PanelKernels<float> bfloat16_weights_kernels;
extern const PanelKernels<float> int8_weights_kernels;
extern const PanelKernels<float> bfloat16_kernels;
extern const PanelKernels<float> int8_kernels;
}  // namespace wide
#endif

namespace {

std::vector<Tables> wanted_tables() {
  const char* name = std::getenv("FASTLSTM_ISA");
#if defined(FASTLSTM_TEST_WIDE)
  const Tables wide{"wide",
                    &wide::float32_kernels,
                    &wide::float64_kernels,
                    {nullptr, &wide::bfloat16_weights_kernels, &wide::int8_weights_kernels,
                     &wide::bfloat16_kernels, &wide::int8_kernels}};
  if (name != nullptr && std::strcmp(name, wide.target) == 0) return {wide};
#endif
  const auto tables_of = [](const Target& target) {
    Tables tables{target.name, target.float32, target.float64, {}};
    std::copy(std::begin(target.small), std::end(target.small), tables.small);
    return tables;
  };
  if (name != nullptr) return {tables_of(find_target(name, "FASTLSTM_ISA"))};
  std::vector<Tables> all;
  for (const Target& target : supported_targets()) all.push_back(tables_of(target));
#if defined(FASTLSTM_TEST_WIDE)
  all.push_back(wide);
#endif
  return all;
}

}  // namespace

const std::vector<Tables>& tested_tables() {
  static const std::vector<Tables> tables = wanted_tables();
  return tables;
}

}  // namespace fastlstm

// Without a test of the name, its flag is undefined.
TEST(every_kernel_has_a_test) {
#define FASTLSTM_CHECK_TESTED(name, Arguments) CHECK(fastlstm::tested::name);
  FASTLSTM_KERNELS(FASTLSTM_CHECK_TESTED)
#undef FASTLSTM_CHECK_TESTED
}

// The functions of gates, of all kinds.
#include "kernel_tests.hpp"

using namespace fastlstm;

// Every function, over a wide range and near zero; their parameters are exact in float.
KERNEL_TEST(activate_gates) {
  const auto kernel = table.activate_gates;
  for (int kind = 0; kind <= static_cast<int>(ActivationKind::kSoftplus); ++kind) {
    for (const bool input_forget : {false, true}) {
      for (const Index H : kSizes) {
        NOTE("kind = " << kind << ", input_forget = " << input_forget << ", H = " << H);
        const Activation f{static_cast<ActivationKind>(kind), 0.25, 0.5};
        const T clip = input_forget ? T(1.5) : kInfinity<T>;
        const StepOptions<T> options{false, f, f, f, clip, input_forget, nullptr, 0, nullptr, 0};
        Random random(static_cast<unsigned>(H));
        const Index rows = 3;
        std::vector<T> sums = random.values<T>(rows * 4 * H, -100, 100);
        for (std::size_t k = 0; k < sums.size(); k += 2) sums[k] /= 64;
        for (std::size_t k = 0; k < sums.size(); k += 8) sums[k] /= 64;
        Guarded<T> gates(sums);
        kernel({rows, 4, H, 4 * H, gates.data(), &options});
        gates.check_guards();
        if (!input_forget) {  // rows of other widths, of which the first gates are activated
          Guarded<T> some(sums);
          kernel({rows - 1, 3, H, 5 * H, some.data(), &options});
          for (Index k = 0; k < rows * 4 * H; ++k) {
            const bool activated = k < 10 * H && k % (5 * H) < 3 * H;
            CHECK_EQUAL(some[k], activated ? gates[k] : sums[static_cast<std::size_t>(k)]);
          }
        }
        for (Index k = 0; k < rows * 4 * H; ++k) {
          const bool forget = input_forget && k / H % 4 == 1;
          const Index from = forget ? k - H : k;  // the input gate's sum
          const T sum = std::clamp(sums[static_cast<std::size_t>(from)], -clip, clip);
          const Exact value = exact_activation(f, sum), want = forget ? 1 - value : value;
          CHECK_CLOSE(
              gates[k], want,
              4 * kEpsilon<T> * std::max(Exact(0.01), std::abs(want)) + (forget ? kEpsilon<T> : 0));
        }
      }
    }
  }
}

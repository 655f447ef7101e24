// How long a step of a small layer's stream takes in C++, on one thread.
//
//   stream_benchmark [SECONDS]     of each measurement, default 0.05; prints JSON
//
// One input, float32, one sequence: audio effects and trading. Of the active instruction set
// (FASTLSTM_ISA), in ns a step, each the shortest of several measurements in turns: "step" by calls
// of Stream::step, "block" by Stream::step of 64 steps, "run" by Stream::run of as many.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"

namespace {

using namespace fastlstm;

constexpr Index kSteps = 64;
constexpr Index kSizes[] = {8, 16, 20, 32, 40, 64, 80, 96};

Stream<float> make_stream(CellKind cell, Index H) {
  StackConfig config;
  config.cell = cell;
  config.input_size = 1;
  config.hidden_size = H;
  std::mt19937 engine(1);
  const Index rows = config.gates() * H;
  const auto values = [&](Index n) {
    std::vector<float> made(static_cast<std::size_t>(n));
    for (float& value : made) value = static_cast<float>(engine()) / 4294967296.0f - 0.5f;
    return made;
  };
  const std::vector<float> W = values(rows), R = values(rows * H), b = values(rows);
  CellParams<const float> params;
  params.weight_ih = W.data();
  params.weight_hh = R.data();
  params.bias_ih = params.bias_hh = b.data();
  return Stream<float>(Stack<float>(config, &params), 1);
}

/// The shortest time of a step, in ns, of calls of body that make kSteps each.
template <class Body>
void measure(double& shortest, Body body) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  body();
  const std::chrono::duration<double, std::nano> taken = Clock::now() - start;
  shortest = std::min(shortest, taken.count() / kSteps);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.05;
  set_num_threads(1);
  const char* separator = "[";
  for (const CellKind cell : {CellKind::kLstm, CellKind::kGru}) {
    for (const Index H : kSizes) {
      Stream<float> stream = make_stream(cell, H);
      std::vector<float> x(kSteps), out(static_cast<std::size_t>(kSteps * H));
      for (std::size_t t = 0; t < x.size(); ++t) x[t] = static_cast<float>(t % 7) - 3.0f;
      double step = 1e9, block = 1e9, run = 1e9;
      const auto start = std::chrono::steady_clock::now();
      do {
        measure(step, [&] {
          for (std::size_t t = 0; t < x.size(); ++t) stream.step(&x[t], out.data());
        });
        measure(block, [&] { stream.step(x.data(), out.data(), kSteps); });
        measure(run, [&] { stream.run(kSteps, {x.data(), 1, 1}, {out.data(), H, H}); });
      } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
               seconds);
      std::printf(
          "%s{\"isa\": \"%s\", \"cell\": \"%s\", \"H\": %d, \"step\": %.1f, \"block\": %.1f, "
          "\"run\": %.1f}",
          separator, isa().c_str(), cell == CellKind::kLstm ? "LSTM" : "GRU", static_cast<int>(H),
          step, block, run);
      separator = ",\n ";
    }
  }
  std::printf("]\n");
}

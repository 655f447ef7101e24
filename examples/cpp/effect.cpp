// A real-time audio effect: blocks of samples go through a small recurrent layer, as a plugin or a
// driver's callback would have it, and the time that each takes is compared with the deadline.
//
//   effect MODEL HEAD IN.wav OUT.wav [SAMPLES]
//
// MODEL: a safetensors file of a layer with one input, H outputs. HEAD: a text file of H + 1
// numbers, the weights and the bias of what makes a sample of them: out = in + head * h + bias, as
// models of guitar amplifiers have it. Channels are sequences side by side. SAMPLES: of a
// block, 64.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastlstm/fastlstm.hpp"
#include "wav.hpp"

namespace {

/// What a host makes before the music starts. process() allocates nothing, waits for nothing.
class Effect {
 public:
  Effect(const std::string& model, const std::string& head, std::size_t channels, std::size_t block)
      : stack_(fastlstm::load(model)),
        stream_(stack_, static_cast<std::int64_t>(channels)),
        channels_(channels),
        outputs_(static_cast<std::size_t>(stack_.output_size())),
        h_(block * channels * outputs_) {
    if (stack_.input_size() != 1) throw std::runtime_error(model + ": expected one input");
    std::ifstream file(head);
    for (float value = 0; file >> value;) head_.push_back(value);
    if (head_.size() != outputs_ + 1) {
      throw std::runtime_error(head + ": expected " + std::to_string(outputs_ + 1) + " numbers");
    }
  }

  /// in, out: [frames, channels], at most a block; they may be the same.
  void process(const float* in, float* out, std::size_t frames) noexcept {
    stream_.process(in, h_.data(), static_cast<std::int64_t>(frames));
    for (std::size_t k = 0; k < frames * channels_; ++k) {
      const float* h = h_.data() + k * outputs_;
      float sum = head_[outputs_];
      for (std::size_t j = 0; j < outputs_; ++j) sum += head_[j] * h[j];
      out[k] = in[k] + sum;
    }
  }

 private:
  fastlstm::Stack<float> stack_;
  fastlstm::Stream<float> stream_;
  std::size_t channels_, outputs_;
  std::vector<float> h_;  // [block, channels, outputs]
  std::vector<float> head_;
};

int run(int count, char** arguments) {
  if (count < 5 || count > 6) {
    std::fprintf(stderr, "usage: effect MODEL HEAD IN.wav OUT.wav [SAMPLES]\n");
    return 2;
  }
  const int samples = count == 6 ? std::atoi(arguments[5]) : 64;
  if (samples < 1) throw std::runtime_error("SAMPLES: expected a number above 0");
  const auto block = static_cast<std::size_t>(samples);
  Wav wav = read_wav(arguments[3]);
  Effect effect(arguments[1], arguments[2], wav.channels, block);

  using Clock = std::chrono::steady_clock;
  const std::size_t frames = wav.samples.size() / wav.channels;
  std::vector<double> times;  // us of each block
  times.reserve(frames / block + 1);
  for (std::size_t first = 0; first < frames; first += block) {
    float* const data = wav.samples.data() + first * wav.channels;
    const Clock::time_point start = Clock::now();
    effect.process(data, data, std::min(block, frames - first));
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  write_wav(arguments[4], wav);

  if (times.empty()) return 0;
  std::sort(times.begin(), times.end());
  const double deadline = 1e6 * samples / wav.rate;
  std::printf("%zu blocks of %d samples: median %.1f us, worst %.1f us, deadline %.1f us (%s)\n",
              times.size(), samples, times[times.size() / 2], times.back(), deadline,
              fastlstm_isa());
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "effect: %s\n", error.what());
    return 1;
  }
}

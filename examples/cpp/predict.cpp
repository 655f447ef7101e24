// A command-line predictor: a line of numbers for each time step in, a line of the layer's outputs
// out, at once. An empty line begins a new sequence.
//
//   predict MODEL < in.csv > out.csv
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastlstm/fastlstm.hpp"

namespace {

/// The numbers of a line, which are to be so many.
template <class T>
void read_line(const std::string& line, std::size_t number, std::vector<T>& x) {
  const auto fail = [&] {
    throw std::runtime_error("line " + std::to_string(number) + ": expected " +
                             std::to_string(x.size()) + " numbers with commas between them");
  };
  const char* at = line.c_str();
  for (std::size_t k = 0; k < x.size(); ++k) {
    if (k > 0 && *at++ != ',') fail();
    char* end = nullptr;
    x[k] = static_cast<T>(std::strtod(at, &end));
    if (end == at) fail();
    at = end;
  }
  if (*at != '\0' && *at != '\r') fail();
}

template <class T>
void predict(const fastlstm::Stack<T>& stack) {
  fastlstm::Stream<T> stream(stack);
  std::vector<T> x(static_cast<std::size_t>(stack.input_size()));
  std::vector<T> output(static_cast<std::size_t>(stack.output_size()));
  std::string line;
  for (std::size_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.empty() || line == "\r") {
      stream.reset();
      std::puts("");
      continue;
    }
    read_line(line, number, x);
    stream.step(x.data(), output.data());
    for (std::size_t k = 0; k < output.size(); ++k) {
      // As many digits as tell any two values apart.
      std::printf("%s%.*g", k > 0 ? "," : "", sizeof(T) == sizeof(float) ? 9 : 17,
                  static_cast<double>(output[k]));
    }
    std::puts("");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: predict MODEL < in.csv > out.csv\n");
    return 2;
  }
  try {
    try {
      predict(fastlstm::load<float>(arguments[1]));
    } catch (const fastlstm::Error& error) {
      if (error.status() != FASTLSTM_WRONG_DTYPE) throw;
      predict(fastlstm::load<double>(arguments[1]));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "predict: %s\n", error.what());
    return 1;
  }
}

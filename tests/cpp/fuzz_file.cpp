// The reader of files for libFuzzer, which comes with Clang; tests/test_cpp_package.py builds and
// runs it for a moment.
#include "fuzzed_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  load_and_step(data, size);
  return 0;
}

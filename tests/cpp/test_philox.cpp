// The random number generator against the known answers that its authors published with Random123.
#include <cstdint>

#include "check.hpp"
#include "philox.hpp"

namespace {

/// counter: x0 x1 x2 x3; key: k0 k1.
void check_known(const std::uint32_t (&counter)[4], const std::uint32_t (&key)[2],
                 const std::uint32_t (&want)[4]) {
  const auto wide = [](std::uint32_t low, std::uint32_t high) {
    return low | static_cast<std::uint64_t>(high) << 32;
  };
  std::uint32_t got[4];
  philox_4x32(wide(key[0], key[1]), wide(counter[0], counter[1]), counter[2], counter[3], got);
  for (int k = 0; k < 4; ++k) {
    NOTE("word " << k);
    CHECK_EQUAL(got[k], want[k]);
  }
}

}  // namespace

TEST(known_answers) {
  constexpr std::uint32_t kOnes = 0xffffffff;
  check_known({0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  check_known({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes},
              {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // The digits of pi.
  check_known({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
              {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

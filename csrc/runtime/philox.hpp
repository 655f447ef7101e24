// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror, Shaw 2011,
// "Parallel random numbers: as easy as 1, 2, 3"): the numbers at a place depend on the key and the
// place alone, so masks need no storage and are the same for any number of threads.
#pragma once

#include <stdint.h>

namespace fastlstm {
namespace {

/// out: [4] 32 random bits each, for the counter (row, block, layer) under the key seed.
inline void philox_4x32(uint64_t seed, uint64_t row, uint32_t block, uint32_t layer,
                        uint32_t out[4]) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  uint32_t x0 = uint32_t(row), x1 = uint32_t(row >> 32), x2 = block, x3 = layer;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53) * x0;
    const uint64_t b = uint64_t(0xCD9E8D57) * x2;
    x0 = uint32_t(b >> 32) ^ x1 ^ key0;
    x1 = uint32_t(b);
    x2 = uint32_t(a >> 32) ^ x3 ^ key1;
    x3 = uint32_t(a);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

}  // namespace
}  // namespace fastlstm

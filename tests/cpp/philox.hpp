// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror, Shaw 2011,
// "Parallel random numbers: as easy as 1, 2, 3"), one counter at a time: what the core's vectors of
// counters (kernels/values.hpp) are compared with.
#pragma once

#include <cstdint>

/// out: [4] 32 random bits each, for the counter (row, block, layer) under the key seed.
inline void philox_4x32(std::uint64_t seed, std::uint64_t row, std::uint32_t block,
                        std::uint32_t layer, std::uint32_t out[4]) {
  std::uint32_t key0 = std::uint32_t(seed), key1 = std::uint32_t(seed >> 32);
  std::uint32_t x0 = std::uint32_t(row), x1 = std::uint32_t(row >> 32), x2 = block, x3 = layer;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t(0xD2511F53) * x0;
    const std::uint64_t b = std::uint64_t(0xCD9E8D57) * x2;
    x0 = std::uint32_t(b >> 32) ^ x1 ^ key0;
    x1 = std::uint32_t(b);
    x2 = std::uint32_t(a >> 32) ^ x3 ^ key1;
    x3 = std::uint32_t(a);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

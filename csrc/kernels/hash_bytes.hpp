// A hash of memory, to find out whether it has changed.
//
// Each lane of 64 bits of some accumulators goes through all its words in order: it adds one, folds
// its upper bits into the lower ones, and multiplies. Each of the three can be undone, so that one
// changed word always changes the hash. Several changed words leave it only if the later ones undo
// exactly what became of the first: a difference of 64 bits, of which at least 30 depend on all
// bits of the multiplier. Without the folding the signs of two values would cancel, as the top bit
// stays where it is in a product.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

using HashLanes = Lanes<uint64_t, FASTLSTM_VECTOR_BYTES>;

/// Words: uint64_t, or a vector of them.
template <class Words>
FASTLSTM_INLINE Words hashed(Words hash, Words words) {
  hash += words;
  hash ^= hash >> kHashShift;
  return hash * (kHashFactor - Words{});
}

template <class T>
void hash_bytes(const HashBytes<T>& h) noexcept {
  constexpr Index kLanes = FASTLSTM_VECTOR_BYTES / 8;
  HashLanes lanes[kHashVectors];
  for (int v = 0; v < kHashVectors; ++v) {
    for (Index k = 0; k < kLanes; ++k) {
      lanes[v][k] = hashed<uint64_t>(*h.hash, uint64_t(v * kLanes + k));
    }
  }
  const char* from = static_cast<const char*>(h.bytes);
  Index left = h.n;
  HashLanes words[kHashVectors];
  for (; left >= Index(sizeof words); left -= Index(sizeof words), from += sizeof words) {
#pragma GCC unroll 8
    for (int v = 0; v < kHashVectors; ++v) {
      memcpy(&words[v], from + Index(v) * FASTLSTM_VECTOR_BYTES, FASTLSTM_VECTOR_BYTES);
      lanes[v] = hashed(lanes[v], words[v]);
    }
  }
  if (left > 0) {
    memset(words, 0, sizeof words);
    memcpy(words, from, size_t(left));
#pragma GCC unroll 8
    for (int v = 0; v < kHashVectors; ++v) lanes[v] = hashed(lanes[v], words[v]);
  }
  uint64_t hash = uint64_t(h.n);
  for (int v = 0; v < kHashVectors; ++v) {
    for (Index k = 0; k < kLanes; ++k) hash = hashed<uint64_t>(hash, lanes[v][k]);
  }
  *h.hash = hash;
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// Small kernels on plain arrays.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/math.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void exp_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(exp(load(m.x + k)), m.y + k); });
}

template <class T>
void log_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(log(load(m.x + k)), m.y + k); });
}

template <class T>
void sigmoid_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(sigmoid(load(m.x + k)), m.y + k); });
}

template <class T>
void tanh_values(const MapValues<T>& m) noexcept {
  for_each_vector<T>(m.n, [&](Index k, auto load, auto store)
                              FASTLSTM_INLINE_LAMBDA { store(tanh(load(m.x + k)), m.y + k); });
}

template <class T>
void add_column_sums(const AddColumnSums<T>& s) noexcept {
  // Two levels of sums keep the rounding error small: it grows with kGroup + rows / kGroup.
  constexpr Index kGroup = 64;
  for (Index first = 0; first < s.rows; first += kGroup) {
    const Index end = first + kGroup < s.rows ? first + kGroup : s.rows;
    for_each_vector<T>(s.columns, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      Vec<T> group = Vec<T>::broadcast(0);
      for (Index row = first; row < end; ++row)
        group = group + load(s.values + row * s.columns + k);
      store(load(s.sums + k) + group, s.sums + k);
    });
  }
}

// Counters of philox_4x32 side by side, one number of 32 bits in each lane of 64.
using PhiloxLanes = Lanes<uint64_t, FASTLSTM_VECTOR_BYTES>;
constexpr Index kPhiloxLanes = FASTLSTM_VECTOR_BYTES / 8;
// At once: the rounds of one would wait for each other. As many as the registers hold.
constexpr Index kPhiloxVectors = FASTLSTM_VECTOR_BYTES == 64 ? 4 : 3;
constexpr Index kPhiloxBlocks = kPhiloxVectors * kPhiloxLanes;

/// The product of the lower halves of the lanes; what the upper ones hold does not matter.
FASTLSTM_INLINE PhiloxLanes multiply_lower(PhiloxLanes a, uint32_t b) {
  const PhiloxLanes factor = uint64_t(b) - PhiloxLanes{};
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  return bits_as<PhiloxLanes>(_mm512_mul_epu32(bits_as<__m512i>(a), bits_as<__m512i>(factor)));
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  return bits_as<PhiloxLanes>(_mm256_mul_epu32(bits_as<__m256i>(a), bits_as<__m256i>(factor)));
#elif defined(__SSE2__) && FASTLSTM_VECTOR_BYTES == 16
  return bits_as<PhiloxLanes>(_mm_mul_epu32(bits_as<__m128i>(a), bits_as<__m128i>(factor)));
#else
  return (a & 0xFFFFFFFF) * factor;
#endif
}

/// out: [kPhiloxBlocks][4], what philox_4x32 gives for the blocks first_block and on.
FASTLSTM_INLINE void philox_blocks(uint64_t seed, uint64_t row, uint32_t first_block,
                                   uint32_t stream, uint32_t* out) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  const PhiloxLanes zero{};
  PhiloxLanes x0[kPhiloxVectors], x1[kPhiloxVectors], x2[kPhiloxVectors], x3[kPhiloxVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kPhiloxVectors; ++v) {
    x0[v] = row - zero;
    x1[v] = (row >> 32) - zero;
    uint64_t blocks[kPhiloxLanes];
    for (int k = 0; k < kPhiloxLanes; ++k) {
      blocks[k] = uint32_t(first_block + uint32_t(v * kPhiloxLanes + k));
    }
    memcpy(&x2[v], blocks, sizeof blocks);
    x3[v] = uint64_t(stream) - zero;
  }
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int v = 0; v < kPhiloxVectors; ++v) {
      const PhiloxLanes a = multiply_lower(x0[v], 0xD2511F53);
      const PhiloxLanes b = multiply_lower(x2[v], 0xCD9E8D57);
      x0[v] = (b >> 32) ^ x1[v] ^ (uint64_t(key0) - zero);
      x1[v] = b;
      x2[v] = (a >> 32) ^ x3[v] ^ (uint64_t(key1) - zero);
      x3[v] = a;
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
#pragma GCC unroll 4
  for (int v = 0; v < kPhiloxVectors; ++v) {
    const PhiloxLanes low = (x0[v] & 0xFFFFFFFF) | x1[v] << 32;
    const PhiloxLanes high = (x2[v] & 0xFFFFFFFF) | x3[v] << 32;
    for (int k = 0; k < kPhiloxLanes; ++k) {
      const uint64_t both[] = {low[k], high[k]};
      memcpy(out + 4 * (v * kPhiloxLanes + k), both, sizeof both);
    }
  }
}

/// Calls body(column, random) with 32 random bits for each column first <= column < first + n,
/// counted from first. first: a multiple of 4.
template <class Body>
FASTLSTM_INLINE void for_each_random(uint64_t seed, uint64_t row, uint32_t stream, Index first,
                                     Index n, Body body) {
  constexpr Index kColumns = 4 * kPhiloxBlocks;
  for (Index at = 0; at < n; at += kColumns) {
    uint32_t random[kColumns];
    philox_blocks(seed, row, uint32_t((first + at) / 4), stream, random);
    if (n - at >= kColumns) {
      for (Index k = 0; k < kColumns; ++k) body(at + k, random[k]);
    } else {
      for (Index k = 0; k < n - at; ++k) body(at + k, random[k]);
    }
  }
}

/// What 32 random bits are below with this probability.
inline int64_t random_bound(double p) {
  const double bound = p * 4294967296.0;
  const int64_t whole = int64_t(bound);
  return double(whole) < bound ? whole + 1 : whole;
}

template <class T>
void dropout_row(const DropoutRow<T>& d) noexcept {
  const int64_t keep = random_bound(1.0 - d.p);
  const T scale = d.p < 1.0 ? T(1.0 / (1.0 - d.p)) : T(0);
  for_each_random(d.seed, d.row, d.layer, 0, d.columns,
                  [&](Index k, uint32_t random) FASTLSTM_INLINE_LAMBDA {
                    d.y[k] = int64_t(random) < keep ? d.x[k] * scale : T(0);
                  });
}

template <class T>
void bernoulli_row(const BernoulliRow<T>& b) noexcept {
  const int64_t bound = random_bound(b.p);
  if (bound == 0) {
    for (Index k = 0; k < b.columns; ++k) b.y[k] = 0;
    return;
  }
  const uint32_t most = uint32_t(bound - 1);  // compared as they are, in lanes of 32 bits
  for_each_random(b.seed, b.row, b.stream, b.first, b.columns,
                  [&](Index k, uint32_t random)
                      FASTLSTM_INLINE_LAMBDA { b.y[k] = random <= most ? T(1) : T(0); });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

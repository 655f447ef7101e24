// Rows of inputs in the type that an arithmetic multiplies, where that is not float32. What becomes
// of a row depends on it alone, and is the same on all targets.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/stored_weights.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

using UInt = Lanes<uint32_t, FASTLSTM_VECTOR_BYTES>;

/// Calls body(k, vector) for the vectors of a row, the last one filled up with zeros.
template <class Body>
FASTLSTM_INLINE void for_each_padded(const float* x, Index K, Body body) {
  constexpr Index kLanes = Float::kLanes;
  Index k = 0;
  for (; k + kLanes <= K; k += kLanes) body(k, Float::load(x + k));
  if (k < K) body(k, Float::load_first(x + k, K - k));
}

/// The nearest bfloat16, or the even one, as float32. Denormals are zero, as inside any call.
FASTLSTM_INLINE UInt round_to_bfloat16(Float x) {
  const UInt bits = bits_as<UInt>(x.raw), magnitude = bits & 0x7fffffffu;
  const UInt rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  const UInt number = FASTLSTM_CHOOSE(magnitude > 0x7f800000u, bits | 0x400000u, rounded);
  return FASTLSTM_CHOOSE(magnitude < 0x800000u, bits & 0x80000000u, number) & 0xffff0000u;
}

FASTLSTM_INLINE void convert_row(Bfloat16Products, const float* x, Index K, float* to, float*) {
  for_each_padded(x, K, [&](Index k, Float v) FASTLSTM_INLINE_LAMBDA {
    const UInt bits = round_to_bfloat16(v);
    memcpy(to + k, &bits, sizeof bits);
  });
}

/// Pairs, the first of two in the upper half.
FASTLSTM_INLINE void convert_to_pairs(const float* x, Index K, uint32_t* to) {
  for_each_padded(x, K, [&](Index k, Float v) FASTLSTM_INLINE_LAMBDA {
    const UInt bits = round_to_bfloat16(v);
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
    using Pairs = Lanes<uint32_t, FASTLSTM_VECTOR_BYTES / 2>;
    const Pairs in_order = bits_as<Pairs>(_mm512_cvtepi32_epi16(bits_as<__m512i>(bits >> 16)));
    const Pairs pairs = in_order << 16 | in_order >> 16;
    memcpy(to + k / 2, &pairs, sizeof pairs);
#else
    for (Index lane = 0; lane < Float::kLanes; lane += 2) {
      to[(k + lane) / 2] = bits[lane] | bits[lane + 1] >> 16;
    }
#endif
  });
}

#if defined(__AVX512BF16__)
FASTLSTM_INLINE void convert_row(Bfloat16Products, const float* x, Index K, uint32_t* to, float*) {
  convert_to_pairs(x, K, to);
}
#endif

/// The lowest bytes of 32-bit integers. GCC 12 converts one element after the other.
FASTLSTM_INLINE void store_bytes(Bits q, Index k, uint32_t* to) {
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  const __m128i bytes = _mm512_cvtepi32_epi8(bits_as<__m512i>(q));
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  const __m256i low = (__m256i)(q & 0xff);
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i bytes = _mm_packus_epi16(words, words);
#elif defined(__aarch64__) && FASTLSTM_VECTOR_BYTES == 16
  const int16x4_t words = vmovn_s32(bits_as<int32x4_t>(q));
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
#else
  const auto bytes = converted<Lanes<int8_t, FASTLSTM_VECTOR_BYTES / 4> >(q);
#endif
  memcpy(reinterpret_cast<char*>(to) + k, &bytes, Float::kLanes);
}

FASTLSTM_INLINE void store_int8(Bits q, Index k, uint32_t* to, Constant<1>) {
  store_bytes(Int8Products::kOffsets ? q + 128 : q, k, to);
}
/// Pairs of 16 bits, as Int8Products has them.
FASTLSTM_INLINE void store_int8(Bits q, Index k, uint32_t* to, Constant<2>) {
  const Bits upper = q << 16, lower = q & 0xffff;
  for (Index lane = 0; lane < Float::kLanes; lane += 4) {
    to[(k + lane) / 2] = uint32_t(lower[lane] | upper[lane + 2]);
    to[(k + lane) / 2 + 1] = uint32_t(lower[lane + 1] | upper[lane + 3]);
  }
}
FASTLSTM_INLINE void store_int8(Bits q, Index k, int32_t* to, Constant<4>) {
  memcpy(to + k, &q, sizeof q);
}

/// Calls store(values, k) for the vectors of a row as int8. The scale is the largest magnitude /
/// 127; of a row that is not finite, NaN; of one below 2^-100, 0.
template <class Store>
FASTLSTM_INLINE void convert_to_int8(const float* x, Index K, float* scale, Store store) {
  constexpr float kLeast = 0x1p-100f, kMost = 127;
  constexpr float kRound = 0x1.8p+23f;  // added, it rounds to an integer in the lowest bits
  Bits most{};
  for_each_padded(x, K, [&](Index, Float v) FASTLSTM_INLINE_LAMBDA {
    const Bits magnitude = bits_as<Bits>(v.raw) & 0x7fffffff;
    most = FASTLSTM_CHOOSE(magnitude > most, magnitude, most);
  });
  int32_t bits = 0;
  for (Index lane = 0; lane < Float::kLanes; ++lane) bits = most[lane] > bits ? most[lane] : bits;
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  const bool finite = bits < 0x7f800000, small = largest < kLeast;
  *scale = !finite ? kNaN<float> : small ? 0 : largest / kMost;
  const Float factor = Float::broadcast(!finite || small ? 0 : kMost / largest);
  const Float round = Float::broadcast(kRound);
  for_each_padded(x, K, [&](Index k, Float v) FASTLSTM_INLINE_LAMBDA {
    const Bits q = bits_as<Bits>((v * factor + round).raw) - bits_as<Bits>(round.raw);
    store(finite ? q : Bits{}, k);
  });
}

template <class Input>
FASTLSTM_INLINE void convert_row(Int8Products, const float* x, Index K, Input* to, float* scale) {
  convert_to_int8(x, K, scale, [&](Bits q, Index k) FASTLSTM_INLINE_LAMBDA {
    store_int8(q, k, to, Constant<Int8Products::kSteps>());
  });
}

/// Some rows of inputs as W multiplies them.
template <class W>
struct ConvertedRows {
  const typename W::Input* rows[kRowsAtOnce];
  float scales[kRowsAtOnce];

  /// x: [n] in: pointers to [K], n <= kRowsAtOnce. room: [converted_bytes(n, K)]
  FASTLSTM_NOINLINE ConvertedRows(Index n, Index K, const float* const* x, void* room) {
    char* to = static_cast<char*>(room);
    for (Index r = 0; r < n; ++r, to += converted_bytes(1, K)) {
      auto* const row = reinterpret_cast<typename W::Input*>(to);
      rows[r] = row;
      convert_row(W(), x[r], K, row, &scales[r]);
    }
  }
};

/// The rows as they are, where W takes them so.
template <class T>
struct GivenRows {
  const T* const* rows;
  static constexpr const float* scales = nullptr;

  FASTLSTM_INLINE GivenRows(Index, Index, const T* const* x, void*) : rows(x) {}
};

template <class W, class T>
struct RowsOf {
  using Type = GivenRows<T>;
};
template <>
struct RowsOf<Bfloat16Products, float> {
  using Type = ConvertedRows<Bfloat16Products>;
};
template <>
struct RowsOf<Int8Products, float> {
  using Type = ConvertedRows<Int8Products>;
};

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

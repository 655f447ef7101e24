// How weights are read and multiplied, for each arithmetic (fastlstm/arithmetic.hpp):
//
//   Stored     what a panel has for a column and kGroup inputs
//   Input      what a row of inputs has for each of the kSteps products of a group
//   load       a group of weights of a vector of columns
//   weight     what of it product j takes
//   Operand    a vector of that, or of an input
//   Sum        of products, while they are added; a tile has it as a Vec before and after
//   add        sum + input * weight
//   kScales    whether `value` makes the sum that a column's scale, and that of a converted row,
//              are multiplied with
//   Products   what multiplies: the same, but where rows of inputs are converted before
//              (kernels/convert_rows.hpp) and all else is as of another arithmetic
//
// A sum of integers lies in a Vec<float> as its bits, but not where it is added to: as both at a
// time it took two registers of GCC 12, and most were kept on the stack.
#pragma once

#include "kernels/panel.hpp"
#include "simd/vec.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fastlstm::FASTLSTM_TARGET {
namespace {

using Float = Vec<float>;
using Bits = Vec<float>::Int;

/// What is there, as 32-bit integers.
FASTLSTM_INLINE Bits load_bits(const uint32_t* p) {
  Bits bits;
  memcpy(&bits, p, sizeof bits);
  return bits;
}

/// Sums and operands as of the tiles.
template <class T>
struct FloatSums {
  using Operand = Vec<T>;
  using Sum = Vec<T>;
  static constexpr bool kScales = false;

  static FASTLSTM_INLINE Sum from_vector(Vec<T> sum) { return sum; }
  static FASTLSTM_INLINE Vec<T> to_vector(Sum sum) { return sum; }
};

/// Stored as what is computed with.
template <class T>
struct FullWeights : FloatSums<T> {
  using Products = FullWeights;
  using Stored = T;
  using Input = T;
  static constexpr Arithmetic kArithmetic = Arithmetic::kFull;
  static constexpr int kSteps = 1;

  static FASTLSTM_INLINE Vec<T> broadcast(const Input* x) { return Vec<T>::broadcast(*x); }
  static FASTLSTM_INLINE Vec<T> load(const Stored* p) { return Vec<T>::load(p); }
  static FASTLSTM_INLINE Vec<T> weight(Vec<T> w, int) { return w; }
  static FASTLSTM_INLINE Vec<T> add(Vec<T> sum, Vec<T> x, Vec<T> w) { return fma(x, w, sum); }
};

/// bfloat16, widened.
struct Bfloat16Weights : FloatSums<float> {
  using Products = Bfloat16Weights;
  using Stored = uint32_t;
  using Input = float;
  static constexpr Arithmetic kArithmetic = Arithmetic::kBfloat16Weights;
  static constexpr int kSteps = 2;

  static FASTLSTM_INLINE Float broadcast(const Input* x) { return Float::broadcast(*x); }
  static FASTLSTM_INLINE Bits load(const Stored* p) { return load_bits(p); }
  static FASTLSTM_INLINE Float weight(Bits bits, int j) {
    return {bits_as<Float::Raw>(j == 0 ? bits & -0x10000 : bits << 16)};
  }
  static FASTLSTM_INLINE Float add(Float sum, Float x, Float w) { return fma(x, w, sum); }
};

/// A vector of int8 as 32-bit integers. GCC 12 converts one element after the other.
FASTLSTM_INLINE Bits load_int8(const int8_t* p) {
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  return bits_as<Bits>(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  return bits_as<Bits>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif (defined(__SSE2__) || defined(__aarch64__)) && FASTLSTM_VECTOR_BYTES == 16
  int32_t four;
  memcpy(&four, p, sizeof four);
#if defined(__SSE2__)
  const __m128i bytes = _mm_cvtsi32_si128(four), twice = _mm_unpacklo_epi8(bytes, bytes);
  return bits_as<Bits>(_mm_srai_epi32(_mm_unpacklo_epi16(twice, twice), 24));
#else
  const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
  return bits_as<Bits>(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
#endif
#else
  Lanes<int8_t, FASTLSTM_VECTOR_BYTES / 4> bytes;
  memcpy(&bytes, p, sizeof bytes);
  return converted<Bits>(bytes);
#endif
}

/// int8, widened.
struct Int8Weights : FloatSums<float> {
  using Products = Int8Weights;
  using Stored = int8_t;
  using Input = float;
  static constexpr Arithmetic kArithmetic = Arithmetic::kInt8Weights;
  static constexpr int kSteps = 1;
  static constexpr bool kScales = true, kOffsets = false;

  static FASTLSTM_INLINE Float broadcast(const Input* x) { return Float::broadcast(*x); }
  static FASTLSTM_INLINE Float load(const Stored* p) {
    return {converted<Float::Raw>(load_int8(p))};
  }
  static FASTLSTM_INLINE Float weight(Float w, int) { return w; }
  static FASTLSTM_INLINE Float add(Float sum, Float x, Float w) { return fma(x, w, sum); }
  static FASTLSTM_INLINE Float value(Float sum) { return sum; }
};

/// bfloat16 times bfloat16.
#if defined(__AVX512BF16__) && FASTLSTM_VECTOR_BYTES == 64
struct Bfloat16Products : FloatSums<float> {
  using Products = Bfloat16Products;
  using Stored = uint32_t;
  using Input = uint32_t;  // a pair, as weights have it
  using Operand = Bits;
  static constexpr Arithmetic kArithmetic = Arithmetic::kBfloat16;
  static constexpr int kSteps = 1;

  static FASTLSTM_INLINE Bits broadcast(const Input* x) {
    return bits_as<Bits>(_mm512_set1_epi32(int(*x)));
  }
  static FASTLSTM_INLINE Bits load(const Stored* p) { return load_bits(p); }
  static FASTLSTM_INLINE Bits weight(Bits w, int) { return w; }
  /// Adds the product of the upper halves first, then that of the lower ones, and rounds both.
  static FASTLSTM_INLINE Float add(Float sum, Bits x, Bits w) {
    return {
        bits_as<Float::Raw>(_mm512_dpbf16_ps(sum.raw, bits_as<__m512bh>(x), bits_as<__m512bh>(w)))};
  }
};
#else
/// The same bits: products of bfloat16 are exact in float32.
struct Bfloat16Products : Bfloat16Weights {
  using Products = Bfloat16Weights;
  static constexpr Arithmetic kArithmetic = Arithmetic::kBfloat16;
};
#endif

/// int8 times int8.
struct Int8Sums {
  using Stored = uint32_t;
  using Operand = Bits;
  using Sum = Bits;
  static constexpr Arithmetic kArithmetic = Arithmetic::kInt8;
  static constexpr bool kScales = true;

  static FASTLSTM_INLINE Sum from_vector(Float sum) { return bits_as<Bits>(sum.raw); }
  static FASTLSTM_INLINE Float to_vector(Sum sum) { return {bits_as<Float::Raw>(sum)}; }
  static FASTLSTM_INLINE Float value(Float sum) {
    return {converted<Float::Raw>(bits_as<Bits>(sum.raw))};
  }
};

#if (defined(__AVX512VNNI__) && FASTLSTM_VECTOR_BYTES == 64) || \
    (defined(__AVXVNNI__) && FASTLSTM_VECTOR_BYTES == 32) ||    \
    (defined(__ARM_FEATURE_DOTPROD) && FASTLSTM_VECTOR_BYTES == 16)
struct Int8Products : Int8Sums {
  using Products = Int8Products;
  using Input = uint32_t;  // four bytes
  static constexpr int kSteps = 1;
  // x86's instruction takes them without signs: they are 128 more than the values, and sums begin
  // with panel.offsets.
#if defined(__aarch64__)
  static constexpr bool kOffsets = false;
#else
  static constexpr bool kOffsets = true;
#endif

  static FASTLSTM_INLINE Bits broadcast(const Input* x) { return int32_t(*x) - Bits{}; }
  static FASTLSTM_INLINE Bits load(const Stored* p) { return load_bits(p); }
  static FASTLSTM_INLINE Bits weight(Bits w, int) { return w; }
  static FASTLSTM_INLINE Bits add(Bits sum, Bits x, Bits w) {
#if FASTLSTM_VECTOR_BYTES == 64
    return bits_as<Bits>(
        _mm512_dpbusd_epi32(bits_as<__m512i>(sum), bits_as<__m512i>(x), bits_as<__m512i>(w)));
#elif FASTLSTM_VECTOR_BYTES == 32
    return bits_as<Bits>(
        _mm256_dpbusd_avx_epi32(bits_as<__m256i>(sum), bits_as<__m256i>(x), bits_as<__m256i>(w)));
#else
    return bits_as<Bits>(
        vdotq_s32(bits_as<int32x4_t>(sum), bits_as<int8x16_t>(w), bits_as<int8x16_t>(x)));
#endif
  }
};
#elif (defined(__AVX512BW__) && FASTLSTM_VECTOR_BYTES == 64) || \
    (defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32) ||       \
    (defined(__SSE2__) && FASTLSTM_VECTOR_BYTES == 16)
struct Int8Products : Int8Sums {
  using Products = Int8Products;
  using Input = uint32_t;  // two values of 16 bits: of inputs 0 and 2, then 1 and 3
  using Pairs = Lanes<int16_t, FASTLSTM_VECTOR_BYTES>;
  static constexpr int kSteps = 2;
  static constexpr bool kOffsets = false;

  static FASTLSTM_INLINE Bits broadcast(const Input* x) { return int32_t(*x) - Bits{}; }
  static FASTLSTM_INLINE Bits load(const Stored* p) { return load_bits(p); }
  static FASTLSTM_INLINE Bits weight(Bits bits, int j) {
    const auto bytes = bits_as<Pairs>(bits);
    return bits_as<Bits>(j == 0 ? bytes << 8 >> 8 : bytes >> 8);
  }
  static FASTLSTM_INLINE Bits add(Bits sum, Bits x, Bits w) {
#if FASTLSTM_VECTOR_BYTES == 64
    return sum + bits_as<Bits>(_mm512_madd_epi16(bits_as<__m512i>(x), bits_as<__m512i>(w)));
#elif FASTLSTM_VECTOR_BYTES == 32
    return sum + bits_as<Bits>(_mm256_madd_epi16(bits_as<__m256i>(x), bits_as<__m256i>(w)));
#else
    return sum + bits_as<Bits>(_mm_madd_epi16(bits_as<__m128i>(x), bits_as<__m128i>(w)));
#endif
  }
};
#else
struct Int8Products : Int8Sums {
  using Products = Int8Products;
  using Input = int32_t;
  static constexpr int kSteps = 4;
  static constexpr bool kOffsets = false;

  static FASTLSTM_INLINE Bits broadcast(const Input* x) { return *x - Bits{}; }
  static FASTLSTM_INLINE Bits load(const Stored* p) { return load_bits(p); }
  static FASTLSTM_INLINE Bits weight(Bits bits, int j) { return (bits << (24 - 8 * j)) >> 24; }
  static FASTLSTM_INLINE Bits add(Bits sum, Bits x, Bits w) { return sum + x * w; }
};
#endif

template <class W>
constexpr int kGroup = inputs_in_group(W::kArithmetic);
template <class W>
constexpr bool kConverts = converts_inputs(W::kArithmetic);
/// Whether a matrix unit multiplies (kernels/unit_products.hpp).
template <class W>
constexpr bool kTiled = false;

/// Groups of K inputs in a panel.
template <class W>
FASTLSTM_INLINE Index groups_of(Index K) {
  const Index groups = (K + kGroup<W> - 1) / kGroup<W>;
  return kTiled<W> ? whole_tiles(groups) : groups;
}

/// The stored weights of a panel.
template <class W, class T>
FASTLSTM_INLINE const typename W::Stored* stored(const Panel<T>& panel) {
  return static_cast<const typename W::Stored*>(panel.data);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

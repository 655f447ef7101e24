// Vec<T>: one SIMD register of float or double, for the target that this file is compiled for.
//
// One text serves every width: a target sets FASTLSTM_VECTOR_BYTES and gets the instructions that
// its compiler flags allow (simd/lanes.hpp). Only fma, min and max need intrinsics: the compiler's
// own contraction of a * b + c may differ from one place to the next, and then the bits would; of a
// minimum it makes two instructions. Without FMA instructions (the generic target on x86-64) fma
// rounds twice.
#pragma once

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "simd/lanes.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// A number that is a constant for the compiler.
template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class T>
struct Vec {
  using Raw = Lanes<T, FASTLSTM_VECTOR_BYTES>;
  using Int = Lanes<typename IntegerOf<sizeof(T)>::Type, FASTLSTM_VECTOR_BYTES>;
  static constexpr Index kLanes = FASTLSTM_VECTOR_BYTES / sizeof(T);

  Raw raw;

  static FASTLSTM_INLINE Vec broadcast(T value) { return {value - Raw{}}; }

  /// p: [kLanes], any alignment.
  static FASTLSTM_INLINE Vec load(const T* p) {
    Vec v;
    memcpy(&v.raw, p, sizeof v.raw);
    return v;
  }
  FASTLSTM_INLINE void store(T* p) const { memcpy(p, &raw, sizeof raw); }

  /// The first n lanes, 0 <= n < kLanes; the others are zero. Reads nothing past p + n.
  static FASTLSTM_INLINE Vec load_first(const T* p, Index n) {
    Vec v{};
    for (Index k = 0; k < n; ++k) v.raw[k] = p[k];
    return v;
  }
  /// Writes nothing past p + n. In halves, quarters, ...: a lane at a time it took 6 ns of a step
  /// of 66 (LSTM, H = 8, AVX-512).
  FASTLSTM_INLINE void store_first(T* p, Index n) const {
    T lane[kLanes];
    store(lane);
    const T* from = lane;
#pragma GCC unroll 4
    for (Index part = kLanes / 2; part > 0; part /= 2) {
      if ((n & part) == 0) continue;
      memcpy(p, from, static_cast<size_t>(part) * sizeof(T));
      p += part;
      from += part;
    }
  }

  friend FASTLSTM_INLINE Vec operator+(Vec a, Vec b) { return {a.raw + b.raw}; }
  friend FASTLSTM_INLINE Vec operator-(Vec a, Vec b) { return {a.raw - b.raw}; }
  friend FASTLSTM_INLINE Vec operator*(Vec a, Vec b) { return {a.raw * b.raw}; }
  friend FASTLSTM_INLINE Vec operator/(Vec a, Vec b) { return {a.raw / b.raw}; }
};

// FASTLSTM_INTRINSIC(f, arguments): f for T of 4 or 8 bytes.
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
#define FASTLSTM_FLOAT_NAME(f) _mm512_##f##_ps
#define FASTLSTM_DOUBLE_NAME(f) _mm512_##f##_pd
#elif defined(__FMA__) && FASTLSTM_VECTOR_BYTES == 32
#define FASTLSTM_FLOAT_NAME(f) _mm256_##f##_ps
#define FASTLSTM_DOUBLE_NAME(f) _mm256_##f##_pd
#elif defined(__aarch64__) && FASTLSTM_VECTOR_BYTES == 16
#define FASTLSTM_FLOAT_NAME(f) v##f##q_f32
#define FASTLSTM_DOUBLE_NAME(f) v##f##q_f64
#endif
#define FASTLSTM_INTRINSIC(f, ...)                 \
  if constexpr (sizeof(T) == 4) {                  \
    return {FASTLSTM_FLOAT_NAME(f)(__VA_ARGS__)};  \
  } else {                                         \
    return {FASTLSTM_DOUBLE_NAME(f)(__VA_ARGS__)}; \
  }

/// a * b + c
template <class T>
FASTLSTM_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
#if !defined(FASTLSTM_FLOAT_NAME)
  return {a.raw * b.raw + c.raw};
#elif defined(__aarch64__)
  FASTLSTM_INTRINSIC(fma, c.raw, a.raw, b.raw)
#else
  FASTLSTM_INTRINSIC(fmadd, a.raw, b.raw, c.raw)
#endif
}

/// The smaller and the larger; NaN where x is.
template <class T>
FASTLSTM_INLINE Vec<T> min(Vec<T> x, Vec<T> bound) {
#if defined(FASTLSTM_FLOAT_NAME)
  FASTLSTM_INTRINSIC(min, bound.raw, x.raw)
#else
  return {FASTLSTM_CHOOSE(bound.raw < x.raw, bound.raw, x.raw)};
#endif
}
template <class T>
FASTLSTM_INLINE Vec<T> max(Vec<T> x, Vec<T> bound) {
#if defined(FASTLSTM_FLOAT_NAME)
  FASTLSTM_INTRINSIC(max, bound.raw, x.raw)
#else
  return {FASTLSTM_CHOOSE(bound.raw > x.raw, bound.raw, x.raw)};
#endif
}

/// Rounded correctly; NaN below zero.
template <class T>
FASTLSTM_INLINE Vec<T> sqrt(Vec<T> x) {
#if defined(FASTLSTM_FLOAT_NAME)
  FASTLSTM_INTRINSIC(sqrt, x.raw)
#else
  Vec<T> y{};
  for (Index k = 0; k < Vec<T>::kLanes; ++k) y.raw[k] = square_root(x.raw[k]);
  return y;
#endif
}

#undef FASTLSTM_INTRINSIC
#undef FASTLSTM_FLOAT_NAME
#undef FASTLSTM_DOUBLE_NAME

/// The sum of all lanes, half by half.
template <class T>
FASTLSTM_INLINE T sum_of_lanes(Vec<T> v) {
  T lane[Vec<T>::kLanes];
  v.store(lane);
#pragma GCC unroll 4
  for (Index n = Vec<T>::kLanes / 2; n > 0; n /= 2) {
    for (Index k = 0; k < n; ++k) lane[k] += lane[k + n];
  }
  return lane[0];
}

/// The largest of all lanes; which one where some are NaN is not said.
template <class T>
FASTLSTM_INLINE T largest_lane(Vec<T> v) {
  T lane[Vec<T>::kLanes];
  v.store(lane);
#pragma GCC unroll 4
  for (Index n = Vec<T>::kLanes / 2; n > 0; n /= 2) {
    for (Index k = 0; k < n; ++k) lane[k] = lane[k] < lane[k + n] ? lane[k + n] : lane[k];
  }
  return lane[0];
}

/// Writes the lanes of one vector that exist, of n elements from p on; none where n <= 0.
template <class T>
FASTLSTM_INLINE void store_left(Vec<T> v, T* p, Index n) {
  if (n >= Vec<T>::kLanes) {
    v.store(p);
  } else if (n > 0) {
    v.store_first(p, n);
  }
}

/// Calls body(k, load, store) for the vectors that start at element k and together cover n
/// elements; load and store reach full vectors, and only what is left of n in the last one.
template <class T, class Body>
FASTLSTM_INLINE void for_each_vector(Index n, Body body) {
  Index k = 0;
  for (; k + Vec<T>::kLanes <= n; k += Vec<T>::kLanes) {
    body(
        k, [](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(p); },
        [](Vec<T> v, T* p) FASTLSTM_INLINE_LAMBDA { v.store(p); });
  }
  const Index left = n - k;
  if (left > 0) {
    body(
        k, [left](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load_first(p, left); },
        [left](Vec<T> v, T* p) FASTLSTM_INLINE_LAMBDA { v.store_first(p, left); });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

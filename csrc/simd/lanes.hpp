// What kernels take from the compiler where C++ has no words for it: Lanes<T, kBytes>, numbers side
// by side, and hints. The one file that has constructs of GCC and Clang for them, whose vectors
// become the instructions of any target. Other compilers, or FASTLSTM_PLAIN_CPP, have arrays, and
// nothing but the generic target.
//
// Everything here has internal linkage: this file is compiled for several instruction sets, and a
// function that the linker could merge would run on CPUs that lack its instructions.
#pragma once

#include <stdint.h>
#include <string.h>

#include "fastlstm/types.hpp"

#if !defined(__GNUC__) && !defined(FASTLSTM_PLAIN_CPP)
#define FASTLSTM_PLAIN_CPP
#endif

#if !defined(FASTLSTM_PLAIN_CPP)
#define FASTLSTM_INLINE inline __attribute__((always_inline))
#define FASTLSTM_INLINE_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#define FASTLSTM_NOINLINE __attribute__((noinline))
#else
#define FASTLSTM_NOINLINE __attribute__((noinline, noclone))  // one copy of the code
#endif
#else
#include <math.h>
#include <stdlib.h>
#if defined(_MSC_VER)
#define FASTLSTM_INLINE __forceinline
#else
#define FASTLSTM_INLINE inline
#endif
#define FASTLSTM_INLINE_LAMBDA
#define FASTLSTM_NOINLINE
#endif

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <int kBytes>
struct IntegerOf;
template <>
struct IntegerOf<4> {
  using Type = int32_t;
};
template <>
struct IntegerOf<8> {
  using Type = int64_t;
};

#if !defined(FASTLSTM_PLAIN_CPP)

template <class T>
constexpr T kInfinity = T(__builtin_inf());
template <class T>
constexpr T kNaN = T(__builtin_nan(""));

template <class T, int kBytes>
struct LanesOf {
  typedef T Type __attribute__((vector_size(kBytes)));
};
/// With the operators of T, lane by lane; comparisons give integers, all of whose bits are set
/// where they hold. Lanes{} is zero.
template <class T, int kBytes>
using Lanes = typename LanesOf<T, kBytes>::Type;

/// `yes` where the lanes of a comparison hold, `no` elsewhere. No function: GCC would compare what
/// it is given with zero once more.
#define FASTLSTM_CHOOSE(comparison, yes, no) ((comparison) ? (yes) : (no))

/// The same bits.
template <class To, class From>
FASTLSTM_INLINE To bits_as(From from) {
  return (To)from;
}

/// Each lane's number as one of To's lanes, of which there are as many.
template <class To, class From>
FASTLSTM_INLINE To converted(From from) {
  return __builtin_convertvector(from, To);
}

/// Lanes of a, and of b counted from there on.
template <int... lanes, class L>
FASTLSTM_INLINE L picked(L a, L b) {
  return __builtin_shufflevector(a, b, lanes...);
}

FASTLSTM_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
FASTLSTM_INLINE double square_root(double x) { return __builtin_sqrt(x); }
FASTLSTM_INLINE double magnitude(double x) { return __builtin_fabs(x); }

FASTLSTM_INLINE bool unlikely(bool condition) { return __builtin_expect(condition, false); }
/// What is soon read goes to the L2 cache, and to the first what is soon written.
FASTLSTM_INLINE void fetch_to_read(const void* p) { __builtin_prefetch(p, 0, 2); }
FASTLSTM_INLINE void fetch_to_write(const void* p) { __builtin_prefetch(p, 1); }
[[noreturn]] FASTLSTM_INLINE void end_process() { __builtin_trap(); }

#else

template <class T>
constexpr T kInfinity = T(INFINITY);
template <class T>
constexpr T kNaN = T(NAN);

template <class T, int kBytes>
struct Lanes {
  using Value = T;
  static constexpr int kCount = kBytes / int(sizeof(T));
  T lane[kCount];

  T& operator[](Index k) { return lane[k]; }
  const T& operator[](Index k) const { return lane[k]; }

  static Lanes same(T value) {
    Lanes all;
    for (T& x : all.lane) x = value;
    return all;
  }

#define FASTLSTM_OPERATOR(op)                                               \
  friend Lanes operator op(const Lanes& a, const Lanes& b) {                \
    Lanes y;                                                                \
    for (int k = 0; k < kCount; ++k) y.lane[k] = T(a.lane[k] op b.lane[k]); \
    return y;                                                               \
  }                                                                         \
  friend Lanes operator op(const Lanes& a, T b) { return a op same(b); }    \
  friend Lanes operator op(T a, const Lanes& b) { return same(a) op b; }
  FASTLSTM_OPERATOR(+)
  FASTLSTM_OPERATOR(-)
  FASTLSTM_OPERATOR(*)
  FASTLSTM_OPERATOR(/)
  FASTLSTM_OPERATOR(&)
  FASTLSTM_OPERATOR(|)
  FASTLSTM_OPERATOR(^)
#undef FASTLSTM_OPERATOR
  friend Lanes operator-(const Lanes& a) { return T(-0.0) - a; }
  Lanes& operator+=(const Lanes& b) { return *this = *this + b; }
  Lanes& operator^=(const Lanes& b) { return *this = *this ^ b; }

  // Through unsigned integers: of signed ones C++17 leaves some of it undefined.
  friend Lanes operator<<(const Lanes& a, int n) {
    Lanes y;
    for (int k = 0; k < kCount; ++k) y.lane[k] = T(uint64_t(a.lane[k]) << n);
    return y;
  }
  friend Lanes operator>>(const Lanes& a, int n) {
    Lanes y;
    for (int k = 0; k < kCount; ++k) y.lane[k] = T(a.lane[k] >> n);
    return y;
  }

#define FASTLSTM_COMPARISON(op)                                                      \
  friend auto operator op(const Lanes& a, const Lanes& b) {                          \
    Lanes<typename IntegerOf<sizeof(T)>::Type, kBytes> mask;                         \
    for (int k = 0; k < kCount; ++k) mask.lane[k] = a.lane[k] op b.lane[k] ? -1 : 0; \
    return mask;                                                                     \
  }                                                                                  \
  friend auto operator op(const Lanes& a, T b) { return a op same(b); }
  FASTLSTM_COMPARISON(<)
  FASTLSTM_COMPARISON(>)
  FASTLSTM_COMPARISON(==)
#undef FASTLSTM_COMPARISON
};

#define FASTLSTM_CHOOSE(comparison, yes, no) choose(comparison, yes, no)
template <class Mask, class L>
L choose(const Mask& mask, const L& yes, const L& no) {
  L y;
  for (int k = 0; k < L::kCount; ++k) y.lane[k] = mask.lane[k] != 0 ? yes.lane[k] : no.lane[k];
  return y;
}

template <class To, class From>
To bits_as(const From& from) {
  To to;
  static_assert(sizeof to == sizeof from);
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class To, class From>
To converted(const From& from) {
  To to;
  static_assert(To::kCount == From::kCount);
  using Value = typename To::Value;
  for (int k = 0; k < To::kCount; ++k) to.lane[k] = Value(from.lane[k]);
  return to;
}

template <int... lanes, class L>
L picked(const L& a, const L& b) {
  return {{(lanes < L::kCount ? a.lane[lanes % L::kCount] : b.lane[lanes % L::kCount])...}};
}

FASTLSTM_INLINE float square_root(float x) { return sqrtf(x); }
FASTLSTM_INLINE double square_root(double x) { return sqrt(x); }
FASTLSTM_INLINE double magnitude(double x) { return fabs(x); }

FASTLSTM_INLINE bool unlikely(bool condition) { return condition; }
FASTLSTM_INLINE void fetch_to_read(const void*) {}
FASTLSTM_INLINE void fetch_to_write(const void*) {}
[[noreturn]] FASTLSTM_INLINE void end_process() { abort(); }

#endif

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

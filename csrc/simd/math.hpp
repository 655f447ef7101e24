// exp, log, sigmoid and tanh on Vec<T>.
//
// Method: x = n ln 2 + r with n an integer and |r| <= ln(2)/2, and expm1(r) = r + r^2 s(r) with s a
// minimax polynomial (tools/exp_coefficients.py computes it; relative error 2^-32.0 for float and
// 2^-61.7 for double). ln 2 is held in two parts, the first short enough for n times it to be
// exact. For log, x = 2^n m with m from sqrt(1/2) to sqrt(2), and log m = 2 atanh(s) with s =
// (m - 1) / (m + 1), |s| < 0.172, by as many terms of the series 1/3, 1/5, ... as count.
//
// Largest error measured by tests/test_numerics.py over the whole range, in ULP of the exact result
// (the table by instruction set is in docs/numerics.md):
//             float  double
//   exp       1.0    1.0
//   log       0.8    0.8
//   sigmoid   2.5    2.5
//   tanh      2.5    2.5
// All return NaN for NaN. exp, log and tanh have their exact limits at infinities; sigmoid stops
// at the denormal 6e-39 (float) or 1.2e-308 (double), which is zero inside a call, where denormal
// results are flushed (runtime/fp_mode.hpp). log takes denormals for zeros.
#pragma once

#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kLog2e = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f;
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  // Adding it rounds to an integer n, and n + kExponentBias stands in the lowest bits of the sum.
  static constexpr float kRound = 0x1.8p+23f + 127;
  static constexpr int kMantissaBits = 23;
  static constexpr int kExponentBias = 127;
  static constexpr float kExpMost = 89.0f;     // exp overflows to infinity below it
  static constexpr float kExpLeast = -104.0f;  // exp underflows to zero above it
  static constexpr float kNormalMost = 88.0f;  // 2^n is a normal number for |x| up to it
  static constexpr float kTanhMost = 10.0f;    // tanh rounds to 1 below it
  static constexpr float kS[] = {0x1.00000025e9deap-1f,  0x1.555554ef9f8efp-3f,
                                 0x1.5554b13fcda74p-5f,  0x1.111189595c1e8p-7f,
                                 0x1.6d71e587c1740p-10f, 0x1.a032bf3f4e803p-13f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa2p-1;
  static constexpr double kLn2Low = 0x1.9ef35793c7673p-41;
  static constexpr double kRound = 0x1.8p+52 + 1023;
  static constexpr int kMantissaBits = 52;
  static constexpr int kExponentBias = 1023;
  static constexpr double kExpMost = 710.0;
  static constexpr double kExpLeast = -746.0;
  static constexpr double kNormalMost = 709.0;
  static constexpr double kTanhMost = 20.0;
  static constexpr double kS[] = {
      0x1.0000000000000p-1,  0x1.5555555555559p-3,  0x1.555555555553fp-5,  0x1.111111110f6dfp-7,
      0x1.6c16c16c1f05ap-10, 0x1.a01a01afd17e7p-13, 0x1.a01a017bccdf1p-16, 0x1.71ddf885659cep-19,
      0x1.27e536248dbd1p-22, 0x1.af5e685539f56p-26, 0x1.1ee88a5c7506ap-29};
};

/// Coefficient k of the s that exp_parts<A> gives. Exact: A is a power of two but for its sign.
template <int A, class T>
constexpr T coefficient(int k) {
  T c = ExpConstants<T>::kS[k] * (A < 0 ? -A : A);
  for (; k > 0; --k) c *= A;
  return c;
}

/// exp(A x) = 2^n exp(A r), with n an integer and |A r| <= ln(2)/2.
template <class T>
struct ExpParts {
  typename Vec<T>::Int biased_n;  // in the lowest bits: n + kExponentBias
  Vec<T> r;
  Vec<T> s;  // expm1(A r) = A r + |A| r^2 s
};

/// Valid where |A x| < 1000 (float) or 10000 (double). A: -1, 1 or 2; the constants take it in.
template <int A, class T>
FASTLSTM_INLINE ExpParts<T> exp_parts(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> round = Vec<T>::broadcast(C::kRound);
  const Vec<T> shifted = fma(x, Vec<T>::broadcast(A * C::kLog2e), round);
  const Vec<T> n = shifted - round;
  Vec<T> r = fma(n, Vec<T>::broadcast(-C::kLn2High / A), x);
  r = fma(n, Vec<T>::broadcast(-C::kLn2Low / A), r);
  constexpr int kTerms = sizeof(C::kS) / sizeof(T);
  Vec<T> s = Vec<T>::broadcast(coefficient<A, T>(kTerms - 1));
#pragma GCC unroll 16
  for (int k = kTerms - 2; k >= 0; --k) s = fma(s, r, Vec<T>::broadcast(coefficient<A, T>(k)));
  return {bits_as<typename Vec<T>::Int>(shifted.raw), r, s};
}

/// 2^n where the result is a normal number, or zero for the n just below.
template <class T>
FASTLSTM_INLINE Vec<T> power_of_two(typename Vec<T>::Int biased_n) {
  return {bits_as<typename Vec<T>::Raw>(biased_n << ExpConstants<T>::kMantissaBits)};
}

/// e^x for any x.
template <class T>
FASTLSTM_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  x = max(min(x, Vec<T>::broadcast(C::kExpMost)), Vec<T>::broadcast(C::kExpLeast));
  const ExpParts<T> e = exp_parts<1>(x);
  // Two factors: 2^n alone may overflow or be denormal where the result is neither.
  const typename Vec<T>::Int n =
      e.biased_n - bits_as<typename Vec<T>::Int>(Vec<T>::broadcast(C::kRound).raw);
  const typename Vec<T>::Int half = n >> 1;
  const Vec<T> expm1 = fma(e.r * e.r, e.s, e.r);
  return (Vec<T>::broadcast(1) + expm1) * power_of_two<T>(half + C::kExponentBias) *
         power_of_two<T>(n - half + C::kExponentBias);
}

template <class T>
struct LogConstants;

template <>
struct LogConstants<float> {
  static constexpr int32_t kSqrtHalf = 0x3f3504f3;  // the bits of sqrt(1/2)
  static constexpr int32_t kOne = 0x3f800000;
  static constexpr int32_t kMantissa = 0x7fffff;
  static constexpr float kShift = 0x1.8p+23f;  // the bits of kShift + n are its own plus n
  static constexpr float kLeast = 0x1p-126f;   // the least normal number
  static constexpr int kTerms = 4;             // the next is below 2^-28 of the sum
};

template <>
struct LogConstants<double> {
  static constexpr int64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr int64_t kOne = 0x3ff0000000000000;
  static constexpr int64_t kMantissa = 0xfffffffffffff;
  static constexpr double kShift = 0x1.8p+52;
  static constexpr double kLeast = 0x1p-1022;
  static constexpr int kTerms = 10;  // below 2^-58
};

/// The natural logarithm for any x.
template <class T>
FASTLSTM_INLINE Vec<T> log(Vec<T> x) {
  using C = LogConstants<T>;
  using Raw = typename Vec<T>::Raw;
  using Int = typename Vec<T>::Int;
  const Vec<T> shift = Vec<T>::broadcast(C::kShift);
  const Vec<T> bias = Vec<T>::broadcast(C::kShift + ExpConstants<T>::kExponentBias);
  const Raw infinity = Vec<T>::broadcast(kInfinity<T>).raw;
  // Sums of bits stay in their range: of NaN and infinity they would not.
  const Raw counted = FASTLSTM_CHOOSE(x.raw < infinity, x.raw, Vec<T>::broadcast(1).raw);
  const Int bits = bits_as<Int>(counted) + (C::kOne - C::kSqrtHalf);
  const Vec<T> n =
      Vec<T>{bits_as<Raw>((bits >> ExpConstants<T>::kMantissaBits) + bits_as<Int>(shift.raw))} -
      bias;
  const Vec<T> f =
      Vec<T>{bits_as<Raw>((bits & C::kMantissa) + C::kSqrtHalf)} - Vec<T>::broadcast(1);
  const Vec<T> s = f / (f + Vec<T>::broadcast(2));
  const Vec<T> z = s * s;
  Vec<T> series = Vec<T>::broadcast(T(2) / T(2 * C::kTerms + 1));
#pragma GCC unroll 16
  for (int k = C::kTerms - 1; k > 0; --k) {
    series = fma(series, z, Vec<T>::broadcast(T(2) / T(2 * k + 1)));
  }
  // log m = f - (f^2/2 - s (f^2/2 + z series)), where what is rounded is small beside f.
  const Vec<T> half_square = Vec<T>::broadcast(0.5) * f * f;
  const Vec<T> small =
      fma(s, fma(z, series, half_square), n * Vec<T>::broadcast(ExpConstants<T>::kLn2Low));
  const Vec<T> y = fma(n, Vec<T>::broadcast(ExpConstants<T>::kLn2High), f - (half_square - small));
  const Raw below = FASTLSTM_CHOOSE(x.raw < Raw{}, Vec<T>::broadcast(kNaN<T>).raw, -infinity);
  const Raw finite = FASTLSTM_CHOOSE(x.raw < Vec<T>::broadcast(C::kLeast).raw, below, y.raw);
  return {FASTLSTM_CHOOSE(x.raw < infinity, finite, x.raw)};
}

/// 1 / (1 + e^-x) for any x.
template <class T>
FASTLSTM_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> one = Vec<T>::broadcast(1);
  x = max(min(x, Vec<T>::broadcast(C::kNormalMost)), Vec<T>::broadcast(-C::kNormalMost));
  const ExpParts<T> e = exp_parts<-1>(x);
  const Vec<T> exp_r = fma(fma(e.s, e.r, Vec<T>::broadcast(-1)), e.r, one);
  return one / fma(power_of_two<T>(e.biased_n), exp_r, one);
}

/// tanh x = m / (m + 1) with m = expm1(2x) / 2, for any x; on |x|, so that it is odd.
template <class T>
FASTLSTM_INLINE Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename Vec<T>::Int;
  const Int sign = bits_as<Int>(x.raw) & bits_as<Int>(Vec<T>::broadcast(T(-0.0)).raw);
  const Vec<T> magnitude = {bits_as<typename Vec<T>::Raw>(bits_as<Int>(x.raw) ^ sign)};
  const ExpParts<T> e = exp_parts<2>(min(magnitude, Vec<T>::broadcast(C::kTanhMost)));
  const Vec<T> half = Vec<T>::broadcast(0.5);
  const Vec<T> scale = power_of_two<T>(e.biased_n);
  const Vec<T> m = fma(scale, fma(e.r * e.r, e.s, e.r), fma(scale, half, Vec<T>::broadcast(-0.5)));
  const Vec<T> result = m / (m + Vec<T>::broadcast(1));
  return {bits_as<typename Vec<T>::Raw>(bits_as<Int>(result.raw) | sign)};
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

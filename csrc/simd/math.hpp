// exp, sigmoid and tanh on Vec<T>.
//
// Method: x = n ln 2 + r with n an integer and |r| <= ln(2)/2, and expm1(r) = r + r^2 s(r) with s a
// minimax polynomial (tools/exp_coefficients.py computes it; relative error 2^-31.8 for float and
// 2^-58.4 for double). ln 2 is held in two parts, the first short enough for n times it to be
// exact.
//
// Largest error measured by tests/test_numerics.py over the whole range, in ULP of the exact result
// (the table by instruction set is in docs/numerics.md):
//             float  double
//   exp       1.0    1.0
//   sigmoid   2.5    2.5
//   tanh      2.5    2.5
// All three return NaN for NaN. exp and tanh have their exact limits at infinities; sigmoid stops
// at the denormal 6e-39 (float) or 1.2e-308 (double), which is zero inside a call, where denormal
// results are flushed (runtime/fp_mode.hpp).
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
  // Adding it rounds to an integer, which then stands in the lowest bits of the sum.
  static constexpr float kRound = 0x1.8p+23f;
  static constexpr int kMantissaBits = 23;
  static constexpr int kExponentBias = 127;
  static constexpr float kExpMost = 89.0f;     // exp overflows to infinity below it
  static constexpr float kExpLeast = -104.0f;  // exp underflows to zero above it
  static constexpr float kNormalMost = 88.0f;  // 2^n is a normal number for |x| up to it
  static constexpr float kTanhMost = 10.0f;    // tanh rounds to 1 below it
  static constexpr float kS[] = {0x1.0000002d8c4dap-1f,  0x1.555555a650edcp-3f,
                                 0x1.55549f0ac184fp-5f,  0x1.11101dc723b1ep-7f,
                                 0x1.6d833820054c0p-10f, 0x1.a2a2f9939fe2cp-13f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa2p-1;
  static constexpr double kLn2Low = 0x1.9ef35793c7673p-41;
  static constexpr double kRound = 0x1.8p+52;
  static constexpr int kMantissaBits = 52;
  static constexpr int kExponentBias = 1023;
  static constexpr double kExpMost = 710.0;
  static constexpr double kExpLeast = -746.0;
  static constexpr double kNormalMost = 709.0;
  static constexpr double kTanhMost = 20.0;
  static constexpr double kS[] = {
      0x1.0000000000001p-1,  0x1.5555555555557p-3,  0x1.5555555554d3fp-5,  0x1.11111111100eap-7,
      0x1.6c16c16f0995bp-10, 0x1.a01a01abe132bp-13, 0x1.a019f398ee7efp-16, 0x1.71de0245293bdp-19,
      0x1.280222aa28ad7p-22, 0x1.af4dc3f063a79p-26, 0x1.e632495ccf480p-30};
};

/// exp(x) = 2^n (1 + q).
template <class T>
struct ExpParts {
  typename Vec<T>::Int n;
  Vec<T> q;  // expm1(x - n ln 2)
};

/// Valid where |x| < 1000 (float) or 10000 (double).
template <class T>
FASTLSTM_INLINE ExpParts<T> exp_parts(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename Vec<T>::Int;
  const Vec<T> round = Vec<T>::broadcast(C::kRound);
  const Vec<T> shifted = fma(x, Vec<T>::broadcast(C::kLog2e), round);
  const Vec<T> n = shifted - round;
  Vec<T> r = fma(n, Vec<T>::broadcast(-C::kLn2High), x);
  r = fma(n, Vec<T>::broadcast(-C::kLn2Low), r);
  constexpr int kTerms = sizeof(C::kS) / sizeof(T);
  Vec<T> s = Vec<T>::broadcast(C::kS[kTerms - 1]);
#pragma GCC unroll 16
  for (int k = kTerms - 2; k >= 0; --k) s = fma(s, r, Vec<T>::broadcast(C::kS[k]));
  return {(Int)shifted.raw - (Int)round.raw, fma(r * r, s, r)};
}

/// 2^n for n whose result is a normal number.
template <class T>
FASTLSTM_INLINE Vec<T> power_of_two(typename Vec<T>::Int n) {
  using C = ExpConstants<T>;
  return {(typename Vec<T>::Raw)((n + C::kExponentBias) << C::kMantissaBits)};
}

/// e^x for any x.
template <class T>
FASTLSTM_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  x = max(min(x, Vec<T>::broadcast(C::kExpMost)), Vec<T>::broadcast(C::kExpLeast));
  const ExpParts<T> e = exp_parts(x);
  // Two factors: 2^n alone may overflow or be denormal where the result is neither.
  const typename Vec<T>::Int half = e.n >> 1;
  const Vec<T> one = Vec<T>::broadcast(1);
  return (one + e.q) * power_of_two<T>(half) * power_of_two<T>(e.n - half);
}

/// 1 / (1 + e^-x) for any x.
template <class T>
FASTLSTM_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> zero = Vec<T>::broadcast(0);
  const Vec<T> one = Vec<T>::broadcast(1);
  const Vec<T> negated =
      max(min(zero - x, Vec<T>::broadcast(C::kNormalMost)), Vec<T>::broadcast(1 - C::kNormalMost));
  const ExpParts<T> e = exp_parts(negated);
  const Vec<T> scale = power_of_two<T>(e.n);
  return one / (one + fma(scale, e.q, scale));
}

/// tanh x = expm1(2x) / (expm1(2x) + 2) for any x; on |x|, so that it is odd.
template <class T>
FASTLSTM_INLINE Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename Vec<T>::Int;
  const Int sign = (Int)x.raw & (Int)Vec<T>::broadcast(T(-0.0)).raw;
  const Vec<T> magnitude = {(typename Vec<T>::Raw)((Int)x.raw ^ sign)};
  const Vec<T> clamped = min(magnitude, Vec<T>::broadcast(C::kTanhMost));
  const ExpParts<T> e = exp_parts(clamped + clamped);
  const Vec<T> scale = power_of_two<T>(e.n);
  const Vec<T> expm1 = fma(scale, e.q, scale - Vec<T>::broadcast(1));
  const Vec<T> result = expm1 / (expm1 + Vec<T>::broadcast(2));
  return {(typename Vec<T>::Raw)((Int)result.raw | sign)};
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

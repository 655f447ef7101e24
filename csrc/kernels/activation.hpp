// The activation functions of ONNX on Vec<T>, and their slopes. One branch for a vector, which goes
// the same way for a whole call; nothing is inlined but once, as no common case comes here.
#pragma once

#include "fastlstm/activation.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
FASTLSTM_INLINE Vec<T> absolute(Vec<T> x) {
  return max(x, Vec<T>::broadcast(0) - x);
}

/// e^x - 1 for x <= 0, within 2 ULP.
template <class T>
FASTLSTM_INLINE Vec<T> expm1_below_zero(Vec<T> x) {
  const ExpParts<T> e = exp_parts<1>(max(x, Vec<T>::broadcast(-ExpConstants<T>::kNormalMost)));
  const Vec<T> scale = power_of_two<T>(e.biased_n);
  return fma(scale, fma(e.r * e.r, e.s, e.r), scale - Vec<T>::broadcast(1));
}

/// log(1 + u) for 0 <= u <= 1, within 2 ULP: 2 artanh(s) with s = u / (2 + u) <= 1/3, by its Taylor
/// series s + s^3/3 + s^5/5 + ..., whose first term left out is below 2^-26 (float), 2^-55 (double)
/// of the sum.
template <class T>
FASTLSTM_INLINE Vec<T> log1p_to_one(Vec<T> u) {
  constexpr int kTerms = sizeof(T) == 4 ? 7 : 16;
  const Vec<T> s = u / (u + Vec<T>::broadcast(2));
  const Vec<T> square = s * s;
  Vec<T> sum = Vec<T>::broadcast(T(1.0 / (2 * kTerms + 1)));
#pragma GCC unroll 16
  for (int k = kTerms - 1; k >= 0; --k)
    sum = fma(sum, square, Vec<T>::broadcast(T(1.0 / (2 * k + 1))));
  return (s + s) * sum;
}

/// The function's values. NaN gives NaN.
template <class T>
FASTLSTM_NOINLINE Vec<T> activate(const Activation& function, Vec<T> x) {
  const Vec<T> zero = Vec<T>::broadcast(0), one = Vec<T>::broadcast(1);
  const Vec<T> alpha = Vec<T>::broadcast(T(function.alpha));
  const Vec<T> beta = Vec<T>::broadcast(T(function.beta));
  switch (function.kind) {
    case ActivationKind::kAffine:
      return fma(alpha, x, beta);
    case ActivationKind::kRelu:
      return max(x, zero);
    case ActivationKind::kLeakyRelu:
      return {FASTLSTM_CHOOSE(x.raw < zero.raw, (alpha * x).raw, x.raw)};
    case ActivationKind::kThresholdedRelu:
      return {FASTLSTM_CHOOSE(x.raw < alpha.raw, zero.raw, x.raw)};
    case ActivationKind::kTanh:
      return tanh(x);
    case ActivationKind::kScaledTanh:
      return alpha * tanh(beta * x);
    case ActivationKind::kSigmoid:
      return sigmoid(x);
    case ActivationKind::kHardSigmoid:
      return min(max(fma(alpha, x, beta), zero), one);
    case ActivationKind::kElu:
      return {
          FASTLSTM_CHOOSE(x.raw < zero.raw, (alpha * expm1_below_zero(min(x, zero))).raw, x.raw)};
    case ActivationKind::kSoftsign:
      return x / (one + absolute(x));
    case ActivationKind::kSoftplus:
      return max(x, zero) + log1p_to_one(exp(zero - absolute(x)));
  }
  return x;
}

/// The function's slope at x. At a corner it is zero where the value is that of a constant piece,
/// and that of the right side otherwise.
template <class T>
FASTLSTM_NOINLINE Vec<T> activation_slope(const Activation& function, Vec<T> x) {
  const Vec<T> zero = Vec<T>::broadcast(0), one = Vec<T>::broadcast(1);
  const Vec<T> alpha = Vec<T>::broadcast(T(function.alpha));
  const Vec<T> beta = Vec<T>::broadcast(T(function.beta));
  switch (function.kind) {
    case ActivationKind::kAffine:
      return alpha;
    case ActivationKind::kRelu:
      return {FASTLSTM_CHOOSE(x.raw > zero.raw, one.raw, zero.raw)};
    case ActivationKind::kLeakyRelu:
      return {FASTLSTM_CHOOSE(x.raw < zero.raw, alpha.raw, one.raw)};
    case ActivationKind::kThresholdedRelu:
      return {FASTLSTM_CHOOSE(x.raw < alpha.raw, zero.raw, one.raw)};
    case ActivationKind::kTanh: {
      const Vec<T> y = tanh(x);
      return one - y * y;
    }
    case ActivationKind::kScaledTanh: {
      const Vec<T> y = tanh(beta * x);
      return alpha * beta * (one - y * y);
    }
    case ActivationKind::kSigmoid: {
      const Vec<T> y = sigmoid(x);
      return y * (one - y);
    }
    case ActivationKind::kHardSigmoid: {
      const Vec<T> y = fma(alpha, x, beta);
      return {FASTLSTM_CHOOSE((y.raw > zero.raw) & (y.raw < one.raw), alpha.raw, zero.raw)};
    }
    case ActivationKind::kElu:
      return {FASTLSTM_CHOOSE(x.raw < zero.raw, (alpha * exp(min(x, zero))).raw, one.raw)};
    case ActivationKind::kSoftsign: {
      const Vec<T> y = one + absolute(x);
      return one / (y * y);
    }
    case ActivationKind::kSoftplus:
      return sigmoid(x);
  }
  return one;
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

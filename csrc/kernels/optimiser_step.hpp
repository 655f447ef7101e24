// Training's last part, after the gradients: their norm, and Adam. Sums and products as NumPy would
// do them one after another, without FMA, so every target has the same bits.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void sum_squares(const SumSquares<T>& s) noexcept {
  constexpr Index kSums = 32;  // side by side: one would wait for itself
  double sums[kSums] = {};
  Index k = 0;
  for (; k + kSums <= s.n; k += kSums) {
    for (Index j = 0; j < kSums; ++j) {
      const double x = double(s.x[k + j]);
      sums[j] += x * x;
    }
  }
  for (Index j = 0; k + j < s.n; ++j) sums[j] += double(s.x[k + j]) * double(s.x[k + j]);
  double sum = 0;
  for (const double part : sums) sum += part;
  *s.sum = sum;
}

template <class T>
void scale_values(const ScaleValues<T>& s) noexcept {
  const T* __restrict x = s.x;
  T* __restrict y = s.y;
  for (Index k = 0; k < s.n; ++k) y[k] = T(double(x[k]) * s.factor);
}

template <class T>
void adam_step(const AdamStep<T>& a) noexcept {
  const auto all = [](double value) { return Vec<T>::broadcast(T(value)); };
  const Vec<T> beta1 = all(a.beta1), rest1 = all(1 - a.beta1), beta2 = all(a.beta2),
               rest2 = all(1 - a.beta2), eps = all(a.eps), decay = all(a.decay),
               shrink = all(a.shrink), root = all(a.root), step = all(a.step);
  const bool decays = a.decay != 0;
  for_each_vector<T>(a.n, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
    const Vec<T> p = load(a.p + k);
    Vec<T> g = load(a.g + k);
    if (decays) g = g + decay * p;
    const Vec<T> m = beta1 * load(a.m + k) + rest1 * g;
    const Vec<T> v = beta2 * load(a.v + k) + rest2 * (g * g);
    store(m, a.m + k);
    store(v, a.v + k);
    store(p * shrink - step * (m / (sqrt(v) / root + eps)), a.p_new + k);
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// A frame of connectionist temporal classification (Graves et al. 2006), in logarithms.
//
// The forward step also says what part of each sum came from where: probabilities, and so the
// backward step is products and sums alone, in which no rounding error of long sequences is left.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void ctc_step(const CtcStep<T>& arguments) noexcept {
  const CtcStep<T> s = arguments;
  const Vec<T> one = Vec<T>::broadcast(1), nothing = Vec<T>::broadcast(T(kLogNothing));
  const Vec<T> log_p_blank = Vec<T>::broadcast(s.log_p_blank);
  Vec<T> largest = nothing;
  for (Index k = 0; k < s.width; k += Vec<T>::kLanes) {
    const Vec<T> blank = Vec<T>::load(s.blank + k), label = Vec<T>::load(s.label + k);
    const Vec<T> before = Vec<T>::load(s.label + k - 1);
    const Vec<T> most_of_two = max(blank, before);
    const Vec<T> blank_part = exp(blank - most_of_two), before_part = exp(before - most_of_two);
    const Vec<T> two = blank_part + before_part, of_two = one / two;
    (blank_part * of_two).store(s.blank_blank + k);
    (before_part * of_two).store(s.blank_label + k);
    const Vec<T> blank_next = most_of_two + log(two) + log_p_blank;
    blank_next.store(s.blank_next + k);

    const Vec<T> skip = before + Vec<T>::load(s.skip + k);
    const Vec<T> most = max(max(blank, label), skip);
    const Vec<T> from_label = exp(label - most), from_blank = exp(blank - most);
    const Vec<T> from_skip = exp(skip - most);
    const Vec<T> all = from_label + from_blank + from_skip, of_all = one / all;
    (from_label * of_all).store(s.label_label + k);
    (from_blank * of_all).store(s.label_blank + k);
    (from_skip * of_all).store(s.label_skip + k);
    const Vec<T> label_next = most + log(all) + Vec<T>::load(s.log_p + k);
    label_next.store(s.label_next + k);
    largest = max(label_next, max(blank_next, largest));
  }
  const T scale = largest_lane(largest);
  const Vec<T> shift = Vec<T>::broadcast(scale);
  for (Index k = 0; k < s.width; k += Vec<T>::kLanes) {
    (Vec<T>::load(s.blank_next + k) - shift).store(s.blank_next + k);
    (Vec<T>::load(s.label_next + k) - shift).store(s.label_next + k);
  }
  *s.scale = scale;
}

template <class T>
void ctc_step_backward(const CtcStepBackward<T>& arguments) noexcept {
  const CtcStepBackward<T> s = arguments;
  for (Index k = 0; k < s.width; k += Vec<T>::kLanes) {
    const auto at = [k](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(p + k); };
    const auto after = [k](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(p + k + 1); };
    const Vec<T> blank = at(s.p_blank_next), label = at(s.p_label_next);
    fma(blank, at(s.blank_blank), label * at(s.label_blank)).store(s.p_blank + k);
    fma(label, at(s.label_label),
        fma(after(s.p_blank_next), after(s.blank_label),
            after(s.p_label_next) * after(s.label_skip)))
        .store(s.p_label + k);
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// A row's softmax, but for the division.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void softmax_row(const SoftmaxRow<T>& arguments) noexcept {
  const SoftmaxRow<T> r = arguments;
  constexpr Index kLanes = Vec<T>::kLanes;
  const Index whole = r.n / kLanes * kLanes, left = r.n - whole;
  const Vec<T> nothing = Vec<T>::broadcast(-kInfinity<T>);
  T last[kLanes];  // what does not fill a vector, and nothing
  nothing.store(last);
  if (left > 0) memcpy(last, r.x + whole, size_t(left) * sizeof(T));
  Vec<T> most = nothing, other = Vec<T>::load(last);
  Index k = 0;
  for (; k + 2 * kLanes <= whole; k += 2 * kLanes) {
    most = max(Vec<T>::load(r.x + k), most);
    other = max(Vec<T>::load(r.x + k + kLanes), other);
  }
  if (k < whole) most = max(Vec<T>::load(r.x + k), most);
  const T largest = largest_lane(max(other, most));
  const Vec<T> shift = Vec<T>::broadcast(largest);
  // In groups, so that the rounding error of long rows stays small.
  constexpr Index kGroup = 32 * kLanes;
  double sum = 0;
  for (Index first = 0; first < whole; first += kGroup) {
    const Index end = first + kGroup < whole ? first + kGroup : whole;
    Vec<T> group = Vec<T>::broadcast(0);
    for (k = first; k < end; k += kLanes) {
      const Vec<T> y = exp(Vec<T>::load(r.x + k) - shift);
      y.store(r.y + k);
      group = group + y;
    }
    sum += double(sum_of_lanes(group));
  }
  if (left > 0) {
    const Vec<T> y = exp(Vec<T>::load(last) - shift);
    y.store(last);
    for (k = 0; k < left; ++k) r.y[whole + k] = last[k];
    sum += double(sum_of_lanes(y));
  }
  *r.most = largest;
  *r.sum = sum;
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

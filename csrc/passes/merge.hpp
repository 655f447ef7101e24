// What becomes of the outputs of two directions, which stand side by side in a row: [2 P].
#pragma once

#include "fastlstm/config.hpp"

namespace fastlstm {

/// merged: [P] out
template <class T>
void merge_row(Merge merge, const T* both, Index P, T* merged) {
  const T* other = both + P;
  switch (merge) {
    case Merge::kConcat:  // nothing to merge
      break;
    case Merge::kSum:
      for (Index k = 0; k < P; ++k) merged[k] = both[k] + other[k];
      break;
    case Merge::kMul:
      for (Index k = 0; k < P; ++k) merged[k] = both[k] * other[k];
      break;
    case Merge::kAve:
      for (Index k = 0; k < P; ++k) merged[k] = (both[k] + other[k]) / 2;
      break;
  }
}

/// d_merged: [P] in; d_both: [2 P] out
template <class T>
void merge_row_backward(Merge merge, const T* both, Index P, const T* d_merged, T* d_both) {
  const T* other = both + P;
  const T part = merge == Merge::kAve ? T(0.5) : T(1);
  for (Index k = 0; k < P; ++k) {
    d_both[k] = d_merged[k] * (merge == Merge::kMul ? other[k] : part);
    d_both[P + k] = d_merged[k] * (merge == Merge::kMul ? both[k] : part);
  }
}

}  // namespace fastlstm

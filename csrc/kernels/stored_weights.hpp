// How vectors of weights are loaded, for each way to store them (kernels/panel.hpp).
#pragma once

#include "kernels/panel.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Stored as what is computed with.
template <class T>
struct FullWeights {
  using Stored = T;

  static FASTLSTM_INLINE Vec<T> load(const Stored* p) { return Vec<T>::load(p); }
};

/// The stored weights of a panel.
template <class W, class T>
FASTLSTM_INLINE const typename W::Stored* stored(const Panel<T>& panel) {
  return static_cast<const typename W::Stored*>(panel.data);
}

/// Calls body(W()) with the way in which the panels of a call are stored.
template <class T, class Body>
FASTLSTM_INLINE void with_weights(const Panel<T>& panel, Body body) {
  switch (panel.storage) {
    case Storage::kFull:
      return body(FullWeights<T>());
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

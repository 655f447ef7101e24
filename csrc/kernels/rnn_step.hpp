// The simple RNN: one time step and its gradient, h = tanh(W x + R h' + b) or relu of it.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/step_tile.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// The two functions, and their slopes from their values.
struct RnnTanh {
  template <class T>
  static FASTLSTM_INLINE Vec<T> value(Vec<T> a) {
    return tanh(a);
  }
  template <class T>
  static FASTLSTM_INLINE Vec<T> slope(Vec<T> h) {
    return Vec<T>::broadcast(1) - h * h;
  }
};

struct RnnRelu {
  template <class T>
  static FASTLSTM_INLINE Vec<T> value(Vec<T> a) {
    return max(a, Vec<T>::broadcast(0));
  }
  template <class T>
  static FASTLSTM_INLINE Vec<T> slope(Vec<T> h) {
    const Vec<T> zero = Vec<T>::broadcast(0), one = Vec<T>::broadcast(1);
    return {h.raw > zero.raw ? one.raw : zero.raw};
  }
};

template <class Function, class T>
FASTLSTM_INLINE void rnn_step(const CellStep<T>& s) {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* from_x = s.gates + row * s.ld_gates;
    const T* from_h = s.from_h + row * H;
    T* h = s.h + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      store(Function::value(load(from_x + j) + load(s.bias + j) + load(from_h + j)), h + j);
    });
  }
}

/// A block is four vectors of units.
template <class Function, class T>
FASTLSTM_INLINE void rnn_step_tile(const CellStepTile<T>& s) {
  constexpr Index kLanes = Vec<T>::kLanes;
  step_tile<4>(s, [&](const TileSums<T, 4>& sums) FASTLSTM_INLINE_LAMBDA {
    sums.for_each_block([&](Index row, Index block, const T* x, T* from_h) FASTLSTM_INLINE_LAMBDA {
      for (Index k = 0; k < 4; ++k) {
        const Index unit = (4 * block + k) * kLanes;
        const Vec<T> sum = Vec<T>::load(x + k * kLanes) + Vec<T>::load(from_h + k * kLanes);
        const Vec<T> h = Function::value(sum);
        h.store(s.h + row * s.ld_h + unit);
        if (s.output != nullptr) store_units(h, s.output[row] + unit, s.H - unit);
      }
    });
  });
}

template <class Function, class T>
FASTLSTM_INLINE void rnn_step_backward(const CellStepBackward<T>& s) {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* h = s.h + row * s.ld_h;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_gates = s.d_gates + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      store(load(d_h + j) * Function::slope(load(h + j)), d_gates + j);
    });
  }
}

template <class T>
void rnn_tanh_step(const CellStep<T>& s) noexcept {
  rnn_step<RnnTanh>(s);
}
template <class T>
void rnn_relu_step(const CellStep<T>& s) noexcept {
  rnn_step<RnnRelu>(s);
}
template <class T>
void rnn_tanh_step_tile(const CellStepTile<T>& s) noexcept {
  rnn_step_tile<RnnTanh>(s);
}
template <class T>
void rnn_relu_step_tile(const CellStepTile<T>& s) noexcept {
  rnn_step_tile<RnnRelu>(s);
}
template <class T>
void rnn_tanh_step_backward(const CellStepBackward<T>& s) noexcept {
  rnn_step_backward<RnnTanh>(s);
}
template <class T>
void rnn_relu_step_backward(const CellStepBackward<T>& s) noexcept {
  rnn_step_backward<RnnRelu>(s);
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// The simple RNN: one time step and its gradient, h = tanh(W x + R h' + b) or relu of it.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/gate_functions.hpp"
#include "kernels/step_row.hpp"
#include "kernels/step_tile.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// The two functions, and their slopes from their values: h, unless zoneout changes it, for which
/// training saves the value.
struct RnnTanh {
  static constexpr bool kSavesSum = false;
  template <class T>
  FASTLSTM_INLINE Vec<T> value(Vec<T> a) const {
    return tanh(a);
  }
  template <class T>
  FASTLSTM_INLINE Vec<T> slope(Vec<T> h) const {
    return Vec<T>::broadcast(1) - h * h;
  }
};

struct RnnRelu {
  static constexpr bool kSavesSum = false;
  template <class T>
  FASTLSTM_INLINE Vec<T> value(Vec<T> a) const {
    return max(a, Vec<T>::broadcast(0));
  }
  template <class T>
  FASTLSTM_INLINE Vec<T> slope(Vec<T> h) const {
    const Vec<T> zero = Vec<T>::broadcast(0), one = Vec<T>::broadcast(1);
    return {FASTLSTM_CHOOSE(h.raw > zero.raw, one.raw, zero.raw)};
  }
};

/// Any function of a bounded sum; its slope comes from the sum, which training saves.
template <class T>
struct RnnAny {
  static constexpr bool kSavesSum = true;

  FASTLSTM_INLINE Vec<T> value(Vec<T> a) const { return functions.candidate(a); }
  FASTLSTM_INLINE Vec<T> slope(Vec<T> a) const { return functions.candidate_slope(a); }

  AnyFunctions<T> functions;
};

/// Calls body with the function of these options; null: the usual one.
template <class Usual, class T, class Body>
FASTLSTM_INLINE void with_rnn_function(const StepOptions<T>* options, Body body) {
  if (options == nullptr) {
    body(Usual{});
  } else {
    body(RnnAny<T>{{*options}});
  }
}

/// A block is four vectors of units.
template <class W, class Function, class T>
FASTLSTM_INLINE void rnn_step_tile(const CellStepTile<T>& s, const Function& function) {
  constexpr Index kLanes = Vec<T>::kLanes;
  step_tile<4, W>(s, [&](const TileSums<T, 4>& sums) FASTLSTM_INLINE_LAMBDA {
    sums.for_each_unit_block([&](Index row, Index block, const T* x,
                                 T* from_h) FASTLSTM_INLINE_LAMBDA {
      for (Index k = 0; k < 4; ++k) {
        const Index unit = (4 * block + k) * kLanes;
        const Vec<T> sum = Vec<T>::load(x + k * kLanes) + Vec<T>::load(from_h + k * kLanes);
        const Vec<T> h = function.value(sum);
        h.store(s.h + row * s.ld_h + unit);
        if (s.output != nullptr) store_left(h, s.output[row] + unit, s.H - unit);
        if (s.gates != nullptr) {
          store_left(Function::kSavesSum ? sum : h, s.gates + row * s.ld_gates + unit, s.H - unit);
        }
      }
    });
  });
}

/// A plain RNN in a step of one row.
template <class Function, class T>
struct RnnRow {
  static constexpr int kVectors = 4;
  struct Kept {
    Vec<T> sum[4];
  };

  static FASTLSTM_INLINE Kept start(const CellStepTile<T>&, Index, const Vec<T>* x,
                                    const Vec<T>* h) {
    return {{x[0] + h[0], x[1] + h[1], x[2] + h[2], x[3] + h[3]}};
  }
  static FASTLSTM_INLINE void finish(const CellStepTile<T>& s, Index block, const Kept& kept) {
#pragma GCC unroll 4
    for (Index k = 0; k < 4; ++k) {
      write_row_h(s, Function().value(kept.sum[k]), (4 * block + k) * Vec<T>::kLanes);
    }
  }
};

template <class Function, class T>
FASTLSTM_INLINE void rnn_step_backward(const CellStepBackward<T>& s, const Function& function) {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* saved = s.gates != nullptr ? s.gates + row * H : s.h + row * s.ld_h;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_gates = s.d_gates + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      store(load(d_h + j) * function.slope(load(saved + j)), d_gates + j);
    });
  }
}

template <class T, class W = FullWeights<T>>
void rnn_tanh_step_tile(const CellStepTile<T>& s) noexcept {
  if (step_plain_row<RnnRow<RnnTanh, T>, W>(s)) return;
  with_rnn_function<RnnTanh>(s.options, [&](const auto& function) FASTLSTM_INLINE_LAMBDA {
    rnn_step_tile<W>(s, function);
  });
}
template <class T, class W = FullWeights<T>>
void rnn_relu_step_tile(const CellStepTile<T>& s) noexcept {
  if (step_plain_row<RnnRow<RnnRelu, T>, W>(s)) return;
  with_rnn_function<RnnRelu>(s.options, [&](const auto& function) FASTLSTM_INLINE_LAMBDA {
    rnn_step_tile<W>(s, function);
  });
}
template <class T>
void rnn_tanh_step_backward(const CellStepBackward<T>& s) noexcept {
  with_rnn_function<RnnTanh>(s.options, [&](const auto& function) FASTLSTM_INLINE_LAMBDA {
    rnn_step_backward(s, function);
  });
}
template <class T>
void rnn_relu_step_backward(const CellStepBackward<T>& s) noexcept {
  with_rnn_function<RnnRelu>(s.options, [&](const auto& function) FASTLSTM_INLINE_LAMBDA {
    rnn_step_backward(s, function);
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

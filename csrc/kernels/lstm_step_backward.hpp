// The gradient of one LSTM time step, all gates in one pass.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/lstm_options.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void lstm_step_backward(const CellStepBackward<T>& s) noexcept {
  if (s.options != nullptr) {
    return with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
      lstm_options_backward(s, functions);
    });
  }
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* gates = s.gates + row * 4 * H;
    const T* c = s.c + row * H;
    const T* c_prev = s.c_prev + row * H;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_c = s.d_past_R + row * H;
    T* d_gates = s.d_gates + row * 4 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> i = load(gates + j);
      const Vec<T> f = load(gates + H + j);
      const Vec<T> g = load(gates + 2 * H + j);
      const Vec<T> o = load(gates + 3 * H + j);
      // h = o tanh(c): the gradient reaches c through tanh, and from the next step directly.
      const Vec<T> tanh_c = tanh(load(c + j));
      if (s.hidden != nullptr) store(o * tanh_c, s.hidden + row * H + j);
      const Vec<T> dh = load(d_h + j);
      const Vec<T> dc = fma(dh * o, one - tanh_c * tanh_c, load(d_c + j));
      // c = f c' + i g, and each gate's activation: s' = s (1 - s), tanh' = 1 - tanh^2.
      store(dc * g * (i * (one - i)), d_gates + j);
      store(dc * load(c_prev + j) * (f * (one - f)), d_gates + H + j);
      store(dc * i * (one - g * g), d_gates + 2 * H + j);
      store(dh * tanh_c * (o * (one - o)), d_gates + 3 * H + j);
      store(dc * f, d_c + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

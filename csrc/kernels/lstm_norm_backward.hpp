// The gradient of one LSTM time step with layer normalisation.
//
// Training saves R h' alone, and W x is computed again: all else follows from these two.
#pragma once

#include "kernels/layer_norm.hpp"
#include "kernels/lstm_step.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Carries a gradient back through a normalisation: two means over the row, which vanish.
template <class T>
struct NormGradient {
  Vec<T> sum{}, along{};  // of the gradient, and of it times the normalised values

  FASTLSTM_INLINE void add(Vec<T> d, Vec<T> normalised) {
    sum = sum + d;
    along = fma(d, normalised, along);
  }
  /// Makes means over n values of the sums.
  FASTLSTM_INLINE void close(T n) {
    sum = Vec<T>::broadcast(sum_of_lanes(sum) / n);
    along = Vec<T>::broadcast(sum_of_lanes(along) / n);
  }
  /// The gradient of a value.
  FASTLSTM_INLINE Vec<T> of(Vec<T> d, Vec<T> normalised, const Moments<T>& m) const {
    return Vec<T>::broadcast(m.scale) * (d - sum - normalised * along);
  }
};

template <class T>
void lstm_norm_backward(const CellStepBackward<T>& s) noexcept {
  const LstmNorm<T>& norm = s.norm->parameters;
  const Index H = s.H;
  const GateStrides strides{H, Vec<T>::kLanes};
  const bool zones_c = s.options != nullptr && s.options->keep_c != nullptr;
  const Vec<T> one = Vec<T>::broadcast(1);
  T *const room_c = s.norm->room + 4 * H, *const room_d_c = s.norm->room + 5 * H;
  T *const d_bias = s.norm->sums, *const d_gain_x = d_bias + 4 * H;
  T *const d_gain_h = d_bias + 8 * H, *const d_gain_c = d_bias + 12 * H;
  T* const d_bias_c = d_bias + 13 * H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* saved = s.gates + row * 4 * H;
    const T* c_prev = s.c_prev + row * H;
    const T* d_h = s.d_h + row * s.ld_d_h;
    const T* keep_c = zones_c ? s.options->keep_c + row * s.options->ld_keep_c : nullptr;
    T* gates = s.norm->room;  // i f g o, then the gradients of their sums
    T* d_x = s.d_gates + row * 4 * H;
    T* d_from_h = s.d_from_h + row * 4 * H;
    T* d_c = s.d_past_R + row * H;
    const Moments<T> of_x = gate_moments<T>(d_x, H, strides);
    const Moments<T> of_h = gate_moments(saved, H, strides);

    // The forward pass again, as far as c. The normalised W x and R h' stay in d_x and d_from_h.
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
        const Index at = gate * H + j;
        const Vec<T> x = of_x.normalised(load(d_x + at)), h = of_h.normalised(load(saved + at));
        store(x, d_x + at);
        store(h, d_from_h + at);
        return fma(h, load(norm.gain_h + at),
                   fma(x, load(norm.gain_x + at), load(s.norm->bias + at)));
      };
      const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
      store(u.i, gates + j);
      store(u.f, gates + H + j);
      store(u.g, gates + 2 * H + j);
      store(u.o, gates + 3 * H + j);
      store(lstm_cell(u, load(c_prev + j)), room_c + j);
    });

    // h = o tanh(gain_c normalised(c) + bias_c)
    const Moments<T> of_c =
        moments<1, T>(H, [&](int, Index j) FASTLSTM_INLINE_LAMBDA { return room_c + j; });
    NormGradient<T> through_c;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> c = of_c.normalised(load(room_c + j));
      const Vec<T> gain = load(norm.gain_c + j), o = load(gates + 3 * H + j);
      const Vec<T> squashed = tanh(fma(c, gain, load(norm.bias_c + j)));
      if (s.hidden != nullptr) store(o * squashed, s.hidden + row * H + j);
      const Vec<T> dh = load(d_h + j);
      const Vec<T> d_seen = dh * o * (one - squashed * squashed);
      store(load(d_bias_c + j) + d_seen, d_bias_c + j);
      store(fma(d_seen, c, load(d_gain_c + j)), d_gain_c + j);
      through_c.add(d_seen * gain, c);
      store(c, room_c + j);
      store(d_seen * gain, room_d_c + j);
      store(dh * squashed * (o * (one - o)), gates + 3 * H + j);
    });
    through_c.close(T(H));

    // c = f c' + i g, and the gates' sums
    NormGradient<T> through_x, through_h;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> i = load(gates + j), f = load(gates + H + j), g = load(gates + 2 * H + j);
      Vec<T> dc = load(d_c + j), d_c_prev = Vec<T>::broadcast(0);
      if (keep_c != nullptr) {  // c = keep c' + (1 - keep) (f c' + i g)
        const Vec<T> keep = load(keep_c + j);
        d_c_prev = keep * dc;
        dc = (one - keep) * dc;
      }
      dc = dc + through_c.of(load(room_d_c + j), load(room_c + j), of_c);
      store(fma(dc, f, d_c_prev), d_c + j);
      const Vec<T> d_sums[] = {dc * g * (i * (one - i)), dc * load(c_prev + j) * (f * (one - f)),
                               dc * i * (one - g * g), load(gates + 3 * H + j)};
#pragma GCC unroll 4
      for (Index gate = 0; gate < 4; ++gate) {
        const Index at = gate * H + j;
        const Vec<T> d = d_sums[gate], x = load(d_x + at), h = load(d_from_h + at);
        store(load(d_bias + at) + d, d_bias + at);
        store(fma(d, x, load(d_gain_x + at)), d_gain_x + at);
        store(fma(d, h, load(d_gain_h + at)), d_gain_h + at);
        through_x.add(d * load(norm.gain_x + at), x);
        through_h.add(d * load(norm.gain_h + at), h);
        store(d, gates + at);
      }
    });
    through_x.close(T(4 * H));
    through_h.close(T(4 * H));
    for_each_vector<T>(4 * H, [&](Index at, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> d = load(gates + at);
      store(through_x.of(d * load(norm.gain_x + at), load(d_x + at), of_x), d_x + at);
      store(through_h.of(d * load(norm.gain_h + at), load(d_from_h + at), of_h), d_from_h + at);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

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

/// The gradient of a group of rows, in passes over all of them: where a pass ends in sums over each
/// row, those of one row overlap with the work on the next.
template <class T>
class LstmNormGradient {
 public:
  FASTLSTM_INLINE explicit LstmNormGradient(const CellStepBackward<T>& step)
      : s(step), norm(*step.norm), H(step.H) {}

  FASTLSTM_INLINE void compute(Index first, Index n) {
    for (Index r = 0; r < n; ++r) {
      of_x[r] = gate_moments(from_x(first + r), H, norm.strides);
      of_h[r] = gate_moments(s.gates + (first + r) * 4 * H, H, GateStrides{H, Vec<T>::kLanes});
    }
    for (Index r = 0; r < n; ++r) gates_again(first + r, r);
    for (Index r = 0; r < n; ++r) {
      const T* c = room(r) + 4 * H;
      of_c[r] = moments<1, T>(H, [=](int, Index j) FASTLSTM_INLINE_LAMBDA { return c + j; });
    }
    for (Index r = 0; r < n; ++r) hidden_state(first + r, r);
    for (Index r = 0; r < n; ++r) cell_state(first + r, r);
    for (Index r = 0; r < n; ++r) sums(first + r, r);
  }

 private:
  FASTLSTM_INLINE const T* from_x(Index row) const { return norm.from_x + row * norm.ld_x; }
  /// [6H] for one row: i f g o, later the gradients of their sums; c before zoneout, later
  /// normalised; its gradient.
  FASTLSTM_INLINE T* room(Index r) const { return norm.room + r * 6 * H; }

  /// The forward pass again, as far as c. The normalised W x and R h' stay in d_gates and d_from_h.
  FASTLSTM_INLINE void gates_again(Index row, Index r) {
    const T *x = from_x(row), *saved = s.gates + row * 4 * H, *c_prev = s.memory_prev + row * H;
    T *normed_x = s.d_gates + row * 4 * H, *normed_h = s.d_from_h + row * 4 * H, *gates = room(r);
    const LstmNormBackward<T> n = norm;
    const Moments<T> moments_x = of_x[r], moments_h = of_h[r];
    const Index units = H;
    for_each_vector<T>(units, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
        const Index at = gate * units + j;
        const Vec<T> u = moments_x.normalised(load(x + gate_at<T>(n.strides, gate, j)));
        const Vec<T> v = moments_h.normalised(load(saved + at));
        store(u, normed_x + at);
        store(v, normed_h + at);
        return fma(v, load(n.parameters.gain_h + at),
                   fma(u, load(n.parameters.gain_x + at), load(n.bias + at)));
      };
      const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
      store(u.i, gates + j);
      store(u.f, gates + units + j);
      store(u.g, gates + 2 * units + j);
      store(u.o, gates + 3 * units + j);
      store(lstm_cell(u, load(c_prev + j)), gates + 4 * units + j);
    });
  }

  /// h = o tanh(gain_c normalised(c) + bias_c)
  FASTLSTM_INLINE void hidden_state(Index row, Index r) {
    const T* d_h = s.d_h + row * s.ld_d_h;
    const T *gain_c = norm.parameters.gain_c, *bias_c = norm.parameters.bias_c;
    T *o_row = room(r) + 3 * H, *c_row = room(r) + 4 * H, *d_c_row = room(r) + 5 * H;
    T *d_gain = norm.sums.gain_c, *d_bias = norm.sums.bias_c;
    T* hidden = s.hidden != nullptr ? s.hidden + row * H : nullptr;
    const Moments<T> moments_c = of_c[r];
    NormGradient<T> through;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> one = Vec<T>::broadcast(1);
      const Vec<T> c = moments_c.normalised(load(c_row + j));
      const Vec<T> gain = load(gain_c + j), o = load(o_row + j);
      const Vec<T> squashed = tanh(fma(c, gain, load(bias_c + j)));
      if (hidden != nullptr) store(o * squashed, hidden + j);
      const Vec<T> dh = load(d_h + j);
      const Vec<T> d_seen = dh * o * (one - squashed * squashed);
      store(load(d_bias + j) + d_seen, d_bias + j);
      store(fma(d_seen, c, load(d_gain + j)), d_gain + j);
      through.add(d_seen * gain, c);
      store(c, c_row + j);
      store(d_seen * gain, d_c_row + j);
      store(dh * squashed * (o * (one - o)), o_row + j);
    });
    through.close(T(H));
    through_c[r] = through;
  }

  /// c = f c' + i g
  FASTLSTM_INLINE void cell_state(Index row, Index r) {
    const T *normed_x = s.d_gates + row * 4 * H, *normed_h = s.d_from_h + row * 4 * H;
    const T *c_prev = s.memory_prev + row * H, *keep_c = nullptr;
    if (s.options != nullptr && s.options->keep_c != nullptr) {
      keep_c = s.options->keep_c + row * s.options->ld_keep_c;
    }
    T *gates = room(r), *d_c = s.d_memory + row * H;
    T *d_bias = norm.sums.bias, *d_gain_x = norm.sums.gain_x, *d_gain_h = norm.sums.gain_h;
    const T *gain_x = norm.parameters.gain_x, *gain_h = norm.parameters.gain_h;
    const NormGradient<T> from_hidden = through_c[r];
    const Moments<T> moments_c = of_c[r];
    NormGradient<T> of_sums_x, of_sums_h;
    const Index units = H;
    for_each_vector<T>(units, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> one = Vec<T>::broadcast(1);
      const auto part = [&](Index k) FASTLSTM_INLINE_LAMBDA { return load(gates + k * units + j); };
      const Vec<T> i = part(0), f = part(1), g = part(2);
      Vec<T> dc = load(d_c + j), d_c_prev = Vec<T>::broadcast(0);
      if (keep_c != nullptr) {  // c = keep c' + (1 - keep) (f c' + i g)
        const Vec<T> keep = load(keep_c + j);
        d_c_prev = keep * dc;
        dc = (one - keep) * dc;
      }
      dc = dc + from_hidden.of(part(5), part(4), moments_c);
      store(fma(dc, f, d_c_prev), d_c + j);
      const Vec<T> d_sums[] = {dc * g * (i * (one - i)), dc * load(c_prev + j) * (f * (one - f)),
                               dc * i * (one - g * g), part(3)};
#pragma GCC unroll 4
      for (Index gate = 0; gate < 4; ++gate) {
        const Index at = gate * units + j;
        const Vec<T> d = d_sums[gate], x = load(normed_x + at), h = load(normed_h + at);
        const Vec<T> bias = load(d_bias + at) + d;
        const Vec<T> of_x_gain = fma(d, x, load(d_gain_x + at));
        const Vec<T> of_h_gain = fma(d, h, load(d_gain_h + at));
        of_sums_x.add(d * load(gain_x + at), x);
        of_sums_h.add(d * load(gain_h + at), h);
        store(bias, d_bias + at);
        store(of_x_gain, d_gain_x + at);
        store(of_h_gain, d_gain_h + at);
        store(d, gates + at);
      }
    });
    of_sums_x.close(T(4 * H));
    of_sums_h.close(T(4 * H));
    through_x[r] = of_sums_x;
    through_h[r] = of_sums_h;
  }

  /// gain_x normalised(W x) + gain_h normalised(R h') + bias
  FASTLSTM_INLINE void sums(Index row, Index r) {
    T *d_x = s.d_gates + row * 4 * H, *d_h = s.d_from_h + row * 4 * H;
    const T *gain_x = norm.parameters.gain_x, *gain_h = norm.parameters.gain_h;
    const T* d_sums = room(r);
    const NormGradient<T> back_x = through_x[r], back_h = through_h[r];
    const Moments<T> moments_x = of_x[r], moments_h = of_h[r];
    for_each_vector<T>(4 * H, [&](Index at, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> d = load(d_sums + at);
      store(back_x.of(d * load(gain_x + at), load(d_x + at), moments_x), d_x + at);
      store(back_h.of(d * load(gain_h + at), load(d_h + at), moments_h), d_h + at);
    });
  }

  const CellStepBackward<T> s;
  const LstmNormBackward<T> norm;
  const Index H;
  Moments<T> of_x[kNormRows], of_h[kNormRows], of_c[kNormRows];
  NormGradient<T> through_x[kNormRows], through_h[kNormRows], through_c[kNormRows];
};

template <class T>
void lstm_norm_backward(const CellStepBackward<T>& s) noexcept {
  LstmNormGradient<T> gradient(s);
  for_each_norm_rows(
      s.rows, [&](Index first, Index n) FASTLSTM_INLINE_LAMBDA { gradient.compute(first, n); });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// The LSTM with layer normalisation: a step in two halves, since it needs whole rows: of R h'
// before the gates, and of c before h.
#pragma once

#include "kernels/layer_norm.hpp"
#include "kernels/lstm_step.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void lstm_norm_gates(const LstmNormStep<T>& s) noexcept {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    const T* from_x = s.from_x + row * s.ld_x;
    const T* from_h = s.from_h + row * s.ld_from_h;
    T* gates = s.gates + row * s.ld_gates;
    const Moments<T> m = gate_moments(from_h, H, s.strides);
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const auto sum = [&](int gate) FASTLSTM_INLINE_LAMBDA {
        const Index at = gate_at<T>(s.strides, gate, j);
        const Vec<T> x = load(from_x + at), h = load(from_h + at);
        if (s.gates != nullptr) store(h, gates + gate * H + j);
        return fma(m.normalised(h), load(s.norm->gain_h + gate * H + j), x);
      };
      const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
      store(lstm_cell(u, load(s.c + row * s.ld_c + j)), s.new_c + row * s.ld_c + j);
      store(u.o, s.h + row * s.ld_h + j);
    });
  }
}

template <class T>
void lstm_norm_hidden(const LstmNormStep<T>& s) noexcept {
  for (Index row = 0; row < s.rows; ++row) {
    const T* new_c = s.new_c + row * s.ld_c;
    T* c = s.c + row * s.ld_c;
    T* h = s.h + row * s.ld_h;
    const Moments<T> m =
        moments<1, T>(s.H, [&](int, Index j) FASTLSTM_INLINE_LAMBDA { return new_c + j; });
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> computed = load(new_c + j);
      const Vec<T> seen =
          fma(m.normalised(computed), load(s.norm->gain_c + j), load(s.norm->bias_c + j));
      const Vec<T> hidden = lstm_hidden_state(load(h + j), seen);
      store(hidden, h + j);
      if (s.output != nullptr) store(hidden, s.output[row] + j);
      Vec<T> kept = computed;
      if (s.keep_c != nullptr) {
        const Vec<T> keep = load(s.keep_c + row * s.ld_keep_c + j);
        kept = fma(keep, load(c + j), (Vec<T>::broadcast(1) - keep) * computed);
        store(kept, c + j);
      }
      if (s.saved_c != nullptr) store(kept, s.saved_c + row * s.ld_saved_c + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

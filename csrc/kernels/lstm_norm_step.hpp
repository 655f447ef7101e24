// The LSTM with layer normalisation: a step in two halves, since it needs whole rows: of R h'
// before the gates, and of c before h.
#pragma once

#include "kernels/layer_norm.hpp"
#include "kernels/lstm_step.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class T>
void lstm_norm_gates(const LstmNormStep<T>& arguments) noexcept {
  const LstmNormStep<T> s = arguments;
  const Index H = s.H;
  const T* gain_h = s.norm->gain_h;
  const auto moments_of = [&](Index row) FASTLSTM_INLINE_LAMBDA {
    return gate_moments(s.from_h + row * s.ld_from_h, H, s.strides);
  };
  with_moments(s.rows, moments_of, [&](Index row, Moments<T> m) FASTLSTM_INLINE_LAMBDA {
    const T* from_x = s.from_x + row * s.ld_x;
    const T* from_h = s.from_h + row * s.ld_from_h;
    const T* c_prev = s.c + row * s.ld_c;
    T *c = s.new_c + row * s.ld_c, *o = s.h + row * s.ld_h;
    T* gates = s.gates != nullptr ? s.gates + row * s.ld_gates : nullptr;
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const auto sum = [&](int gate) FASTLSTM_INLINE_LAMBDA {
        const Index at = gate_at<T>(s.strides, gate, j);
        const Vec<T> x = load(from_x + at), h = load(from_h + at);
        if (gates != nullptr) store(h, gates + gate * H + j);
        return fma(m.normalised(h), load(gain_h + gate * H + j), x);
      };
      const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
      store(lstm_cell(u, load(c_prev + j)), c + j);
      store(u.o, o + j);
    });
  });
}

template <class T>
void lstm_norm_hidden(const LstmNormStep<T>& arguments) noexcept {
  const LstmNormStep<T> s = arguments;
  const LstmNorm<T> norm = *s.norm;
  const auto moments_of = [&](Index row) FASTLSTM_INLINE_LAMBDA {
    const T* c = s.new_c + row * s.ld_c;
    return moments<1, T>(s.H, [=](int, Index j) FASTLSTM_INLINE_LAMBDA { return c + j; });
  };
  with_moments(s.rows, moments_of, [&](Index row, Moments<T> m) FASTLSTM_INLINE_LAMBDA {
    const T* new_c = s.new_c + row * s.ld_c;
    T* c = s.c + row * s.ld_c;
    T* h = s.h + row * s.ld_h;
    T* output = s.output != nullptr ? s.output[row] : nullptr;
    T* saved_c = s.saved_c != nullptr ? s.saved_c + row * s.ld_saved_c : nullptr;
    const T* keep_c = s.keep_c != nullptr ? s.keep_c + row * s.ld_keep_c : nullptr;
    for_each_vector<T>(s.end - s.first, [&](Index k, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Index j = s.first + k;
      const Vec<T> computed = load(new_c + j);
      const Vec<T> seen = fma(m.normalised(computed), load(norm.gain_c + j), load(norm.bias_c + j));
      const Vec<T> hidden = lstm_hidden_state(load(h + j), seen);
      store(hidden, h + j);
      if (output != nullptr) store(hidden, output + j);
      Vec<T> kept = computed;
      if (keep_c != nullptr) {
        const Vec<T> keep = load(keep_c + j);
        kept = fma(keep, load(c + j), (Vec<T>::broadcast(1) - keep) * computed);
        store(kept, c + j);
      }
      if (saved_c != nullptr) store(kept, saved_c + j);
    });
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

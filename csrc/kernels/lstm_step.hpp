// The LSTM: one time step, all gates in one pass.
#pragma once

#include "kernels/arguments.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Values of one vector of hidden units.
template <class T>
struct LstmUnits {
  Vec<T> i, f, g, o;  // input gate, forget gate, candidate, output gate
  Vec<T> c, h;        // cell state, hidden state
};

/// The LSTM equations. i, f, g, o: pre-activations; c_prev: the cell state of the step before.
template <class T>
FASTLSTM_INLINE LstmUnits<T> lstm_units(Vec<T> i, Vec<T> f, Vec<T> g, Vec<T> o, Vec<T> c_prev) {
  LstmUnits<T> u;
  u.i = sigmoid(i);
  u.f = sigmoid(f);
  u.g = tanh(g);
  u.o = sigmoid(o);
  u.c = fma(u.f, c_prev, u.i * u.g);
  u.h = u.o * tanh(u.c);
  return u;
}

template <class T>
void lstm_step(const LstmStep<T>& s) noexcept {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    T* gates = s.gates + row * 4 * H;
    T* c = s.c + row * H;
    T* h = s.h + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const auto gate = [&](Index k) FASTLSTM_INLINE_LAMBDA {
        return load(gates + k * H + j) + load(s.bias + k * H + j);
      };
      const LstmUnits<T> u = lstm_units<T>(gate(0), gate(1), gate(2), gate(3), load(c + j));
      if (s.save_gates) {
        store(u.i, gates + j);
        store(u.f, gates + H + j);
        store(u.g, gates + 2 * H + j);
        store(u.o, gates + 3 * H + j);
      }
      store(u.c, c + j);
      store(u.h, h + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

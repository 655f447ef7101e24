// The LSTM: one time step, all gates in one pass.
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/lstm_options.hpp"
#include "simd/math.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// The gates of one vector of hidden units.
template <class T>
struct LstmGates {
  Vec<T> i, f, g, o;  // input gate, forget gate, candidate, output gate
};

/// i, f, g, o: pre-activations.
template <class T>
FASTLSTM_INLINE LstmGates<T> lstm_gates(Vec<T> i, Vec<T> f, Vec<T> g, Vec<T> o) {
  return {sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)};
}

/// The cell state, from that of the step before.
template <class T>
FASTLSTM_INLINE Vec<T> lstm_cell(const LstmGates<T>& gates, Vec<T> c_prev) {
  return fma(gates.f, c_prev, gates.i * gates.g);
}

/// The hidden state.
template <class T>
FASTLSTM_INLINE Vec<T> lstm_hidden_state(Vec<T> o, Vec<T> c) {
  return o * tanh(c);
}

template <class T>
void lstm_step(const CellStep<T>& s) noexcept {
  if (s.options != nullptr) {
    return with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
      lstm_options_step(s, functions);
    });
  }
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    T* gates = s.gates + row * s.ld_gates;
    const T* from_h = s.from_h + row * 4 * H;
    T* c = s.c + row * H;
    T* h = s.h + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const auto gate = [&](Index k) FASTLSTM_INLINE_LAMBDA {
        return load(gates + k * H + j) + load(s.bias + k * H + j) + load(from_h + k * H + j);
      };
      const LstmGates<T> u = lstm_gates<T>(gate(0), gate(1), gate(2), gate(3));
      const Vec<T> new_c = lstm_cell(u, load(c + j));
      if (s.save) {
        store(u.i, gates + j);
        store(u.f, gates + H + j);
        store(u.g, gates + 2 * H + j);
        store(u.o, gates + 3 * H + j);
      }
      store(new_c, c + j);
      store(lstm_hidden_state(u.o, new_c), h + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

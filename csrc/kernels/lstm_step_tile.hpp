// One LSTM time step on tiles.
#pragma once

#include "kernels/lstm_step.hpp"
#include "kernels/step_tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Gates, cell state and hidden state from both parts of the pre-activations, in two passes: the
/// whole way from gates to h is longer than a CPU looks ahead, and one unit would wait for another.
template <class T>
void lstm_finish(const CellStepTile<T>& s, const TileSums<T, 4>& sums) {
  constexpr Index kLanes = Vec<T>::kLanes;
  sums.for_each_block([&](Index row, Index block, const T* x, T* h) FASTLSTM_INLINE_LAMBDA {
    const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
      return Vec<T>::load(x + gate * kLanes) + Vec<T>::load(h + gate * kLanes);
    };
    const Index unit = block * kLanes;
    T* c = s.c + row * s.ld_c + unit;
    if (s.gates != nullptr) {
      const Index next = unit + sums.to_next * kLanes;
      fetch_to_save(s.gates + row * s.ld_gates + next, 4, s.H);
      fetch_to_save(s.saved_c + row * s.ld_saved_c + next, 1, s.H);
    }
    const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
    const Vec<T> new_c = lstm_cell<T>(u, Vec<T>::load(c));
    new_c.store(c);
    u.o.store(h);
    if (s.gates != nullptr) {
      const Index n = s.H - unit;
      T* gates = s.gates + row * s.ld_gates + unit;
      store_left(u.i, gates, n);
      store_left(u.f, gates + s.H, n);
      store_left(u.g, gates + 2 * s.H, n);
      store_left(u.o, gates + 3 * s.H, n);
      store_left(new_c, s.saved_c + row * s.ld_saved_c + unit, n);
    }
  });
  sums.for_each_block([&](Index row, Index block, const T*, T* o) FASTLSTM_INLINE_LAMBDA {
    const Index unit = block * kLanes;
    const Vec<T> h = lstm_hidden_state<T>(Vec<T>::load(o), Vec<T>::load(s.c + row * s.ld_c + unit));
    h.store(s.h + row * s.ld_h + unit);
    if (s.output != nullptr) store_left(h, s.output[row] + unit, s.H - unit);
  });
}

template <class T>
void lstm_step_tile(const CellStepTile<T>& s) noexcept {
  step_tile<4>(s, [&](const TileSums<T, 4>& sums) FASTLSTM_INLINE_LAMBDA {
    if (s.options == nullptr) return lstm_finish(s, sums);
    with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
      lstm_options_finish(s, sums, functions);
    });
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

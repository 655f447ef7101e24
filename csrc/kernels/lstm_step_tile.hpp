// One LSTM time step on tiles.
#pragma once

#include "kernels/lstm_step.hpp"
#include "kernels/step_row.hpp"
#include "kernels/step_tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Gates, cell state and hidden state from both parts of the pre-activations, in two passes: the
/// whole way from gates to h is longer than a CPU looks ahead, and one unit would wait for another.
template <class T, class Variant>
FASTLSTM_INLINE void lstm_finish(const CellStepTile<T>& s, const TileSums<T, 4>& sums,
                                 const Variant& variant) {
  constexpr Index kLanes = Vec<T>::kLanes;
  const auto load = [](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(p); };
  T* const all_c = s.memory[0];
  sums.for_each_unit_block([&](Index row, Index block, const T* x, T* h) FASTLSTM_INLINE_LAMBDA {
    const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
      return load(x + gate * kLanes) + load(h + gate * kLanes);
    };
    const Index unit = block * kLanes;
    T* c = all_c + row * s.ld_memory + unit;
    if (s.gates != nullptr) {
      const Index next = unit + sums.to_next * kLanes;
      fetch_to_save(s.gates + row * s.ld_gates + next, 4, s.H);
      fetch_to_save(s.saved_memory + row * s.ld_saved_memory + next, 1, s.H);
    }
    const LstmUnits<T> u =
        lstm_units<T>(variant, {sum(0), sum(1), sum(2), sum(3)}, load(c), row, unit, load);
    u.kept.store(c);
    u.saved.o.store(h);
    if (Variant::kHasOptions) u.c.store(h + kLanes);
    if (s.gates != nullptr) {
      const Index n = s.H - unit;
      T* gates = s.gates + row * s.ld_gates + unit;
      store_left(u.saved.i, gates, n);
      store_left(u.saved.f, gates + s.H, n);
      store_left(u.saved.g, gates + 2 * s.H, n);
      store_left(u.saved.o, gates + 3 * s.H, n);
      store_left(u.kept, s.saved_memory + row * s.ld_saved_memory + unit, n);
    }
  });
  sums.for_each_unit_block([&](Index row, Index block, const T*, T* o) FASTLSTM_INLINE_LAMBDA {
    const Index unit = block * kLanes;
    const T* c = Variant::kHasOptions ? o + kLanes : all_c + row * s.ld_memory + unit;
    const Vec<T> h = lstm_hidden(variant, load(o), load(c));
    h.store(s.h + row * s.ld_h + unit);
    if (s.output != nullptr) store_left(h, s.output[row] + unit, s.H - unit);
  });
}

template <class T, class Functions>
FASTLSTM_NOINLINE void lstm_options_finish(const CellStepTile<T>& s, const TileSums<T, 4>& sums,
                                           const Functions& functions) {
  lstm_finish(s, sums, lstm_with_options(functions, s.options));
}

/// The plain LSTM in a step of one row.
template <class T>
struct LstmRow {
  static constexpr int kVectors = 4;
  struct Kept {
    Vec<T> o, c;
  };

  static FASTLSTM_INLINE Kept start(const CellStepTile<T>& s, Index block, const Vec<T>* x,
                                    const Vec<T>* h) {
    T* const c_at = s.memory[0] + block * Vec<T>::kLanes;
    const LstmGates<T> gates = lstm_gates(x[0] + h[0], x[1] + h[1], x[2] + h[2], x[3] + h[3]);
    const Vec<T> c = lstm_cell(gates, Vec<T>::load(c_at));
    c.store(c_at);
    return {gates.o, c};
  }
  static FASTLSTM_INLINE void finish(const CellStepTile<T>& s, Index block, const Kept& kept) {
    write_row_h(s, lstm_hidden_state(kept.o, kept.c), block * Vec<T>::kLanes);
  }
};

template <class T, class W = FullWeights<T>>
void lstm_step_tile(const CellStepTile<T>& s) noexcept {
  if (is_plain_row(s)) return step_row<LstmRow<T>, W>(s);
  step_tile<4, W>(s, [&](const TileSums<T, 4>& sums) FASTLSTM_INLINE_LAMBDA {
    if (s.options == nullptr) return lstm_finish(s, sums, PlainLstm<T>());
    with_functions(s.options, [&](const auto& functions) FASTLSTM_INLINE_LAMBDA {
      lstm_options_finish(s, sums, functions);
    });
  });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

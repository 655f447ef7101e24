// One LSTM time step on tiles: the sums of all gates of the same units end together, and the LSTM
// equations (kernels/lstm_step.hpp) finish them while they are in the L1 cache.
//
// x W and h R are summed apart and added at the end: small products with h would lose their last
// bits in a sum that the input has made large. It halves the error of float32 pre-activations (H =
// 64).
#pragma once

#include "kernels/arguments.hpp"
#include "kernels/lstm_step.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// Writes the units of one block that exist.
template <class T>
FASTLSTM_INLINE void store_units(Vec<T> v, T* p, Index n) {
  if (n >= Vec<T>::kLanes) {
    v.store(p);
  } else {
    v.store_first(p, n);
  }
}

// Vectors of units whose sums are kept until the equations finish them: enough that the CPU
// overlaps them, and few enough (24 KB with AVX-512) to stay in the L1 cache.
constexpr Index kUnitsAtOnce = 48;

/// Gates, cell state and hidden state from both parts of the pre-activations, in two passes: the
/// whole way from gates to h is longer than a CPU looks ahead, and one unit would wait for another.
/// from_x: [rows] of ld_x elements in: bias + x W, [blocks][4][lanes] of each.
/// from_h: [rows][blocks][4][lanes] in: h R; used up.
template <class T>
void finish_units(const LstmStepTile<T>& s, const T* from_x, Index ld_x, T* from_h, Index first_row,
                  Index rows, Index first_block, Index blocks) {
  constexpr Index kLanes = Vec<T>::kLanes;
  const auto for_each_unit = [&](auto body) FASTLSTM_INLINE_LAMBDA {
    T* sums = from_h;
    for (Index row = first_row; row < first_row + rows; ++row) {
      for (Index b = 0; b < blocks; ++b, sums += 4 * kLanes) {
        const Index unit = (first_block + b) * kLanes;
        body(row, unit, from_x + (row - first_row) * ld_x + 4 * b * kLanes, sums,
             s.c + row * s.ld_c + unit);
      }
    }
  };
  for_each_unit([&](Index row, Index unit, const T* x, T* h, T* c) FASTLSTM_INLINE_LAMBDA {
    const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
      return Vec<T>::load(x + gate * kLanes) + Vec<T>::load(h + gate * kLanes);
    };
    const LstmGates<T> u = lstm_gates<T>(sum(0), sum(1), sum(2), sum(3));
    const Vec<T> new_c = lstm_cell<T>(u, Vec<T>::load(c));
    new_c.store(c);
    u.o.store(h);
    if (s.gates != nullptr) {
      const Index n = s.H - unit;
      T* gates = s.gates + row * s.ld_gates + unit;
      store_units(u.i, gates, n);
      store_units(u.f, gates + s.H, n);
      store_units(u.g, gates + 2 * s.H, n);
      store_units(u.o, gates + 3 * s.H, n);
      store_units(new_c, s.saved_c + row * s.ld_saved_c + unit, n);
    }
  });
  for_each_unit([&](Index row, Index unit, const T*, T* o, T* c) FASTLSTM_INLINE_LAMBDA {
    const Vec<T> h = lstm_hidden_state<T>(Vec<T>::load(o), Vec<T>::load(c));
    h.store(s.h + row * s.ld_h + unit);
    if (s.output != nullptr) store_units(h, s.output[row] + unit, s.H - unit);
  });
}

template <class T>
void lstm_step_tile(const LstmStepTile<T>& s) noexcept {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  alignas(64) T from_x[kUnitsAtOnce * kWidth];
  alignas(64) T from_h[kUnitsAtOnce * kWidth];
  const T* h_prev[kUnitsAtOnce];
  const Index groups = (s.rows + kUnitsAtOnce - 1) / kUnitsAtOnce;
  for (Index group = 0; group < groups; ++group) {
    const Index row = s.rows * group / groups;
    const Index rows = s.rows * (group + 1) / groups - row;
    for (Index r = 0; r < rows; ++r) h_prev[r] = s.h_prev + (row + r) * s.ld_h_prev;
    const Index most_blocks = kUnitsAtOnce / rows;
    for (Index block = s.first_block; block < s.end_block; block += most_blocks) {
      const Index end = block + most_blocks < s.end_block ? block + most_blocks : s.end_block;
      const Index ld = (end - block) * kWidth;
      multiply_panel<T>(rows, block, end, s.P, h_prev, s.R, nullptr, from_h, ld);
      if (s.x != nullptr) {
        multiply_panel<T>(rows, block, end, s.I, s.x + row, s.W, s.bias, from_x, ld);
        finish_units(s, from_x, ld, from_h, row, rows, block, end - block);
      } else {
        finish_units(s, s.projected + row * s.ld_projected + block * kWidth, s.ld_projected, from_h,
                     row, rows, block, end - block);
      }
    }
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

// One LSTM time step on tiles: the sums of all gates of the same units end together, and the LSTM
// equations (kernels/lstm_step.hpp) finish them at once.
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

/// Gates, cell state and hidden state from both parts of the pre-activations. Not inlined into the
/// tiles: it would be copied for each row of each tile's height (AVX-512: 330 KB of code instead of
/// 97, and no faster).
/// from_x: [rows] of ld_x elements, in: bias + x W, [blocks][4][lanes] of each.
/// from_h: [rows][blocks][4][lanes] in: h R.
template <class T>
__attribute__((noinline)) void finish_units(const LstmStepTile<T>& s, const T* from_x, Index ld_x,
                                            const T* from_h, Index first_row, Index rows,
                                            Index first_block, Index blocks) {
  constexpr Index kLanes = Vec<T>::kLanes;
  for (Index row = first_row; row < first_row + rows; ++row, from_x += ld_x) {
    for (Index b = 0; b < blocks; ++b, from_h += 4 * kLanes) {
      const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
        return Vec<T>::load(from_x + (4 * b + gate) * kLanes) +
               Vec<T>::load(from_h + gate * kLanes);
      };
      const Index unit = (first_block + b) * kLanes;
      T* c = s.c + row * s.ld_c + unit;
      const LstmUnits<T> u = lstm_units<T>(sum(0), sum(1), sum(2), sum(3), Vec<T>::load(c));
      u.c.store(c);
      u.h.store(s.h + row * s.ld_h + unit);
      const Index n = s.H - unit;
      if (s.output != nullptr) store_units(u.h, s.output[row] + unit, n);
      if (s.gates != nullptr) {
        T* gates = s.gates + row * s.ld_gates + unit;
        store_units(u.i, gates, n);
        store_units(u.f, gates + s.H, n);
        store_units(u.g, gates + 2 * s.H, n);
        store_units(u.o, gates + 3 * s.H, n);
        store_units(u.c, s.saved_c + row * s.ld_saved_c + unit, n);
      }
    }
  }
}

template <class T>
void lstm_step_tile(const LstmStepTile<T>& s) noexcept {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  for_each_tile(
      s.rows, s.first_block, s.end_block,
      [&](Index row, Index block, auto height, auto blocks) FASTLSTM_INLINE_LAMBDA {
        constexpr Index kRowWidth = blocks.value * kWidth;
        Tile<T, height.value, blocks.value> tile;
        alignas(64) T from_x[height.value * kRowWidth];
        if (s.x != nullptr) {
          const auto x = [&](int r) FASTLSTM_INLINE_LAMBDA { return s.x[row + r]; };
          tile.set(s.bias + block * kWidth);
          tile.multiply(x, s.W + block * s.I * kWidth, s.I);
          tile.store(from_x, kRowWidth);
        }
        const auto h = [&](int r)
                           FASTLSTM_INLINE_LAMBDA { return s.h_prev + (row + r) * s.ld_h_prev; };
        alignas(64) T from_h[height.value * kRowWidth];
        tile.set_zero();
        tile.multiply(h, s.R + block * s.P * kWidth, s.P);
        tile.store(from_h, kRowWidth);
        if (s.x != nullptr) {
          finish_units(s, from_x, kRowWidth, from_h, row, height.value, block, blocks.value);
        } else {
          finish_units(s, s.projected + row * s.ld_projected + block * kWidth, s.ld_projected,
                       from_h, row, height.value, block, blocks.value);
        }
      });
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

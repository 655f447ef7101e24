// One LSTM time step on tiles: all gates of the same units end in registers, where the LSTM
// equations (kernels/lstm_step.hpp) finish them. Pre-activations never reach memory, unless there
// are more rows than a tile has and the inputs are cut into parts.
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

/// Gates, cell state and hidden state from finished sums. Not inlined into the tiles: it would be
/// copied for each row of each tile's height (AVX-512: 330 KB of code instead of 60, and no
/// faster). sums: [rows] of ld_sums elements, in: [blocks][4][lanes] of each.
template <class T>
__attribute__((noinline)) void finish_units(const LstmStepTile<T>& s, const T* sums, Index ld_sums,
                                            Index first_row, Index rows, Index first_block,
                                            Index blocks) {
  constexpr Index kLanes = Vec<T>::kLanes;
  for (Index row = first_row; row < first_row + rows; ++row, sums += ld_sums) {
    for (Index b = 0; b < blocks; ++b) {
      const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
        return Vec<T>::load(sums + (4 * b + gate) * kLanes);
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

/// The start of a chain: the projected input, or the bias.
template <class T, int Rows, int Blocks>
FASTLSTM_INLINE void start_tile(const LstmStepTile<T>& s, Tile<T, Rows, Blocks>& tile, Index row,
                                Index block) {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  if (s.x == nullptr) {
    tile.load(s.projected + row * s.ld_projected + block * kWidth, s.ld_projected);
  } else {
    tile.set(s.bias + block * kWidth);
  }
}

template <class T>
void lstm_step_tile(const LstmStepTile<T>& s) noexcept {
  constexpr Index kWidth = 4 * Vec<T>::kLanes;
  const auto x = [&](Index row) FASTLSTM_INLINE_LAMBDA {
    return [&s, row](int r) FASTLSTM_INLINE_LAMBDA { return s.x[row + r]; };
  };
  const auto h = [&](Index row) FASTLSTM_INLINE_LAMBDA {
    return [&s, row](int r) FASTLSTM_INLINE_LAMBDA { return s.h_prev + (row + r) * s.ld_h_prev; };
  };
  const Index I = s.x == nullptr ? 0 : s.I;

  if (s.rows <= kTileRows) {
    with_constant_rows(s.rows, [&](auto height) FASTLSTM_INLINE_LAMBDA {
      constexpr int kRows = decltype(height)::value;
      for_each_block<tile_blocks(kRows)>(
          s.first_block, s.end_block, [&](Index block, auto blocks) FASTLSTM_INLINE_LAMBDA {
            Tile<T, kRows, decltype(blocks)::value> tile;
            start_tile(s, tile, 0, block);
            if (I > 0) tile.multiply(x(0), 0, I, s.W + block * I * kWidth, I);
            tile.multiply(h(0), 0, s.P, s.R + block * s.P * kWidth, s.P);
            alignas(64) T sums[kRows * blocks.value * kWidth];
            tile.store(sums, blocks.value * kWidth);
            finish_units(s, sums, blocks.value * kWidth, 0, kRows, block, blocks.value);
          });
    });
    return;
  }

  // Many rows: they all pass over a part of the panel while it is in the L1 cache, and their sums
  // wait in scratch for the next part.
  for (Index block = s.first_block; block < s.end_block; ++block) {
    for (Index done = 0; done < I + s.P;) {
      const bool from_x = done < I;
      const Index K = from_x ? I : s.P;
      const Index first = from_x ? done : done - I;
      const Index end = first + kInputsInCache<T> < K ? first + kInputsInCache<T> : K;
      const bool last = !from_x && end == K;
      for_each_row_tile(s.rows, [&](Index row, auto height) FASTLSTM_INLINE_LAMBDA {
        Tile<T, decltype(height)::value, 1> tile;
        T* scratch = s.scratch + row * kWidth;
        if (done == 0) {
          start_tile(s, tile, row, block);
        } else {
          tile.load(scratch, kWidth);
        }
        if (from_x) {
          tile.multiply(x(row), first, end, s.W + block * K * kWidth, K);
        } else {
          tile.multiply(h(row), first, end, s.R + block * K * kWidth, K);
        }
        tile.store(scratch, kWidth);
      });
      if (last) finish_units(s, s.scratch, kWidth, 0, s.rows, block, 1);
      done += end - first;
    }
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

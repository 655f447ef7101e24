// The tile: some rows of inputs times some blocks of a panel, accumulated in registers.
//
// Each accumulator is one chain of FMAs over the inputs in order, whatever the tile's height and
// the number of blocks side by side. That is what makes results independent of the batch, the
// threads and the path through time.
//
// Tried without gain on Zen 3: to cut the inputs into parts whose panels (8 to 32 KB) stay in the
// L1 cache while all rows pass. A tile reads 128 bytes of its panel for 12 FMAs, which the L2 cache
// delivers in time.
#pragma once

#include "kernels/stored_weights.hpp"
#include "simd/vec.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

// The registers decide a tile's size: its accumulators, and room for a vector of each gate and one
// input (or the other way round).
#if FASTLSTM_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kRegisters = 32;
constexpr int kAccumulators = 24;
#else
constexpr int kRegisters = 16;
constexpr int kAccumulators = 12;
#endif

/// The accumulators of the highest tile. steps: the products of a group (W::kSteps). Those of
/// several read its weights once, and so have the inputs of all of them in registers.
constexpr int accumulators(int steps) { return steps == 1 ? kAccumulators : kAccumulators * 2 / 3; }

/// The rows of the highest tile. V: the vectors in a block of the panel.
constexpr int tile_rows(int V, int steps = 1) { return accumulators(steps) / V; }

/// How many blocks a tile of this height takes side by side. A single block would leave the FMA
/// units waiting for results when there are few rows.
constexpr int tile_blocks(int V, int rows, int steps = 1) {
  const int most = accumulators(steps);
  return 4 * V * rows <= most ? 4 : 2 * V * rows <= most ? 2 : 1;
}

/// What is read next, brought into the L2 cache a line, or a part of one, at a time.
struct FetchLines {
  const char* next;
  Index step;  // 0: the same line again, where nothing is left to be brought

  FASTLSTM_INLINE void fetch() {
    fetch_to_read(next);
    next += step;
  }
};
struct FetchNothing {
  FASTLSTM_INLINE void fetch() {}
};

template <class T, int V, int Rows, int Blocks>
struct Tile {
  static constexpr Index kLanes = Vec<T>::kLanes;
  static constexpr int kVectors = V * Blocks;

  Vec<T> sum[Rows][kVectors];

  /// values: [V * Blocks][lanes], for every row alike.
  FASTLSTM_INLINE void set(const T* values) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> value = Vec<T>::load(values + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) sum[r][v] = value;
    }
  }

  FASTLSTM_INLINE void set_zero() {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Vec<T>::broadcast(0);
    }
  }

  /// values: [Rows] of ld elements, in: as store writes them.
  FASTLSTM_INLINE void load(const T* values, Index ld) {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Vec<T>::load(values + r * ld + v * kLanes);
    }
  }

  /// values: [Rows] of ld elements, out: [V * Blocks][lanes] of each.
  FASTLSTM_INLINE void store(T* values, Index ld) const {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v].store(values + r * ld + v * kLanes);
    }
  }

  /// values += sum; values as for store.
  FASTLSTM_INLINE void add_to(T* values, Index ld) const {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        T* p = values + r * ld + v * kLanes;
        (Vec<T>::load(p) + sum[r][v]).store(p);
      }
    }
  }

  /// What sums of products with a panel begin with. bias: [blocks][V][lanes]; null: zeros.
  template <class W>
  FASTLSTM_INLINE void begin(const Panel<T>& panel, Index block, const T* bias) {
    if constexpr (W::kScales) {
      if constexpr (W::kOffsets) {
        set(reinterpret_cast<const T*>(panel.offsets) + block * V * kLanes);
      } else {
        set_zero();
      }
    } else if (bias != nullptr) {
      set(bias + block * V * kLanes);
    } else {
      set_zero();
    }
  }

  /// What is left to do with sums of products. row_scales: [Rows] of converted rows. The products
  /// with scales and the sums with biases are rounded apart, with or without FMA.
  template <class W>
  FASTLSTM_INLINE void end(const Panel<T>& panel, Index block, const T* bias,
                           const float* row_scales) {
    if constexpr (W::kScales) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Index column = (block * V + v) * kLanes;
        const Vec<T> scale = Vec<T>::load(panel.scales + column);
        const Vec<T> b = bias != nullptr ? Vec<T>::load(bias + column) : Vec<T>::broadcast(0);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
          const Vec<T> product = W::value(sum[r][v]) *
                                 (kConverts<W> ? scale * Vec<T>::broadcast(row_scales[r]) : scale);
          sum[r][v] = product + b;
        }
      }
    }
  }

  /// sum += x * panel.
  /// x: [Rows] pointers to inputs of a row, of which the K from `first` on count, a multiple of the
  /// inputs in a group. panel: [Blocks][groups][V][lanes]. next: fetches something for each group.
  template <class W, class Fetch = FetchNothing>
  FASTLSTM_INLINE void multiply(const typename W::Input* const* x, Index first,
                                const typename W::Stored* panel, Index K, Fetch&& next = {}) {
    constexpr int kSteps = W::kSteps;
    const typename W::Input* in[Rows];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) in[r] = x[r] + first / kGroup<W> * kSteps;
    const typename W::Stored* block[Blocks];
#pragma GCC unroll 16
    for (int b = 0; b < Blocks; ++b) block[b] = panel + b * groups_of<W>(K) * V * kLanes;
    typename W::Sum sums[Rows][kVectors];
    copy_sums([](Vec<T> s) FASTLSTM_INLINE_LAMBDA { return W::from_vector(s); }, sum, sums);
    const auto add_step = [&](Index k, int j) FASTLSTM_INLINE_LAMBDA {
      add_products<W>(
          sums, [&](int r) FASTLSTM_INLINE_LAMBDA { return W::broadcast(in[r] + k + j); },
          [&](int v) FASTLSTM_INLINE_LAMBDA {
            return W::weight(W::load(block[v / V] + v % V * kLanes), j);
          });
    };
    // Rows that are converted are filled up to whole groups; of others the last may be a part.
    const Index end = (kConverts<W> ? groups_of<W>(K) : K / kGroup<W>)*kSteps;
    Index k = 0;
    for (; k < end; k += kSteps) {
      next.fetch();
      if constexpr (kSteps == 1) {
        add_step(k, 0);
      } else {
        typename W::Operand value[kSteps][Rows];
#pragma GCC unroll 4
        for (int j = 0; j < kSteps; ++j) {
#pragma GCC unroll 16
          for (int r = 0; r < Rows; ++r) value[j][r] = W::broadcast(in[r] + k + j);
        }
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          const auto group = W::load(block[v / V] + v % V * kLanes);
#pragma GCC unroll 4
          for (int j = 0; j < kSteps; ++j) {
            const typename W::Operand w = W::weight(group, j);
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) sums[r][v] = W::add(sums[r][v], value[j][r], w);
          }
        }
      }
#pragma GCC unroll 16
      for (int b = 0; b < Blocks; ++b) block[b] += V * kLanes;
    }
    if constexpr (kSteps > 1 && !kConverts<W>) {
      static_assert(kGroup<W> == 2);
      if (k < K) add_step(k, 0);
    }
    copy_sums([](typename W::Sum s) FASTLSTM_INLINE_LAMBDA { return W::to_vector(s); }, sums, sum);
  }

  /// sum += x * panel for input k alone, where a group is one. panel: [Blocks] pointers.
  template <class W>
  FASTLSTM_INLINE void multiply_one(const T* const* x, const typename W::Stored* const* panel,
                                    Index k) {
    add_products<W>(
        sum, [&](int r) FASTLSTM_INLINE_LAMBDA { return Vec<T>::broadcast(x[r][k]); },
        [&](int v)
            FASTLSTM_INLINE_LAMBDA { return W::load(panel[v / V] + (k * V + v % V) * kLanes); });
  }

  /// sum += columns^T * panel.
  /// columns: K rows of ld elements, of which the first [Rows] are inputs. panel: [K][V][lanes]
  FASTLSTM_INLINE void multiply_columns(const T* columns, Index ld, const T* panel, Index K) {
    static_assert(Blocks == 1);
    for (Index k = 0; k < K; ++k, columns += ld, panel += V * kLanes) {
      add_products<FullWeights<T>>(
          sum, [&](int r) FASTLSTM_INLINE_LAMBDA { return Vec<T>::broadcast(columns[r]); },
          [&](int v) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(panel + v * kLanes); });
    }
  }

 private:
  /// to = convert(from).
  template <class Convert, class From, class To>
  static FASTLSTM_INLINE void copy_sums(Convert convert, const From (&from)[Rows][kVectors],
                                        To (&to)[Rows][kVectors]) {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) to[r][v] = convert(from[r][v]);
    }
  }

  /// sums[r][v] += input(r) * weight(v), what there are more of from memory and not from registers.
  template <class W, class Sum, class Input, class Weight>
  static FASTLSTM_INLINE void add_products(Sum (&sums)[Rows][kVectors], Input input,
                                           Weight weight) {
    if constexpr (Rows * kVectors + Rows + 1 <= kRegisters) {
      typename W::Operand value[Rows];
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) value[r] = input(r);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const typename W::Operand w = weight(v);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) sums[r][v] = W::add(sums[r][v], value[r], w);
      }
    } else {
      typename W::Operand w[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) w[v] = weight(v);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const typename W::Operand value = input(r);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sums[r][v] = W::add(sums[r][v], value, w[v]);
      }
    }
  }
};

/// Calls body(Constant<rows>) for a number of rows from 1 to Most.
template <int Most, class Body>
FASTLSTM_INLINE void with_constant_rows(Index rows, Body body) {
  if constexpr (Most > 1) {
    if (rows < Most) return with_constant_rows<Most - 1>(rows, body);
  }
  body(Constant<Most>{});
}

/// Calls body(block, Constant<Blocks>) so that together the blocks first <= b < end are covered.
/// down: from the end.
template <int Most, class Body>
FASTLSTM_INLINE void for_each_panel_block(Index first, Index end, bool down, Body body) {
  for (; end - first >= Most; down ? end -= Most : first += Most) {
    body(down ? end - Most : first, Constant<Most>{});
  }
  if constexpr (Most > 1) for_each_panel_block<Most / 2>(first, end, down, body);
}

/// The tiles of at most Most rows that together cover the rows.
template <int Most>
FASTLSTM_INLINE Index row_tiles(Index rows) {
  return (rows + Most - 1) / Most;
}

/// Calls body(row, Constant<Rows>) for these tiles, of nearly equal height: no thin one is left at
/// the end.
template <int Most, class Body>
FASTLSTM_INLINE void for_each_row_tile(Index rows, Body body) {
  const Index tiles = row_tiles<Most>(rows);
  for (Index tile = 0; tile < tiles; ++tile) {
    const Index row = rows * tile / tiles;
    with_constant_rows<Most>(rows * (tile + 1) / tiles - row,
                             [&](auto height) FASTLSTM_INLINE_LAMBDA { body(row, height); });
  }
}

template <int V, class W, class T>
FASTLSTM_NOINLINE void end_stored_sums(Index rows, Index blocks, const Panel<T>& panel, Index block,
                                       const T* bias, const float* row_scales, T* out,
                                       Index ld_out) {
  constexpr Index kWidth = V * Vec<T>::kLanes;
  for (Index r = 0; r < rows; ++r) {
    for (Index b = 0; b < blocks; ++b) {
      Tile<T, V, 1, 1> tile;
      tile.load(out + r * ld_out + b * kWidth, 0);
      tile.template end<W>(panel, block + b, bias, kConverts<W> ? row_scales + r : nullptr);
      tile.store(out + r * ld_out + b * kWidth, 0);
    }
  }
}

/// Tile::end of sums that are stored, out: as Tile::store writes them. In tiles it would take the
/// registers of their loops: with 24 sums of AVX512-VNNI these were all kept on the stack.
template <int V, class W, class T>
FASTLSTM_INLINE void end_stored(Index rows, Index blocks, const Panel<T>& panel, Index block,
                                const T* bias, const float* row_scales, T* out, Index ld_out) {
  if constexpr (W::kScales) {
    end_stored_sums<V, W>(rows, blocks, panel, block, bias, row_scales, out, ld_out);
  }
}

/// out = bias + x * panel.
/// x: [rows] in: pointers to [K], as W takes them; row_scales: [rows] in, of converted ones. bias:
/// [blocks][V][lanes] in; null: zeros. out: [rows] of ld_out elements, out: [end - first][V][lanes]
/// of each. next: the weights of a block that is read afterwards; null: not known. down: from the
/// last block to the first, where the call before went up: what it read last is still in the L2
/// cache.
///
/// All rows pass over a part of the panel before the next, as much as the L2 cache holds twice:
/// they find it there, and fetch the next one meanwhile, for which the first rows would otherwise
/// wait (32 rows on Emerald Rapids, GFLOP/s without and with: 512 inputs and 2048 columns 128 and
/// 154; where all of the panel fits the L2 cache, 168). All tiles of rows fetch their part of it,
/// at most a line for each input: lines that come from afar hold buffers of the L1 cache, and when
/// the first tiles fetched all of it at a line for each input, panels waited (LSTM, B = 64, H =
/// 512, 150 and 156 GFLOP/s).
template <int V, class W, class T>
FASTLSTM_NOINLINE void multiply_panel(Index rows, Index first, Index end, Index K,
                                      const typename W::Input* const* x, const float* row_scales,
                                      const Panel<T>& panel, const T* bias, T* out, Index ld_out,
                                      bool down, const typename W::Stored* next = nullptr) {
  using Stored = typename W::Stored;
  constexpr int kMostRows = tile_rows(V, W::kSteps);
  constexpr Index kWidth = V * Vec<T>::kLanes, kLine = 64, kMostBytes = 256 << 10;
  constexpr Index kGroupBytes = kWidth * static_cast<Index>(sizeof(Stored));
  constexpr Index kMostGroups = kMostBytes / kGroupBytes;
  const Index groups = groups_of<W>(K);
  const Stored* const weights = stored<W>(panel);
  if (rows <= kMostRows) {
    with_constant_rows<kMostRows>(rows, [&](auto height) FASTLSTM_INLINE_LAMBDA {
      for_each_panel_block<tile_blocks(V, height.value, W::kSteps)>(
          first, end, down, [&](Index block, auto blocks) FASTLSTM_INLINE_LAMBDA {
            Tile<T, V, height.value, blocks.value> tile;
            tile.template begin<W>(panel, block, bias);
            tile.template multiply<W>(x, 0, weights + block * groups * kWidth, K);
            T* const to = out + (block - first) * kWidth;
            tile.store(to, ld_out);
            end_stored<V, W>(height.value, blocks.value, panel, block, bias, row_scales, to,
                             ld_out);
          });
    });
    return;
  }
  const Index tiles = row_tiles<kMostRows>(rows);
  const Index spread = (kGroupBytes + tiles - 1) / tiles, pace = spread < kLine ? spread : kLine;
  const Index parts = K > 0 ? (groups + kMostGroups - 1) / kMostGroups : 1;
  for (Index left = end - first; left > 0; --left) {
    const Index block = down ? first + left - 1 : end - left;
    const Stored* const block_after =
        left > 1 ? weights + (down ? block - 1 : block + 1) * groups * kWidth : next;
    for (Index part = 0; part < parts; ++part) {
      const Index group = groups * part / parts, n = groups * (part + 1) / parts - group;
      const Index k = group * kGroup<W>, k_end = part + 1 < parts ? k + n * kGroup<W> : K;
      const Stored* const inputs = weights + (block * groups + group) * kWidth;
      const Stored* const after = part + 1 < parts ? inputs + n * kWidth : block_after;
      Index to_fetch = after != nullptr ? n * kGroupBytes : 0;
      FetchLines lines{reinterpret_cast<const char*>(after), pace};
      for_each_row_tile<kMostRows>(rows, [&](Index row, auto height) FASTLSTM_INLINE_LAMBDA {
        Tile<T, V, height.value, 1> tile;
        T* const to = out + row * ld_out + (block - first) * kWidth;
        if (part == 0) {
          tile.template begin<W>(panel, block, bias);
        } else {
          tile.load(to, ld_out);
        }
        if (to_fetch <= 0) lines = {reinterpret_cast<const char*>(inputs), 0};
        tile.template multiply<W>(x + row, k, inputs, k_end - k, lines);
        to_fetch -= n * pace;
        tile.store(to, ld_out);
        if (part + 1 == parts) {
          const float* const scales = kConverts<W> ? row_scales + row : nullptr;
          end_stored<V, W>(height.value, 1, panel, block, bias, scales, to, ld_out);
        }
      });
    }
  }
}

/// What multiplies rows with panels in one call of a kernel.
template <class W>
struct PanelProducts {
  /// As multiply_panel.
  template <int V, class T>
  FASTLSTM_INLINE void multiply(Index rows, Index first, Index end, Index K,
                                const typename W::Input* const* x, const float* row_scales,
                                const Panel<T>& panel, const T* bias, T* out, Index ld_out,
                                bool down, const typename W::Stored* next = nullptr) {
    multiply_panel<V, typename W::Products, T>(rows, first, end, K, x, row_scales, panel, bias, out,
                                               ld_out, down, next);
  }
};

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

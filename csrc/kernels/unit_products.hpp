// Products with panels on a matrix unit (kernels/matrix_unit.hpp), for inputs that are converted.
//
// A block's vectors are tiles of 16 groups of inputs by 16 columns, which stand one after the other
// in memory (kernels/panel.hpp); up to 16 rows of inputs are a tile, too. Four tiles of sums are
// two by two, of which each load serves two products, or for up to 16 rows one by four: a unit
// takes 16 cycles for a product and 52 until its sums can be added to, so four go on at a time.
//
// A sum begins with the bias, to which the products of a tile's inputs are added, tile by tile;
// in which order the unit adds those of a tile is its own. It depends on nothing but K, so a row's
// sums are the same in any batch; those of bfloat16 are not those of other targets.
//
// Not measured: written without a CPU that has one.
#pragma once

#include "kernels/convert_rows.hpp"
#include "kernels/matrix_unit.hpp"
#include "kernels/tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

template <class UnitType>
struct Bfloat16Tiles {
  using Unit = UnitType;
  using Products = Bfloat16Tiles;
  using Stored = uint32_t;
  using Input = uint32_t;
  static constexpr Arithmetic kArithmetic = Arithmetic::kBfloat16;
  static constexpr bool kScales = false;

  template <class C, class A, class B>
  static FASTLSTM_INLINE void add(Unit& unit, C c, A a, B b) {
    unit.add_bfloat16(c, a, b);
  }
};

template <class UnitType>
struct Int8Tiles : Int8Sums {
  using Unit = UnitType;
  using Products = Int8Tiles;
  using Input = uint32_t;  // four bytes with signs
  static constexpr bool kOffsets = false;

  template <class C, class A, class B>
  static FASTLSTM_INLINE void add(Unit& unit, C c, A a, B b) {
    unit.add_int8(c, a, b);
  }
};

template <class Unit>
constexpr bool kTiled<Bfloat16Tiles<Unit>> = true;
template <class Unit>
constexpr bool kTiled<Int8Tiles<Unit>> = true;

/// The zeros after so many groups, up to whole tiles.
FASTLSTM_INLINE void fill_tiles(uint32_t* to, Index written, Index groups) {
  for (Index g = written; g < groups; ++g) to[g] = 0;
}

template <class Unit>
FASTLSTM_INLINE void convert_row(Bfloat16Tiles<Unit>, const float* x, Index K, uint32_t* to,
                                 float*) {
  convert_to_pairs(x, K, to);
  fill_tiles(to, (K + 1) / 2, groups_of<Bfloat16Tiles<Unit>>(K));
}
template <class Unit>
FASTLSTM_INLINE void convert_row(Int8Tiles<Unit>, const float* x, Index K, uint32_t* to,
                                 float* scale) {
  convert_to_int8(x, K, scale,
                  [&](Bits q, Index k) FASTLSTM_INLINE_LAMBDA { store_bytes(q, k, to); });
  fill_tiles(to, (K + 3) / 4, groups_of<Int8Tiles<Unit>>(K));
}
template <class Unit>
struct RowsOf<Bfloat16Tiles<Unit>, float> {
  using Type = ConvertedRows<Bfloat16Tiles<Unit>>;
};
template <class Unit>
struct RowsOf<Int8Tiles<Unit>, float> {
  using Type = ConvertedRows<Int8Tiles<Unit>>;
};

/// Calls body(Constant<n>) for 0 <= n < N.
template <int N, class Body>
FASTLSTM_INLINE void for_each_constant(Body body) {
  if constexpr (N > 0) {
    for_each_constant<N - 1>(body);
    body(Constant<N - 1>());
  }
}

/// Sums of one or two tiles of rows and some vectors of columns, at most four tiles in all.
template <class W, int Rows, int Vectors>
struct UnitTile {
  static_assert(Rows == 1 ? Vectors <= 4 : Vectors <= 2);

  /// The tiles of sums, inputs and weights.
  template <int r, int v>
  using Sums = Constant<Rows == 1 ? v : 2 * r + v>;
  template <int r>
  using Inputs = Constant<kSumTiles + r>;
  template <int v>
  using Weights = Constant<kSumTiles + 2 + v % 2>;

  typename W::Unit& unit;

  /// values: [Vectors][lanes], in: for all rows alike; null: zeros.
  FASTLSTM_INLINE void begin(const float* values) {
    for_each_sum([&](auto sums, auto, auto v) FASTLSTM_INLINE_LAMBDA {
      if (values != nullptr) {
        unit.load(sums, values + v.value * (kTileBytes / 4), 0);
      } else {
        unit.zero(sums);
      }
    });
  }

  /// x: [Rows] in: the first rows of tiles, whose rows are ld_x bytes apart. weights:
  /// [Vectors][tiles][kTileGroups][lanes] in.
  FASTLSTM_INLINE void multiply(const uint32_t* const* x, Index ld_x, const uint32_t* weights,
                                Index tiles) {
    const Index of_vector = tiles * kTileGroups * kTileBytes;
    const char* input[Rows];
    for_each_constant<Rows>([&](auto r) FASTLSTM_INLINE_LAMBDA {
      input[r.value] = reinterpret_cast<const char*>(x[r.value]);
    });
    const char* at = reinterpret_cast<const char*>(weights);
    for (Index tile = 0; tile < tiles; ++tile) {
      for_each_constant<Rows>([&](auto r) FASTLSTM_INLINE_LAMBDA {
        unit.load(Inputs<r.value>(), input[r.value], ld_x);
        input[r.value] += kTileBytes;
      });
      for_each_constant<Vectors>([&](auto v) FASTLSTM_INLINE_LAMBDA {
        unit.load(Weights<v.value>(), at + v.value * of_vector, kTileBytes);
        for_each_constant<Rows>([&](auto r) FASTLSTM_INLINE_LAMBDA {
          W::add(unit, Sums<r.value, v.value>(), Inputs<r.value>(), Weights<v.value>());
        });
      });
      at += kTileGroups * kTileBytes;
    }
  }

  /// out: [Rows] out: the first rows of tiles, whose rows are ld_out values apart, [Vectors][lanes]
  /// of each.
  FASTLSTM_INLINE void store(float* const* out, Index ld_out) {
    for_each_sum([&](auto sums, auto r, auto v) FASTLSTM_INLINE_LAMBDA {
      unit.store(sums, out[r.value] + v.value * (kTileBytes / 4), 4 * ld_out);
    });
  }

 private:
  template <class Body>
  FASTLSTM_INLINE void for_each_sum(Body body) {
    for_each_constant<Rows>([&](auto r) FASTLSTM_INLINE_LAMBDA {
      for_each_constant<Vectors>(
          [&](auto v) FASTLSTM_INLINE_LAMBDA { body(Sums<r.value, v.value>(), r, v); });
    });
  }
};

template <class W>
class UnitProducts {
 public:
  /// As multiply_panel.
  template <int V, class T>
  FASTLSTM_INLINE void multiply(Index rows, Index first, Index end, Index K,
                                const uint32_t* const* x, const float* row_scales,
                                const Panel<T>& panel, const T* bias, T* out, Index ld_out,
                                bool down, const uint32_t* = nullptr) {
    if (rows == 0) return;
    const Index tiles = (rows + kTileRows - 1) / kTileRows, height = (rows + tiles - 1) / tiles;
    set_height(height);
    multiply_blocks<V>(unit_, rows, height, first, end, groups_of<W>(K), x, converted_bytes(1, K),
                       row_scales, panel, bias, out, ld_out, down);
  }

 private:
  /// Some 200 cycles, so only where it changes; that is also why all tiles have 16 groups.
  FASTLSTM_INLINE void set_height(Index height) {
    if (height == height_) return;
    height_ = height;
    unit_.set_rows(height);
  }

  /// Tiles of rows have one height: the last one begins where it ends with the rows, and what it
  /// has in common with the one before it comes out the same.
  template <int V>
  static FASTLSTM_NOINLINE void multiply_blocks(typename W::Unit& unit, Index rows, Index height,
                                                Index first, Index end, Index groups,
                                                const uint32_t* const* x, Index ld_x,
                                                const float* row_scales, const Panel<float>& panel,
                                                const float* bias, float* out, Index ld_out,
                                                bool down) {
    constexpr Index kWidth = V * Vec<float>::kLanes;
    static_assert(V > 0 && Vec<float>::kLanes * 4 == kTileBytes);
    const Index stride = groups * Vec<float>::kLanes;  // of a vector
    unit.fence();
    for (Index left = end - first; left > 0; --left) {
      const Index block = down ? first + left - 1 : end - left;
      const uint32_t* const weights = stored<W>(panel) + block * V * stride;
      const float* const begin = W::kScales || bias == nullptr ? nullptr : bias + block * kWidth;
      float* const to = out + (block - first) * kWidth;
      const auto multiply = [&](auto tiles, auto vectors, Index row,
                                int vector) FASTLSTM_INLINE_LAMBDA {
        const Index rows_of[] = {row, row + 2 * height < rows ? row + height : rows - height};
        const uint32_t* inputs[tiles.value];
        float* sums[tiles.value];
        for_each_constant<tiles.value>([&](auto r) FASTLSTM_INLINE_LAMBDA {
          inputs[r.value] = x[rows_of[r.value]];
          sums[r.value] = to + rows_of[r.value] * ld_out + vector * Vec<float>::kLanes;
        });
        UnitTile<W, tiles.value, vectors.value> tile{unit};
        tile.begin(begin != nullptr ? begin + vector * Vec<float>::kLanes : nullptr);
        tile.multiply(inputs, ld_x, weights + vector * stride, groups / kTileGroups);
        tile.store(sums, ld_out);
      };
      Index row = 0;
      for (; row + height < rows; row += 2 * height) {
        multiply(Constant<2>(), Constant<2>(), row, 0);
        multiply(Constant<2>(), Constant<V - 2>(), row, 2);
      }
      if (row < rows) multiply(Constant<1>(), Constant<V>(), rows - height, 0);
      unit.fence();
      end_stored<V, W>(rows, 1, panel, block, bias, row_scales, to, ld_out);
    }
  }

  typename W::Unit unit_;
  Index height_ = 0;
};

template <class Unit>
struct PanelProducts<Bfloat16Tiles<Unit>> : UnitProducts<Bfloat16Tiles<Unit>> {};
template <class Unit>
struct PanelProducts<Int8Tiles<Unit>> : UnitProducts<Int8Tiles<Unit>> {};

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

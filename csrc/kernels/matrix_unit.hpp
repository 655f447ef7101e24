// A matrix unit: eight tiles, of up to 16 rows of 64 bytes each, and products of whole tiles. What
// is computed on it is written once (kernels/unit_products.hpp), for a class of which there are
// two: AMX, and its emulation, which tests run.
//
//   set_rows(n)           the rows of sums and inputs, of 64 bytes, as many as 16 of weights have;
//                         all is zero then
//   load(t, p, ld)        tile t from rows that are ld bytes apart
//   zero(t)
//   store(t, p, ld)
//   add_bfloat16(c, a, b) c += a b, tiles of float, of rows of pairs, and of pairs of rows
//   add_int8(c, a, b)     the same of 32-bit integers, and of fours with signs
//
// Tiles are numbers that the compiler knows: Constant<t>. Those of sums are the first four.
#pragma once

#include <stdint.h>
#include <string.h>

#include "simd/vec.hpp"

#if defined(__AMX_TILE__)
#include <immintrin.h>
#endif

namespace fastlstm::FASTLSTM_TARGET {
namespace {

constexpr Index kTileRows = 16, kTileBytes = 64;  // at most
constexpr int kSumTiles = 4, kTiles = 8;

/// As LDTILECFG reads it.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t first_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};

  /// After four tiles of sums two of inputs, and two of weights.
  explicit TileShapes(Index n) {
    for (int t = 0; t < kTiles; ++t) {
      bytes[t] = kTileBytes;
      rows[t] = static_cast<uint8_t>(t < kSumTiles + 2 ? n : kTileRows);
    }
  }
};

#if defined(__AMX_TILE__)
/// AMX. The tiles are this thread's from set_rows to the end of the object's life, and nobody
/// else's business: signals keep them, and a switch of threads is as cheap as ever before and
/// after. The system gives them to processes that asked (allow_tiles in runtime/system.hpp).
///
/// Compilers know neither what loads read nor what stores write (GCC 12's intrinsics): what is in
/// memory is made so before and after.
class AmxUnit {
 public:
  AmxUnit() = default;
  AmxUnit(const AmxUnit&) = delete;
  AmxUnit& operator=(const AmxUnit&) = delete;
  FASTLSTM_INLINE ~AmxUnit() {
    if (has_tiles_) _tile_release();
  }

  FASTLSTM_NOINLINE void set_rows(Index n) {
    const TileShapes shapes(n);
    const TileShapes* volatile at = &shapes;  // GCC would believe that the first 8 bytes are read
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    _tile_loadconfig(at);
    has_tiles_ = true;
  }
  /// Between stores of others and loads, or the other way round.
  FASTLSTM_INLINE void fence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

#define FASTLSTM_TILE(t)                                                                     \
  FASTLSTM_INLINE void load(Constant<t>, const void* p, Index ld) { _tile_loadd(t, p, ld); } \
  FASTLSTM_INLINE void zero(Constant<t>) { _tile_zero(t); }                                  \
  FASTLSTM_INLINE void store(Constant<t>, void* p, Index ld) { _tile_stored(t, p, ld); }
  FASTLSTM_TILE(0)
  FASTLSTM_TILE(1)
  FASTLSTM_TILE(2)
  FASTLSTM_TILE(3)
  FASTLSTM_TILE(4)
  FASTLSTM_TILE(5)
  FASTLSTM_TILE(6)
  FASTLSTM_TILE(7)
#undef FASTLSTM_TILE

#define FASTLSTM_TILE_PRODUCT(c, a, b)                                       \
  FASTLSTM_INLINE void add_bfloat16(Constant<c>, Constant<a>, Constant<b>) { \
    _tile_dpbf16ps(c, a, b);                                                 \
  }                                                                          \
  FASTLSTM_INLINE void add_int8(Constant<c>, Constant<a>, Constant<b>) { _tile_dpbssd(c, a, b); }
  FASTLSTM_TILE_PRODUCT(0, 4, 6)
  FASTLSTM_TILE_PRODUCT(1, 4, 7)
  FASTLSTM_TILE_PRODUCT(2, 4, 6)
  FASTLSTM_TILE_PRODUCT(3, 4, 7)
  FASTLSTM_TILE_PRODUCT(2, 5, 6)
  FASTLSTM_TILE_PRODUCT(3, 5, 7)
#undef FASTLSTM_TILE_PRODUCT

 private:
  bool has_tiles_ = false;
};
#endif

/// What the manual of AMX says that it does, on arrays (Intel's Software Developer's Manual,
/// TDPBF16PS and TDPBSSD). Tiles that do not fit each other end the process.
///
/// Products of bfloat16 are exact in float, but where they are below the smallest normal number.
class EmulatedUnit {
 public:
  void set_rows(Index n) {
    shapes_ = TileShapes(n);
    memset(sums_, 0, sizeof sums_);
  }
  void fence() {}

  template <int t>
  void load(Constant<t>, const void* p, Index ld) {
    if constexpr (t < kSumTiles) {
      zero(Constant<t>());
      for (Index r = 0; r < shapes_.rows[t]; ++r) {
        memcpy(sums_[t][r], static_cast<const char*>(p) + r * ld, shapes_.bytes[t]);
      }
    } else {
      // Not copied, for the sake of small stacks: they are multiplied before memory changes.
      factors_[t - kSumTiles] = {static_cast<const char*>(p), ld};
    }
  }
  template <int t>
  void zero(Constant<t>) {
    memset(sums_[t], 0, sizeof sums_[t]);
  }
  template <int t>
  void store(Constant<t>, void* p, Index ld) {
    for (Index r = 0; r < shapes_.rows[t]; ++r) {
      memcpy(static_cast<char*>(p) + r * ld, sums_[t][r], shapes_.bytes[t]);
    }
  }

  /// The sums of the lower and of the upper halves, then both, then what was there.
  template <int c, int a, int b>
  void add_bfloat16(Constant<c>, Constant<a>, Constant<b>) {
    check(c, a, b);
    for (Index r = 0; r < shapes_.rows[c]; ++r) {
      float lower[kTileRows] = {}, upper[kTileRows] = {};
      for (Index k = 0; k < shapes_.rows[b]; ++k) {
        const uint32_t x = factor(a, r, k);
        for (Index n = 0; n < shapes_.bytes[c] / 4; ++n) {
          const uint32_t w = factor(b, k, n);
          lower[n] += as_float(x << 16) * as_float(w << 16);
          upper[n] += as_float(x & 0xffff0000u) * as_float(w & 0xffff0000u);
        }
      }
      for (Index n = 0; n < shapes_.bytes[c] / 4; ++n) {
        const float sum = as_float(sums_[c][r][n]) + (lower[n] + upper[n]);
        memcpy(&sums_[c][r][n], &sum, sizeof sum);
      }
    }
  }

  template <int c, int a, int b>
  void add_int8(Constant<c>, Constant<a>, Constant<b>) {
    check(c, a, b);
    for (Index r = 0; r < shapes_.rows[c]; ++r) {
      for (Index k = 0; k < shapes_.rows[b]; ++k) {
        const uint32_t x = factor(a, r, k);
        for (Index n = 0; n < shapes_.bytes[c] / 4; ++n) {
          const uint32_t w = factor(b, k, n);
          for (int byte = 0; byte < 32; byte += 8) {
            const int product = static_cast<int8_t>(x >> byte) * static_cast<int8_t>(w >> byte);
            sums_[c][r][n] += static_cast<uint32_t>(product);
          }
        }
      }
    }
  }

 private:
  struct Factor {
    const char* rows;
    Index ld;
  };

  void check(int c, int a, int b) const {
    const TileShapes& s = shapes_;
    const bool fit = s.palette == 1 && s.rows[c] == s.rows[a] && s.bytes[c] == s.bytes[b] &&
                     s.bytes[a] == 4 * s.rows[b] && s.rows[c] <= kTileRows &&
                     s.rows[b] <= kTileRows && s.bytes[a] <= kTileBytes && s.rows[c] > 0;
    if (!fit) end_process();
  }
  uint32_t factor(int t, Index row, Index column) const {
    const Factor& f = factors_[t - kSumTiles];
    uint32_t value;
    memcpy(&value, f.rows + row * f.ld + 4 * column, sizeof value);
    return value;
  }
  static float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }

  TileShapes shapes_{0};
  uint32_t sums_[kSumTiles][kTileRows][kTileBytes / 4];
  Factor factors_[kTiles - kSumTiles];
};

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET

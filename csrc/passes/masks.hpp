// Regularisation: which values are dropped or keep what they were. Masks follow from the seed, the
// layer or cell, the time step, the row's place in the caller's batch and the call's number of
// steps alone; they are drawn where they are needed, forward and backward, and not stored.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fastlstm/stack.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "schedule/row_schedule.hpp"

namespace fastlstm {

/// What the random numbers are for: the high bits of the generator's stream.
enum class MaskKind : std::uint32_t { kDropout, kRecurrentDropout, kWeightDropout, kZoneout };

/// The stream of numbers of one kind for layer or cell k.
inline std::uint32_t mask_stream(MaskKind kind, Index k) {
  return static_cast<std::uint32_t>(kind) << 30 | static_cast<std::uint32_t>(k);
}

/// dropped = x times the mask of a layer's output, for packed rows; its own gradient too.
/// dropped may be x.
template <class T>
void drop_rows(const RowSchedule& rows, const Regularisation& regularisation, Index layer,
               const T* x, Index width, T* dropped) {
  const KernelTable<T>& kernel = kernels<T>();
  SmallItems asks;
  for (Index t = 0; t < rows.steps(); ++t) {
    if (asks.interrupted_before(rows.live(t) * width)) return;
    for (Index b = 0; b < rows.live(t); ++b) {
      const Index at = rows.packed_row(t, b) * width;
      kernel.dropout_row({width, regularisation.seed, mask_stream(MaskKind::kDropout, layer),
                          rows.unique_row(t, b), regularisation.dropout, x + at, dropped + at});
    }
  }
}

/// A row of R of cell k, or of its gradient, times the mask of weight dropout. values: [P]
template <class T>
void drop_weights(const Regularisation& regularisation, Index k, Index row, Index P, T* values) {
  kernels<T>().dropout_row({P, regularisation.seed, mask_stream(MaskKind::kWeightDropout, k),
                            static_cast<std::uint64_t>(row), regularisation.weight_dropout, values,
                            values});
}

/// The masks of one layer and direction in one call.
template <class T>
class CellMasks {
 public:
  /// k: the cell's number in the whole stack. regularisation: null in inference.
  CellMasks(const CellOptions& options, Index k, const Regularisation* regularisation,
            const RowSchedule& rows)
      : zoneout_h_(options.zoneout_h),
        zoneout_c_(options.zoneout_c),
        draws_zoneout_(regularisation != nullptr && regularisation->zoneout),
        recurrent_(regularisation != nullptr ? regularisation->recurrent_dropout : 0),
        seed_(regularisation != nullptr ? regularisation->seed : 0),
        k_(k),
        rows_(&rows) {}

  bool drops_h() const { return recurrent_ > 0; }
  bool zones_h() const { return zoneout_h_ > 0; }
  bool zones_c() const { return zoneout_c_ > 0; }
  /// Whether zoneout's masks differ from step to step.
  bool draws_zoneout() const { return draws_zoneout_; }

  /// What h of sorted row b is multiplied with before R reads it. mask: [P] out
  void h_mask(Index b, Index P, T* mask) const {
    std::fill_n(mask, P, T(1));
    kernels<T>().dropout_row({P, seed_, mask_stream(MaskKind::kRecurrentDropout, k_),
                              static_cast<std::uint64_t>(rows_->place(b)), recurrent_, mask, mask});
  }

  /// The parts of h and c that the units first <= j < first + n keep at step t. first: a multiple
  /// of 4. keep: [n] out
  void keep_h(Index t, Index b, Index first, Index n, T* keep) const {
    keep_row(zoneout_h_, ~seed_, t, b, first, n, keep);
  }
  void keep_c(Index t, Index b, Index first, Index n, T* keep) const {
    keep_row(zoneout_c_, seed_, t, b, first, n, keep);
  }

 private:
  void keep_row(double p, std::uint64_t seed, Index t, Index b, Index first, Index n,
                T* keep) const {
    if (!draws_zoneout_) {
      std::fill_n(keep, std::max<Index>(n, 0), static_cast<T>(p));
      return;
    }
    kernels<T>().bernoulli_row(
        {n, first, seed, mask_stream(MaskKind::kZoneout, k_), rows_->unique_row(t, b), p, keep});
  }

  double zoneout_h_, zoneout_c_;
  bool draws_zoneout_;
  double recurrent_;
  std::uint64_t seed_;
  Index k_;
  const RowSchedule* rows_;
};

}  // namespace fastlstm

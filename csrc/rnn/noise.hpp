// Regularisation of one layer and direction in one call: which units of h and c are dropped or keep
// their values. Masks follow from the seed, the cell, the time step, the row's place in the
// caller's batch and the call's number of steps alone; they are drawn where they are needed,
// forward and backward, and not stored.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fastlstm/stack.hpp"
#include "rnn/row_schedule.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

/// What the random numbers are for: the high bits of the generator's stream.
enum class NoiseKind : std::uint32_t { kDropout, kRecurrentDropout, kWeightDropout, kZoneout };

/// The stream of numbers of one kind for layer or cell k.
inline std::uint32_t noise_stream(NoiseKind kind, Index k) {
  return static_cast<std::uint32_t>(kind) << 30 | static_cast<std::uint32_t>(k);
}

template <class T>
class CellNoise {
 public:
  /// dropout: null in inference.
  CellNoise(const StackConfig& config, Index k, const Dropout* dropout, const RowSchedule& rows)
      : zoneout_h_(config.options.zoneout_h),
        zoneout_c_(config.options.zoneout_c),
        draws_zoneout_(dropout != nullptr && dropout->zoneout),
        recurrent_(dropout != nullptr ? dropout->recurrent : 0),
        seed_(dropout != nullptr ? dropout->seed : 0),
        k_(config.first_cell + k),
        rows_(&rows) {}

  bool drops_h() const { return recurrent_ > 0; }
  bool zones_h() const { return zoneout_h_ > 0; }
  bool zones_c() const { return zoneout_c_ > 0; }
  /// Whether zoneout's masks differ from step to step.
  bool draws_zoneout() const { return draws_zoneout_; }

  /// What h of sorted row b is multiplied with before R reads it. mask: [P] out
  void h_mask(Index b, Index P, T* mask) const {
    std::fill_n(mask, P, T(1));
    kernels<T>().dropout_row({P, seed_, noise_stream(NoiseKind::kRecurrentDropout, k_),
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
        {n, first, seed, noise_stream(NoiseKind::kZoneout, k_), rows_->unique_row(t, b), p, keep});
  }

  double zoneout_h_, zoneout_c_;
  bool draws_zoneout_;
  double recurrent_;
  std::uint64_t seed_;
  Index k_;
  const RowSchedule* rows_;
};

}  // namespace fastlstm

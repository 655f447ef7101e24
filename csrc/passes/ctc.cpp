#include "fastlstm/ctc.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "kernels/arguments.hpp"
#include "runtime/buffer.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// What is done with a logit and with a place in the target, in multiply-adds.
constexpr Index kProductsPerLogit = 10, kProductsPerPlace = 60;

/// What a thread needs for one row after the other.
template <class T>
struct Lattice {
  Lattice(Index steps, Index S)
      : width(padded(S + 1)),
        shares(steps, 5 * (width + 1)),
        skip(width),
        log_p(width),
        blank(2, width),
        label(2, width + 1),
        p_blank(2, width + 1),
        p_label(2, width + 1),
        log_total(steps),
        total(steps) {}

  static Index padded(Index n) {
    const Index lanes = kernels<T>().lanes;
    return (n + lanes - 1) / lanes * lanes;
  }
  /// The k-th of CtcStep's shares of frame t: [width + 1].
  T* share(Index t, Index k) { return shares.data() + (5 * t + k) * (width + 1); }

  const Index width;
  Buffer<T> shares;            // [T, 5, width + 1]
  Buffer<T> skip;              // [width]
  Buffer<T> log_p;             // [width]
  Buffer<T> blank, label;      // [2, width], [2, width + 1]: of a frame and the next, as in CtcStep
  Buffer<T> p_blank, p_label;  // [2, width + 1] the same on the way back
  Buffer<double> log_total;    // [T] of the exponentials of a frame's logits
  Buffer<double> total;        // [T] of the exponentials less the largest
};

/// One row of a call.
template <class T>
class Row {
 public:
  Row(const CtcCall<T>& call, Index b, Lattice<T>& own)
      : call_(call),
        b_(b),
        length_(call.lengths != nullptr ? call.lengths[b] : call.steps),
        L_(call.target_lengths[b]),
        target_(call.targets + b * call.S),
        width_(Lattice<T>::padded(L_ + 1)),
        own_(own) {}

  void run() noexcept {
    for (Index t = length_; t < call_.steps; ++t) std::fill_n(d_row(t), call_.V, T(0));
    call_.losses[b_] = loss();
    if (call_.losses[b_] == kInfinity) {
      for (Index t = 0; t < length_; ++t) std::fill_n(d_row(t), call_.V, T(0));
    } else {
      run_backward();
    }
  }

 private:
  T* d_row(Index t) { return call_.d_logits.row(t, b_); }

  /// -log p of the target; leaves what the way back needs.
  double loss() {
    Index least = L_;  // frames: one for each label, and a blank between equal ones
    for (Index k = 1; k < L_; ++k) least += target_[k] == target_[k - 1] ? 1 : 0;
    if (length_ < least) return kInfinity;
    if (length_ == 0) return 0;
    for (Index t = 0; t < length_; ++t) {
      if (interrupted(static_cast<double>(call_.V * kProductsPerLogit))) return kInfinity;
      T most = 0;
      kernels<T>().softmax_row(
          {call_.V, call_.logits.row(t, b_), d_row(t), &most, &own_.total.data()[t]});
      own_.log_total.data()[t] = static_cast<double>(most) + std::log(own_.total.data()[t]);
    }
    return -run_forward();
  }

  /// The logarithm of a class' probability in frame t.
  T log_p(Index t, Index c) const {
    const double log_p = static_cast<double>(call_.logits.row(t, b_)[c]) - own_.log_total.data()[t];
    constexpr double kLeast = kLogNothing;
    return static_cast<T>(log_p < kLeast ? kLeast : log_p);  // NaN stays
  }

  double run_forward() {
    const Index width = width_;
    const T nothing = T(kLogNothing);
    std::fill_n(own_.skip.data(), width, T(0));
    own_.skip.data()[0] = nothing;
    for (Index k = 1; k < L_; ++k) {
      if (target_[k] == target_[k - 1]) own_.skip.data()[k] = nothing;
    }
    std::fill_n(own_.log_p.data(), width, nothing);
    T *blank = own_.blank.data(), *blank_next = blank + width;
    T *label = own_.label.data() + 1, *label_next = label + width + 1;
    label[-1] = label_next[-1] = nothing;
    std::fill_n(blank, width, nothing);
    std::fill_n(label, width, nothing);
    blank[0] = log_p(0, call_.blank);
    if (L_ > 0) label[0] = log_p(0, target_[0]);
    double sum = 0;
    for (Index t = 1; t < length_; ++t) {
      if (interrupted(static_cast<double>(width * kProductsPerPlace))) return 0;
      for (Index k = 0; k < L_; ++k) own_.log_p.data()[k] = log_p(t, target_[k]);
      T scale = 0;
      kernels<T>().ctc_step({width, log_p(t, call_.blank), own_.log_p.data(), own_.skip.data(),
                             blank, label, blank_next, label_next, &scale, own_.share(t, 0),
                             own_.share(t, 1), own_.share(t, 2), own_.share(t, 3),
                             own_.share(t, 4)});
      own_.share(t, 1)[width] = own_.share(t, 4)[width] = 0;
      sum += static_cast<double>(scale);
      std::swap(blank, blank_next);
      std::swap(label, label_next);
    }
    // A path ends with the last label, or with a blank after it.
    const auto from_blank = static_cast<double>(blank[L_]);
    const auto from_label = static_cast<double>(L_ > 0 ? label[L_ - 1] : nothing);
    const double most = std::max(from_blank, from_label);
    const double both = std::exp(from_blank - most) + std::exp(from_label - most);
    sum += most + std::log(both);
    if (sum < kLogNothing / 2) return -kInfinity;  // a logit of -inf in every path
    std::fill_n(own_.p_blank.data(), 2 * (width + 1), T(0));
    std::fill_n(own_.p_label.data(), 2 * (width + 1), T(0));
    own_.p_blank.data()[L_] = static_cast<T>(std::exp(from_blank - most) / both);
    if (L_ > 0) own_.p_label.data()[L_ - 1] = static_cast<T>(std::exp(from_label - most) / both);
    return sum;
  }

  void run_backward() {
    const Index width = width_;
    T *p_blank_next = own_.p_blank.data(), *p_blank = p_blank_next + width + 1;
    T *p_label_next = own_.p_label.data(), *p_label = p_label_next + width + 1;
    const double scale = call_.scales[b_];
    for (Index t = length_ - 1; t >= 0; --t) {
      if (interrupted(static_cast<double>(call_.V * kProductsPerLogit))) return;
      T* const d = d_row(t);
      const T part = static_cast<T>(scale / own_.total.data()[t]);
      for (Index c = 0; c < call_.V; ++c) d[c] *= part;
      double blanks = 0;
      for (Index k = 0; k <= L_; ++k) blanks += static_cast<double>(p_blank_next[k]);
      d[call_.blank] -= static_cast<T>(scale * blanks);
      for (Index k = 0; k < L_; ++k) d[target_[k]] -= static_cast<T>(scale) * p_label_next[k];
      if (t == 0) break;
      kernels<T>().ctc_step_backward({width, own_.share(t, 0), own_.share(t, 2), own_.share(t, 3),
                                      own_.share(t, 1), own_.share(t, 4), p_blank_next,
                                      p_label_next, p_blank, p_label});
      std::swap(p_blank, p_blank_next);
      std::swap(p_label, p_label_next);
    }
  }

  const CtcCall<T>& call_;
  const Index b_;
  const Index length_;
  const Index L_;  // labels of the target
  const Index* const target_;
  const Index width_;
  Lattice<T>& own_;
};

}  // namespace

template <class T>
void ctc(const CtcCall<T>& call) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a row
  const double products =
      static_cast<double>(call.steps * call.B) *
      static_cast<double>(call.V * kProductsPerLogit + call.S * kProductsPerPlace);
  const double threads = products / tuning().products_per_thread;
  TeamLease team(static_cast<int>(
      std::clamp(threads, 1.0, static_cast<double>(std::clamp<Index>(call.B, 1, num_threads())))));
  std::vector<Lattice<T>> own;
  own.reserve(static_cast<std::size_t>(team.threads()));
  for (int thread = 0; thread < team.threads(); ++thread) own.emplace_back(call.steps, call.S);
  team.run_tasks(call.B, [&](Index b, int rank) noexcept {
    Row<T>(call, b, own[static_cast<std::size_t>(rank)]).run();
  });
}

template void ctc<float>(const CtcCall<float>&);
template void ctc<double>(const CtcCall<double>&);

}  // namespace fastlstm

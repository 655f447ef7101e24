#include "rnn/memory_plan.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>

#include "rnn/cell_backward.hpp"
#include "rnn/segments.hpp"
#include "rnn/step_blocks.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

/// A number of values or bytes. What does not fit throws std::bad_alloc: no memory would, either.
class Count {
 public:
  Count(Index n) : n_(n) {}  // NOLINT: a number is one
  Index get() const { return n_; }

  friend Count operator+(Count a, Count b) {
    Index sum = 0;
    if (__builtin_add_overflow(a.n_, b.n_, &sum)) throw std::bad_alloc();
    return sum;
  }
  friend Count operator*(Count a, Count b) {
    Index product = 0;
    if (__builtin_mul_overflow(a.n_, b.n_, &product)) throw std::bad_alloc();
    return product;
  }
  friend Count most(Count a, Count b) { return std::max(a.n_, b.n_); }

 private:
  Index n_;
};

/// The sizes of a call, and the bytes and time that plans for it take. The most at any time is what
/// is kept, and the larger of what the forward and the backward pass need beside it.
class Planner {
 public:
  Planner(const StackConfig& config, const RowSchedule& rows, const Dropout& dropout,
          Index value_bytes, bool in_place)
      : config_(config),
        rows_(rows),
        drops_(dropout.p > 0 && config.num_layers > 1),
        drops_weights_(dropout.weight > 0),
        value_bytes_(value_bytes),
        in_place_(in_place) {}

  /// Everything in one go.
  MemoryPlan whole() const {
    const Count R = rows_.rows(), W = width();
    const Count kept = always() + R * config_.cells() * (saved_gates() + C()) +
                       Count(config_.cells()) * rows_.B() * (P() + C());
    const Count dropped = drops_ ? R * W : 0;
    const Count both = merges() ? Count(rows_.T()) * rows_.B() * W : 0;
    const Count forward = dropped + both + forward_pass(config_.cells());
    MemoryPlan plan;
    plan.memory = estimate(kept + most(forward, dropped + backward(R) + backward_pass()), 0);
    return plan;
  }

  MemoryPlan in_segments(Index segment_blocks, Index kept_segments) const {
    MemoryPlan plan;
    plan.in_segments = true;
    plan.segment_blocks = segment_blocks;
    plan.kept_segments = kept_segments;
    Count values = 0;
    Index again = 0;
    LongestSegments longest;
    for (Index d = 0; d < config_.directions(); ++d) {
      for (const Segment& s : segments_of(rows_, config_.runs_backward(d), plan)) {
        const Index n = rows_.offset(s.end) - rows_.offset(s.first);
        longest.count(rows_, s.first, s.end, s.kept);
        values = values + Count(config_.num_layers) * rows_.live(s.first) * (P() + C());
        if (s.kept) {
          values = values + Count(config_.num_layers) * n * (saved_gates() + C());
        } else {
          again += n;
        }
      }
    }
    const Count dropped = drops_ ? longest.rows * Count(width()) : 0;
    const Count forward = most(room(longest.rows, longest.again) + dropped + forward_pass(1),
                               merges() ? rows_.rows() * Count(P()) : 0);
    const Count back = room(longest.again, longest.again) + dropped + backward(longest.rows) +
                       most(backward_pass(), dropped + forward_pass(1));
    const double part = static_cast<double>(again) / static_cast<double>(std::max<Index>(
                                                         1, rows_.rows() * config_.directions()));
    plan.memory = estimate(always() + values + most(forward, back), part);
    return plan;
  }

  /// The number of segments of a cell.
  Index segments(Index segment_blocks) const {
    MemoryPlan plan;
    plan.segment_blocks = segment_blocks;
    return static_cast<Index>(segments_of(rows_, config_.runs_backward(0), plan).size());
  }

 private:
  Index P() const { return config_.output_size(); }
  Index C() const { return config_.c_size(); }
  Index saved_gates() const { return config_.saved_gates() * config_.hidden_size; }
  Index sums() const { return config_.gates() * config_.hidden_size; }
  Index width() const { return config_.directions() * P(); }
  bool merges() const { return config_.merge != Merge::kConcat; }
  /// Columns of a panel.
  Index padded(Index columns) const {
    const Index block = 256 / value_bytes_;  // four of the widest vectors
    return active_target().tiles ? (columns + block - 1) / block * block : columns;
  }

  /// The input, and h of every layer; with weight dropout, weights of the call's own.
  Count always() const {
    const Count rows = rows_.rows() * (config_.input_size + Count(config_.num_layers) * width());
    if (!drops_weights_) return rows;
    // R of each cell, on tiles its panels for both passes, and a projection with its panel.
    const bool tiles = active_target().tiles;
    const Count R = (tiles ? Count(2) * P() + padded(P()) : Count(P())) * sums();
    const Count W_hr = (tiles ? Count(P()) + padded(P()) : Count(P())) * config_.hidden_size;
    return rows + (config_.proj_size > 0 ? R + W_hr : R) * config_.cells();
  }
  /// Where segments of one cell are run, one after another (Saved::Room).
  Count room(Index rows, Index again) const {
    return rows * (config_.widest_input() + Count(P())) + again * (saved_gates() + Count(C()));
  }
  /// The states of cells that run at the same time, and what their steps need (TileCell).
  Count forward_pass(Index cells) const {
    const Index H = config_.hidden_size;
    const bool products = config_.cell == CellKind::kGruResetBefore || config_.options.layer_norm;
    const Count of_row =
        2 * P() + C() + (config_.proj_size > 0 ? H : 0) + (products ? 2 * sums() + H : 0) +
        (config_.options.zoneout_h > 0 ? P() : 0) + (config_.options.zoneout_c > 0 ? 2 * H : 0);
    return Count(cells) * rows_.B() * of_row;
  }
  /// Gradients between layers, and those of the caller's arrays, of so many rows at once.
  Count backward(Count at_once) const {
    const Count W = width(), of_layer = rows_.rows() * W;
    const bool one_layer = config_.num_layers == 1;
    const Count copied = in_place_ ? Count(0) : at_once;
    const Count d_output = copied * config_.merged_size() + (merges() ? at_once * W : Count(0));
    const Count d_x = copied * config_.input_size;
    const Count top = d_output + (one_layer ? d_x : of_layer);
    const Count middle = config_.num_layers > 2 ? of_layer * 2 : 0;
    const Count bottom = one_layer ? Count(0) : of_layer + d_x;
    const Count d_R = drops_weights_ ? Count(sums()) * P() : 0;
    return most(top, most(middle, bottom)) + d_R;
  }
  /// What the backward pass of a cell needs for a block of steps (rnn/cell_backward.cpp).
  Count backward_pass() const {
    const Index projection = config_.proj_size > 0 ? config_.hidden_size + P() : 0;
    const Index H = config_.hidden_size;
    // Gradients of R h where they differ from those of W x, or r h'.
    const bool differ = config_.cell == CellKind::kGru || config_.options.layer_norm;
    const Index other = differ ? sums() : config_.cell == CellKind::kGruResetBefore ? H : 0;
    const Index peepholes = config_.options.peepholes ? 3 * H : 0;
    const Count of_block =
        sums() + other + P() + projection + peepholes + padded(config_.widest_input());
    const Index task = kAgainRows * sums() + 2 * kNormSums * H + kNormRows * 6 * H;
    return most_block_rows(rows_, kBackwardRows) * of_block + norm_tasks() * Count(task) +
           rows_.B() * Count(3 * P() + 2 * C());
  }
  /// The tasks that have room of their own for layer normalisation, at most.
  Index norm_tasks() const {
    const Index B = rows_.B(), rows = shared_step_rows(B);
    return config_.options.layer_norm ? (B + rows - 1) / rows : 0;
  }
  /// again: the part of the rows that is computed again. A forward pass is a third of the products.
  TrainingMemory estimate(Count values, double again) const {
    // The order of the rows: of the call, and twice of those that a thread has.
    const Count schedules = 3 * (Count(rows_.steps()) + 2 * Count(rows_.B()));
    const Count bytes = values * value_bytes_ + schedules * Count(sizeof(Index));
    return {bytes.get(), again / 3};
  }

  const StackConfig& config_;
  const RowSchedule& rows_;
  const bool drops_, drops_weights_;
  const Index value_bytes_;
  const bool in_place_;
};

}  // namespace

MemoryPlan plan_memory(const StackConfig& config, const RowSchedule& rows, const Dropout& dropout,
                       Index value_bytes, bool in_place, Index limit) {
  const Planner planner(config, rows, dropout, value_bytes, in_place);
  const MemoryPlan whole = planner.whole();
  if (limit == 0 || whole.memory.bytes <= limit) return whole;

  // Long segments need room to be computed again, short ones many states.
  MemoryPlan least = whole;
  for (Index blocks = 1;; blocks *= 2) {
    const MemoryPlan plan = planner.in_segments(blocks, 0);
    if (plan.memory.bytes < least.memory.bytes) least = plan;
    if (planner.segments(blocks) <= 1) break;
  }
  if (least.memory.bytes > limit) {
    throw std::invalid_argument("memory_limit: expected at least " +
                                std::to_string(least.memory.bytes) + " bytes for this call, got " +
                                std::to_string(limit));
  }
  // Keep as many segments as there is room for.
  Index few = 0, many = planner.segments(least.segment_blocks) + 1;
  while (many - few > 1) {
    const Index middle = few + (many - few) / 2;
    const bool fits = planner.in_segments(least.segment_blocks, middle).memory.bytes <= limit;
    (fits ? few : many) = middle;
  }
  return planner.in_segments(least.segment_blocks, few);
}

std::vector<Segment> segments_of(const RowSchedule& rows, bool backward, const MemoryPlan& plan) {
  std::vector<Segment> segments;  // in the order of the backward pass
  Index blocks = 0;
  for_each_block(rows, !backward, kBackwardRows, [&](const StepBlock& block) {
    if (blocks++ % plan.segment_blocks == 0) {
      const bool kept = static_cast<Index>(segments.size()) < plan.kept_segments;
      segments.push_back({block.first, block.end, kept});
    }
    segments.back().first = std::min(segments.back().first, block.first);
    segments.back().end = std::max(segments.back().end, block.end);
  });
  std::reverse(segments.begin(), segments.end());
  return segments;
}

}  // namespace fastlstm

#include "rnn/memory_plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "rnn/cell_backward.hpp"
#include "rnn/step_blocks.hpp"

namespace fastlstm {

namespace {

/// The sizes of a call, and the bytes and time that plans for it take.
class Planner {
 public:
  Planner(const StackConfig& config, const RowSchedule& rows, bool drops, Index value_bytes)
      : config_(config),
        rows_(rows),
        drops_(drops && config.num_layers > 1),
        value_bytes_(value_bytes) {}

  /// Everything in one go.
  MemoryPlan whole() const {
    const Index R = rows_.rows(), state = config_.cells() * rows_.B() * (P() + C());
    const Index gates = config_.cells() * R * (saved_gates() + C());
    const Index dropped = drops_ ? R * width() : 0;
    const Index d_layer_x = R * widest_input();
    const Index merged = config_.merge == Merge::kConcat ? 0 : R * P();
    MemoryPlan plan;
    plan.memory = estimate(
        always() + state + gates + dropped + R * width() + merged + d_layer_x + backward_pass(), 0);
    return plan;
  }

  MemoryPlan in_segments(Index segment_blocks, Index kept_segments) const {
    MemoryPlan plan;
    plan.in_segments = true;
    plan.segment_blocks = segment_blocks;
    plan.kept_segments = kept_segments;
    Index values = 0, again = 0, longest = 0;
    for (Index d = 0; d < config_.directions(); ++d) {
      for (const Segment& s : segments_of(rows_, config_.runs_backward(d), plan)) {
        const Index n = rows_.offset(s.end) - rows_.offset(s.first);
        longest = std::max(longest, n);
        values += config_.num_layers * rows_.live(s.first) * (P() + C());
        if (s.kept) {
          values += config_.num_layers * n * (saved_gates() + C());
        } else {
          again += n;
        }
      }
    }
    // A segment in work: all that is saved of it, and the gradients that come in and go out.
    const Index at_work =
        longest * (widest_input() + P() + saved_gates() + C() + width() + config_.input_size);
    // Between layers, the gradients of all rows: those that come from above, and those that go on.
    const Index between = std::min<Index>(config_.num_layers - 1, 2) * rows_.rows() * width();
    const double part = static_cast<double>(again) / static_cast<double>(std::max<Index>(
                                                         1, rows_.rows() * config_.directions()));
    plan.memory = estimate(always() + values + at_work + between + backward_pass(), part);
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
  Index width() const { return config_.directions() * P(); }
  Index widest_input() const {
    return std::max(config_.input_size, config_.num_layers > 1 ? width() : 0);
  }
  /// The input, and h of every layer.
  Index always() const {
    return rows_.rows() * (config_.input_size + config_.num_layers * width());
  }
  /// What the backward pass of a cell needs for a block of steps (rnn/cell_backward.cpp).
  Index backward_pass() const {
    const Index projection = config_.proj_size > 0 ? config_.hidden_size + P() : 0;
    const Index H = config_.hidden_size, sums = config_.gates() * H;
    // Gradients of R h where they differ from those of W x, or r h'.
    const bool differ = config_.cell == CellKind::kGru || config_.options.layer_norm;
    const Index other = differ ? sums : config_.cell == CellKind::kGruResetBefore ? H : 0;
    return most_block_rows(rows_, kBackwardRows) *
               (sums + other + P() + projection + widest_input()) +
           norm_tasks() * (kAgainRows * sums + 2 * kNormSums * H + kNormRows * 6 * H) +
           rows_.B() * (3 * P() + 2 * C());
  }
  /// The tasks that have room of their own for layer normalisation, at most.
  Index norm_tasks() const {
    const Index B = rows_.B(), rows = shared_step_rows(B);
    return config_.options.layer_norm ? (B + rows - 1) / rows : 0;
  }
  /// again: the part of the rows that is computed again. A forward pass is a third of the products.
  TrainingMemory estimate(Index values, double again) const {
    return {values * value_bytes_, again / 3};
  }

  const StackConfig& config_;
  const RowSchedule& rows_;
  const bool drops_;
  const Index value_bytes_;
};

}  // namespace

MemoryPlan plan_memory(const StackConfig& config, const RowSchedule& rows, bool drops,
                       Index value_bytes, Index limit) {
  const Planner planner(config, rows, drops, value_bytes);
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

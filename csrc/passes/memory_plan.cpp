#include "passes/memory_plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "passes/backward.hpp"
#include "passes/direction_backward.hpp"
#include "passes/forward.hpp"
#include "passes/saved.hpp"
#include "runtime/room.hpp"

namespace fastlstm {

namespace {

/// The bytes and time that plans for a call take. The most at any time is what is kept, and the
/// larger of what the forward and the backward pass need beside it, which they say themselves.
template <class T>
class Planner {
 public:
  Planner(const Layers<T>& layers, const RowSchedule& rows, const Regularisation& regularisation,
          bool in_place)
      : layers_(layers),
        config_(layers.config),
        rows_(rows),
        regularisation_(regularisation),
        in_place_(in_place) {}

  /// Everything in one go.
  MemoryPlan whole() const {
    Room kept(Room::Use::kCounts);
    const Saved<T> counted(layers_, rows_, true, kept);
    const Count forward = forward_bytes(layers_, rows_, regularisation_);
    const Count back = dropped(rows_.rows()) + bytes_between(rows_.rows()) +
                       direction_backward_bytes(layers_, rows_, regularisation_);
    MemoryPlan plan;
    plan.memory = estimate(kept.bytes() + weights() + most(forward, back), 0);
    return plan;
  }

  MemoryPlan in_segments(Index segment_blocks, Index kept_segments) const {
    MemoryPlan plan;
    plan.in_segments = true;
    plan.segment_blocks = segment_blocks;
    plan.kept_segments = kept_segments;
    const Index P = config_.output_size(), M = config_.memory_size();
    Count values = 0;
    Index again = 0;
    LongestSegments longest;
    for (Index d = 0; d < config_.directions(); ++d) {
      for_each_segment(rows_, config_.runs_backward(d), plan, [&](const Segment& s) {
        const Index n = rows_.offset(s.end) - rows_.offset(s.first);
        longest.count(rows_, s.first, s.end, s.kept);
        values = values + Count(config_.num_layers) * rows_.live(s.first) * (P + M);
        if (s.kept) {
          values = values + Count(config_.num_layers) * n * (layers_.gates_width() + M);
        } else {
          again += n;
        }
      });
    }
    Room kept(Room::Use::kCounts);
    const Saved<T> counted(layers_, rows_, false, kept);
    const Count run = bytes_of_run();
    const Count forward = most(arrays(longest.rows, longest.again) + dropped(longest.rows) + run,
                               merges() ? bytes(Count(rows_.rows()) * P) : Count(0));
    const Count back = arrays(longest.again, longest.again) + dropped(longest.rows) +
                       bytes_between(longest.rows) +
                       most(direction_backward_bytes(layers_, rows_, regularisation_),
                            dropped(longest.rows) + run);
    const double part = static_cast<double>(again) / static_cast<double>(std::max<Index>(
                                                         1, rows_.rows() * config_.directions()));
    plan.memory = estimate(kept.bytes() + weights() + bytes(values) + most(forward, back), part);
    return plan;
  }

  /// The number of segments of a cell.
  Index segments(Index segment_blocks) const {
    MemoryPlan plan;
    plan.segment_blocks = segment_blocks;
    Index segments = 0;
    for_each_segment(rows_, config_.runs_backward(0), plan, [&](const Segment&) { ++segments; });
    return segments;
  }

 private:
  static Count bytes(Count values) { return values * static_cast<Index>(sizeof(T)); }
  bool merges() const { return config_.merge != Merge::kConcat; }
  bool drops() const { return regularisation_.dropout > 0 && config_.num_layers > 1; }
  Index width() const { return config_.directions() * config_.output_size(); }

  /// With weight dropout: weights of the call's own.
  Count weights() const {
    if (regularisation_.weight_dropout == 0) return 0;
    return Count(bytes_of_R<T>(config_, layers_.cell->weight_shape())) * config_.cells();
  }
  /// A layer's input after dropout.
  Count dropped(Index rows) const { return drops() ? bytes(Count(rows) * width()) : Count(0); }
  /// Where segments of one cell are run, one after another.
  Count arrays(Index rows, Index again) const {
    Room room(Room::Use::kCounts);
    SavedArrays<T> arrays;
    Saved<T>::add_arrays(layers_, rows, again, arrays, room);
    return room.bytes();
  }
  /// The forward pass of one cell.
  Count bytes_of_run() const {
    Regularisation inside = regularisation_;
    inside.dropout = 0;
    return forward_bytes(layers_.only(0), rows_, inside);
  }
  Count bytes_between(Index at_once) const {
    return bytes_between_layers(layers_, rows_, regularisation_, in_place_, at_once);
  }
  /// again: the part of the rows that is computed again. A forward pass is a third of the products.
  TrainingMemory estimate(Count bytes, double again) const {
    // The order of the rows: of the call, and twice of those that a thread has.
    const Count schedules = 3 * (Count(rows_.steps()) + 2 * Count(rows_.B()));
    return {(bytes + schedules * static_cast<Index>(sizeof(Index))).get(), again / 3};
  }

  const Layers<T>& layers_;
  const StackConfig& config_;
  const RowSchedule& rows_;
  const Regularisation& regularisation_;
  const bool in_place_;
};

}  // namespace

template <class T>
MemoryPlan plan_memory(const Layers<T>& layers, const RowSchedule& rows,
                       const Regularisation& regularisation, bool in_place, Index limit) {
  const Planner<T> planner(layers, rows, regularisation, in_place);
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
  std::vector<Segment> segments;
  for_each_segment(rows, backward, plan, [&](const Segment& s) { segments.push_back(s); });
  std::reverse(segments.begin(), segments.end());
  return segments;
}

#define FASTLSTM_INSTANTIATE(T)                                                                \
  template MemoryPlan plan_memory(const Layers<T>&, const RowSchedule&, const Regularisation&, \
                                  bool, Index);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "passes/forward.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "passes/cell_run.hpp"
#include "passes/masks.hpp"
#include "passes/merge.hpp"
#include "runtime/fixed_vector.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/spin_barrier.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

namespace {

/// A call is divided in time, so that it can be interrupted. Stretch number `index` of `count` of
/// the steps: of all layers where they alternate, and of one layer otherwise.
struct Stretch {
  Index layer, index, count;

  StepRange of(Index n) const { return {n * index / count, n * (index + 1) / count}; }
  bool last() const { return index + 1 == count; }
};

template <class T>
bool layers_alternate(const StackConfig& config, const Saved<T>* saved) {
  return layers_alternate(config, saved != nullptr && saved->regularisation.dropout > 0);
}

/// The stretches of a call, in order.
std::vector<Stretch> stretches_of(const StackConfig& config, const RowSchedule& rows,
                                  bool alternate) {
  const Index layers = alternate ? 1 : config.num_layers;
  const double wanted =
      products_of(config, rows) / static_cast<double>(layers) / tuning().products_per_stretch;
  const Index count =
      std::max<Index>(1, static_cast<Index>(std::min(wanted, static_cast<double>(rows.steps()))));
  std::vector<Stretch> stretches;
  for (Index layer = 0; layer < layers; ++layer) {
    for (Index index = 0; index < count; ++index) stretches.push_back({layer, index, count});
  }
  return stretches;
}

/// The threads that go through all layers for one part of the rows, and what they share.
template <class T>
class RowGroup {
 public:
  RowGroup(const Layers<T>& layers, const ForwardCall<T>& call, RowSchedule rows,
           const ThreadPlan& plan, Saved<T>* saved, T* dropped)
      : layers_(layers),
        call_(call),
        plan_(plan),
        alternate_(layers_alternate<T>(layers.config, saved)),
        rows_(std::move(rows)),
        saved_(saved),
        dropped_(dropped),
        runs_(layers.config.cells()),
        barrier_(plan.threads_of_rows()),
        step_barriers_(plan.units > 1 ? plan.directions * plan.layers : 0) {
    const StackConfig& config = layers.config;
    Room room;
    for (Index k = 0; k < config.cells(); ++k) {
      runs_.emplace_back(layers, k, rows_, saved != nullptr ? &saved->regularisation : nullptr,
                         room);
      runs_.back().set_state(cell_state(config, call.B, k, call.state_0));
    }
    while (!step_barriers_.full()) step_barriers_.emplace_back(plan.units);
    for (int thread = 0; thread < plan.threads_of_rows(); ++thread) {
      buffers_.emplace_back(layers, rows_, room);
    }
    const Index at_once = CellRun<T>::projected_steps(rows_);
    block_steps_ = rows_.steps();
    if (alternate_ && rows_.B() > 0) {
      const auto alternate_rows = static_cast<Index>(tuning().alternate_rows);
      const Index steps = std::max<Index>(1, alternate_rows / rows_.B() / at_once) * at_once;
      block_steps_ = std::min(block_steps_, steps);
      if (plan.layers > 1) {
        const Index blocks = static_cast<Index>(tuning().blocks_per_owner) * plan.layers;
        block_steps_ = std::min(block_steps_, (rows_.steps() + blocks - 1) / blocks);
      }
    }
    if (saved == nullptr) {
      const Index buffers =
          plan.layers > 1 ? 2 * (config.num_layers - 1) : std::min<Index>(config.num_layers - 1, 2);
      for (Index k = 0; k < buffers; ++k) {
        between_.emplace_back();
        room.add(between_.back(), block_steps_ * rows_.B(), width());
      }
    }
  }

  /// What thread `rank` of the group does for a stretch of the call. Allocates nothing.
  void run(const Stretch& stretch, int rank) noexcept {
    const Index steps = rows_.steps();
    if (!alternate_) {
      const Share share{rank, plan_.threads_of_rows(), &barrier_};
      const bool first = stretch.layer == 0 && stretch.index == 0;
      const bool last = stretch.layer + 1 == layers_.config.num_layers && stretch.last();
      if (first) save_input({0, steps}, share);
      run_layer(stretch.layer, stretch.of(steps), rank);
      if (stretch.last() && drops(stretch.layer)) drop(stretch.layer, rank);
      if (last) give_output({0, steps}, share);
      return;
    }
    const StepRange blocks = stretch.of(block_steps_ > 0 ? pieces(steps, block_steps_) : 0);
    const Index owner = plan_.layers > 1 ? rank / plan_.units : 0;
    const Index layers = layers_.config.num_layers / plan_.layers;
    // Each owner of layers is one block behind the owner of those below.
    for (Index wave = blocks.first; wave < blocks.end + plan_.layers - 1; ++wave) {
      const Index block = wave - owner;
      if (blocks.first <= block && block < blocks.end) {
        const StepRange range{block * block_steps_, std::min((block + 1) * block_steps_, steps)};
        if (owner == 0) save_input(times(range), share_of(rank));
        for (Index layer = owner * layers; layer < (owner + 1) * layers; ++layer) {
          run_layer(layer, range, rank);
        }
        if (owner + 1 == plan_.layers) give_output(times(range), share_of(rank));
      }
      if (plan_.layers > 1) barrier_.wait(rank);  // at the ends for a whole block
    }
  }

  void get_state() const {
    for (Index k = 0; k < layers_.config.cells(); ++k) {
      runs_[static_cast<std::size_t>(k)].get_state(
          cell_state(layers_.config, call_.B, k, call_.state_n));
    }
  }

 private:
  Index width() const { return layers_.config.directions() * layers_.config.output_size(); }

  /// The share of thread `rank` in the units of the direction or layers that it owns.
  Share share_of(int rank) {
    const auto owner = static_cast<std::size_t>(rank / plan_.units);
    return {rank % plan_.units, plan_.units, plan_.units > 1 ? &step_barriers_[owner] : nullptr};
  }

  /// The steps in the order of time, of some in the order of computation, with one direction.
  StepRange times(StepRange steps) const {
    if (!layers_.config.runs_backward(0)) return steps;
    return {rows_.steps() - steps.end, rows_.steps() - steps.first};
  }

  /// In training: copies the input at these times to what is saved, before it is read there. Where
  /// layers alternate these are few steps, which then are still in the cache. share: of the threads
  /// that read it.
  void save_input(StepRange times, const Share& share) noexcept {
    if (saved_ == nullptr || call_.x.data == nullptr) return;
    const Index I = layers_.config.input_size;
    copy(times, RowView<const T>(call_.x), RowView<T>(saved_->x.data(), I), I, share);
    if (share.barrier != nullptr) share.barrier->wait(share.rank);
  }

  /// In training: copies the last layer's output at these times to the caller's.
  void give_output(StepRange times, const Share& share) noexcept {
    if (saved_ == nullptr || call_.output.data == nullptr) return;
    const RowView<const T> saved(saved_->output(layers_.config.num_layers - 1), width());
    copy(times, saved, RowView<T>(call_.output), width(), share);
  }

  void copy(StepRange times, const RowView<const T>& from, const RowView<T>& to, Index n,
            const Share& share) noexcept {
    const auto [first, end] = share.range(times.end - times.first, 1);
    copy_steps(rows_, times.first + first, times.first + end, from, n, to);
  }

  void run_layer(Index layer, StepRange steps, int rank) noexcept {
    const int owner = rank / plan_.units;  // of a direction or of layers, if they are divided
    const Share share = share_of(rank);
    ThreadBuffers<T>& own = buffers_[static_cast<std::size_t>(rank)];
    for (Index d = 0; d < layers_.config.directions(); ++d) {
      if (plan_.directions == 1 || d == owner) run_cell(layer, d, steps, share, own);
    }
    if (plan_.directions > 1) barrier_.wait(rank);
  }

  void run_cell(Index layer, Index d, StepRange steps, const Share& share,
                ThreadBuffers<T>& own) noexcept {
    const StackConfig& config = layers_.config;
    const Index k = layer * config.directions() + d;
    const RowView<T> output = layer_output(layer, steps);
    const typename CellRun<T>::Run run{
        steps, layer_input(layer, steps), output.from_column(d * config.output_size()),
        saved_ ? saved_->gates(k) : nullptr, saved_ ? saved_->memory(k) : nullptr};
    runs_[static_cast<std::size_t>(k)].run(run, share, own);
  }

  /// Rows that pass between layers in inference: those of the block of steps where the layers
  /// alternate (of two blocks, where a layer works while the next one reads), all of them
  /// otherwise.
  RowView<T> between(Index layer, StepRange steps) {
    const Index t = alternate_ ? times(steps).first : 0;
    Index buffer = layer % 2;
    if (plan_.layers > 1) buffer = 2 * layer + steps.first / block_steps_ % 2;
    return RowView<T>(between_[static_cast<std::size_t>(buffer)].data(), width(), rows_.B(), t);
  }

  RowView<T> layer_output(Index layer, StepRange steps) {
    if (saved_ != nullptr) return RowView<T>(saved_->output(layer), width());
    if (layer + 1 == layers_.config.num_layers) return RowView<T>(call_.output);
    return between(layer, steps);
  }

  RowView<const T> layer_input(Index layer, StepRange steps) {
    if (layer == 0) {
      return saved_ ? RowView<const T>(saved_->x.data(), layers_.config.input_size)
                    : RowView<const T>(call_.x);
    }
    if (drops(layer - 1)) return RowView<const T>(dropped_, width());
    return layer_output(layer - 1, steps);
  }

  bool drops(Index layer) const {
    return saved_ != nullptr && saved_->regularisation.dropout > 0 &&
           layer + 1 < layers_.config.num_layers;
  }

  /// The next layer's input, by one thread of the group while the others wait.
  void drop(Index layer, int rank) noexcept {
    barrier_.wait(rank);
    if (rank == 0) {
      drop_rows(rows_, saved_->regularisation, layer, saved_->output(layer), width(), dropped_);
    }
    barrier_.wait(rank);
  }

  const Layers<T>& layers_;
  const ForwardCall<T>& call_;
  const ThreadPlan plan_;
  const bool alternate_;
  const RowSchedule rows_;
  Saved<T>* const saved_;
  T* const dropped_;  // [rows, D * P] packed: a layer's input after dropout
  Index block_steps_ = 0;
  FixedVector<CellRun<T>> runs_;
  std::vector<ThreadBuffers<T>> buffers_;
  SpinBarrier barrier_;
  FixedVector<SpinBarrier> step_barriers_;  // by direction or owner of layers that several share
  std::vector<Buffer<T>> between_;
};

/// The forward pass of all layers, whose output has both directions. saved: null in inference.
template <class T>
void forward_unmerged(const Layers<T>& layers, const ForwardCall<T>& call, const RowSchedule& rows,
                      Saved<T>* saved) {
  const FlushDenormals flush_denormals;
  const StackConfig& config = layers.config;
  const Index width = config.directions() * config.output_size();
  Buffer<T> dropped;
  if (saved != nullptr && saved->regularisation.dropout > 0 && config.num_layers > 1) {
    dropped.resize(rows.rows(), width);
  }
  const bool alternate = layers_alternate<T>(config, saved);
  ThreadPlan plan = plan_threads(CallShape(config, rows, sizeof(T), alternate));
  TeamLease team(plan.threads(), products_of(config, rows));
  if (!team.granted()) plan = ThreadPlan{};  // another call has the team: this thread does it all
  FixedVector<RowGroup<T>> groups(plan.rows);
  for (int g = 0; g < plan.rows; ++g) {
    groups.emplace_back(layers, call, RowSchedule(rows, g, plan.rows), plan, saved, dropped.data());
  }
  for (const Stretch& stretch : stretches_of(config, rows, alternate)) {
    check_interrupt();
    const auto on_thread = [&](int rank) noexcept {
      const int per_group = plan.threads_of_rows();
      groups[static_cast<std::size_t>(rank / per_group)].run(stretch, rank % per_group);
    };
    plan.meets() ? team.run(on_thread) : team.run_parts(on_thread);
  }
  for (const RowGroup<T>& group : groups) group.get_state();
  if (call.output.data != nullptr) clear_padding(rows, width, call.output);
}

}  // namespace

template <class T>
void forward_layers(const Layers<T>& layers, const ForwardCall<T>& call, const RowSchedule& rows,
                    Saved<T>* saved) {
  const StackConfig& config = layers.config;
  if (config.merge == Merge::kConcat) return forward_unmerged(layers, call, rows, saved);
  const Index P = config.output_size();
  Buffer<T> both(rows.rows(), 2 * P);
  ForwardCall<T> unmerged = call;
  unmerged.output = SequenceView<T>::packed_rows(both.data(), 2 * P);
  forward_unmerged(layers, unmerged, rows, saved);
  const RowView<T> output(call.output);
  in_region([&] {
    SmallItems asks;
    for (Index t = 0; t < rows.steps(); ++t) {
      if (asks.interrupted_before(rows.live(t) * 2 * P)) return;
      for (Index b = 0; b < rows.live(t); ++b) {
        merge_row<T>(config.merge, both.data() + rows.packed_row(t, b) * 2 * P, P,
                     output.row(rows, t, b));
      }
    }
  });
  clear_padding(rows, P, call.output);
}

template <class T>
Count forward_bytes(const Layers<T>& layers, const RowSchedule& rows,
                    const Regularisation& regularisation) {
  const StackConfig& config = layers.config;
  Room room(Room::Use::kCounts);
  for (Index k = 0; k < config.cells(); ++k) CellRun<T>(layers, k, rows, &regularisation, room);
  const Count width = config.directions() * config.output_size(), size = sizeof(T);
  // Threads that own rows project inputs of their own.
  const int threads = threads_worth(products_of(config, rows));
  const Index groups = std::clamp<Index>(rows.B(), 1, threads);
  const auto projected = std::min(rows.rows(), static_cast<Index>(tuning().projected_rows));
  const Index columns = layers.weights(0).R.layout().columns();
  Count bytes = room.bytes() + size * (groups - 1) * projected * columns * config.cells() +
                size * threads * ThreadBuffers<T>::sums_values(layers, rows) +
                Count(threads) * ThreadBuffers<T>::converted_bytes(layers, rows);
  if (regularisation.dropout > 0 && config.num_layers > 1) {
    bytes = bytes + width * rows.rows() * size;
  }
  if (config.merge != Merge::kConcat) bytes = bytes + width * rows.rows() * size;
  return bytes;
}

#define FASTLSTM_INSTANTIATE(T)                                                             \
  template void forward_layers(const Layers<T>&, const ForwardCall<T>&, const RowSchedule&, \
                               Saved<T>*);                                                  \
  template Count forward_bytes(const Layers<T>&, const RowSchedule&, const Regularisation&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

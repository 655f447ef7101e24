#include <deque>
#include <vector>

#include "rnn/cell_on_tiles.hpp"
#include "rnn/dropout.hpp"
#include "rnn/stack_forward.hpp"
#include "rnn/thread_plan.hpp"
#include "runtime/interrupt.hpp"

namespace fastlstm {

namespace {

/// Rows that a layer computes before the next one follows, where layers alternate in time: what
/// passes between them then stays in the caches, and the memory for it does not grow with T.
constexpr Index kAlternateRows = 384;

/// Blocks of steps for each thread that owns layers: many, since it waits for as many blocks as
/// there are layers below, but not of so few rows that projecting their inputs suffers.
constexpr Index kBlocksPerOwner = 4;

/// A call is divided in time, so that it can be interrupted: products (multiply and add) that take
/// about a tenth of a second on one slow core.
constexpr double kProductsPerShare = 1e9;

/// Share number `index` of `count` of the steps: of all layers where they alternate, and of one
/// layer otherwise.
struct Share {
  Index layer, index, count;

  StepRange of(Index n) const { return {n * index / count, n * (index + 1) / count}; }
  bool last() const { return index + 1 == count; }
};

/// Whether the layers take turns in time: with one direction and nothing to do between layers.
/// Otherwise a layer needs all of the one below before it can start. saved: null in inference.
template <class T>
bool layers_alternate(const StackConfig& config, Saved<T>* saved) {
  return config.directions() == 1 && (saved == nullptr || saved->dropout.p == 0);
}

/// The shares of a call, in order.
std::vector<Share> shares_of(const StackConfig& config, const RowSchedule& rows, bool alternate) {
  const Index layers = alternate ? 1 : config.num_layers;
  const double wanted = products_of(config, rows) / static_cast<double>(layers) / kProductsPerShare;
  const Index count =
      std::max<Index>(1, static_cast<Index>(std::min(wanted, static_cast<double>(rows.steps()))));
  std::vector<Share> shares;
  for (Index layer = 0; layer < layers; ++layer) {
    for (Index index = 0; index < count; ++index) shares.push_back({layer, index, count});
  }
  return shares;
}

/// The threads that go through all layers for one share of the rows, and what they share.
template <class T>
class RowGroup {
 public:
  RowGroup(const Stack<T>& stack, const ForwardCall<T>& call, RowSchedule rows,
           const ThreadPlan& plan, Saved<T>* saved, T* dropped)
      : stack_(stack),
        call_(call),
        plan_(plan),
        alternate_(layers_alternate<T>(stack.config(), saved)),
        rows_(std::move(rows)),
        saved_(saved),
        dropped_(dropped),
        barrier_(plan.threads_of_rows()) {
    const StackConfig& config = stack.config();
    const Index D = config.directions();
    for (Index k = 0; k < config.cells(); ++k) {
      cells_.emplace_back(
          stack.weights(k), rows_, config.runs_backward(k % D),
          CellNoise<T>(config, k, saved != nullptr ? &saved->dropout : nullptr, rows_));
      cells_.back().set_state(call.h_0 ? call.h_0 + k * call.B * config.output_size() : nullptr,
                              call.c_0 ? call.c_0 + k * call.B * config.c_size() : nullptr);
    }
    for (int owner = 0; owner < plan.directions * plan.layers; ++owner) {
      step_barriers_.emplace_back(plan.units);
    }
    for (int thread = 0; thread < plan.threads_of_rows(); ++thread) {
      scratch_.emplace_back(TileCell<T>::scratch_rows(rows_));
    }
    const Index at_once = TileCell<T>::projected_steps(rows_);
    block_steps_ = rows_.steps();
    if (alternate_ && rows_.B() > 0) {
      const Index steps = std::max<Index>(1, kAlternateRows / rows_.B() / at_once) * at_once;
      block_steps_ = std::min(block_steps_, steps);
      if (plan.layers > 1) {
        const Index blocks = kBlocksPerOwner * plan.layers;
        block_steps_ = std::min(block_steps_, (rows_.steps() + blocks - 1) / blocks);
      }
    }
    if (saved == nullptr) {
      const Index buffers =
          plan.layers > 1 ? 2 * (config.num_layers - 1) : std::min<Index>(config.num_layers - 1, 2);
      for (Index k = 0; k < buffers; ++k) {
        between_.emplace_back(block_steps_ * rows_.B(), D * config.output_size());
      }
    }
  }

  /// What thread `rank` of the group does for a share of the call. Allocates nothing.
  void run(const Share& share, int rank) noexcept {
    const Index steps = rows_.steps();
    if (!alternate_) {
      const Part part{rank, plan_.threads_of_rows(), &barrier_};
      const bool first = share.layer == 0 && share.index == 0;
      const bool last = share.layer + 1 == stack_.config().num_layers && share.last();
      if (first) save_input({0, steps}, part);
      run_layer(share.layer, share.of(steps), rank);
      if (share.last() && drops(share.layer)) drop(share.layer, rank);
      if (last) give_output({0, steps}, part);
      return;
    }
    const StepRange blocks =
        share.of((steps + block_steps_ - 1) / std::max<Index>(1, block_steps_));
    const Index owner = plan_.layers > 1 ? rank / plan_.units : 0;
    const Index layers = stack_.config().num_layers / plan_.layers;
    // Each owner of layers is one block behind the owner of those below.
    for (Index wave = blocks.first; wave < blocks.end + plan_.layers - 1; ++wave) {
      const Index block = wave - owner;
      if (blocks.first <= block && block < blocks.end) {
        const StepRange range{block * block_steps_, std::min((block + 1) * block_steps_, steps)};
        if (owner == 0) save_input(times(range), part_of(rank));
        for (Index layer = owner * layers; layer < (owner + 1) * layers; ++layer) {
          run_layer(layer, range, rank);
        }
        if (owner + 1 == plan_.layers) give_output(times(range), part_of(rank));
      }
      if (plan_.layers > 1) barrier_.wait();  // at the ends for a whole block
    }
  }

  void get_state() const {
    const StackConfig& config = stack_.config();
    for (Index k = 0; k < config.cells(); ++k) {
      cells_[static_cast<std::size_t>(k)].get_state(call_.h_n + k * call_.B * config.output_size(),
                                                    call_.c_n + k * call_.B * config.c_size());
    }
  }

 private:
  Index width() const { return stack_.config().directions() * stack_.config().output_size(); }

  /// The share of thread `rank` in the units of the direction or layers that it owns.
  Part part_of(int rank) {
    const auto owner = static_cast<std::size_t>(rank / plan_.units);
    return {rank % plan_.units, plan_.units, plan_.units > 1 ? &step_barriers_[owner] : nullptr};
  }

  /// The steps in the order of time, of some in the order of computation, with one direction.
  StepRange times(StepRange steps) const {
    if (!stack_.config().runs_backward(0)) return steps;
    return {rows_.steps() - steps.end, rows_.steps() - steps.first};
  }

  /// In training: copies the input at these times to what is saved, before it is read there. Where
  /// layers alternate these are few steps, which then are still in the cache. part: of the threads
  /// that share it, and read it.
  void save_input(StepRange times, const Part& part) noexcept {
    if (saved_ == nullptr || call_.x.data == nullptr) return;
    const Index I = stack_.config().input_size;
    copy(times, RowView<const T>(call_.x), RowView<T>(saved_->x.data(), I), I, part);
    if (part.barrier != nullptr) part.barrier->wait();
  }

  /// In training: copies the last layer's output at these times to the caller's.
  void give_output(StepRange times, const Part& part) noexcept {
    if (saved_ == nullptr || call_.output.data == nullptr) return;
    const RowView<const T> saved(saved_->output(stack_.config().num_layers - 1), width());
    copy(times, saved, RowView<T>(call_.output), width(), part);
  }

  void copy(StepRange times, const RowView<const T>& from, const RowView<T>& to, Index n,
            const Part& part) noexcept {
    const auto [first, end] = part.range(times.end - times.first, 1);
    copy_steps(rows_, times.first + first, times.first + end, from, n, to);
  }

  void run_layer(Index layer, StepRange steps, int rank) noexcept {
    const int owner = rank / plan_.units;  // of a direction or of layers, if they are divided
    const Part part = part_of(rank);
    TileScratch<T>& scratch = scratch_[static_cast<std::size_t>(rank)];
    for (Index d = 0; d < stack_.config().directions(); ++d) {
      if (plan_.directions == 1 || d == owner) run_cell(layer, d, steps, part, scratch);
    }
    if (plan_.directions > 1) barrier_.wait();
  }

  void run_cell(Index layer, Index d, StepRange steps, const Part& part,
                TileScratch<T>& scratch) noexcept {
    const StackConfig& config = stack_.config();
    const Index k = layer * config.directions() + d;
    const RowView<T> output = layer_output(layer, steps);
    typename TileCell<T>::Run run{
        steps, layer_input(layer, steps), output.from_column(d * config.output_size()),
        saved_ ? saved_->gates(k) : nullptr, saved_ ? saved_->c(k) : nullptr};
    cells_[static_cast<std::size_t>(k)].run(run, part, scratch);
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
    if (layer + 1 == stack_.config().num_layers) return RowView<T>(call_.output);
    return between(layer, steps);
  }

  RowView<const T> layer_input(Index layer, StepRange steps) {
    if (layer == 0) {
      return saved_ ? RowView<const T>(saved_->x.data(), stack_.config().input_size)
                    : RowView<const T>(call_.x);
    }
    if (drops(layer - 1)) return RowView<const T>(dropped_, width());
    return layer_output(layer - 1, steps);
  }

  bool drops(Index layer) const {
    return saved_ != nullptr && saved_->dropout.p > 0 && layer + 1 < stack_.config().num_layers;
  }

  /// The next layer's input, by one thread of the group while the others wait.
  void drop(Index layer, int rank) noexcept {
    barrier_.wait();
    if (rank == 0) {
      drop_rows(rows_, saved_->dropout, layer, saved_->output(layer), width(), dropped_);
    }
    barrier_.wait();
  }

  const Stack<T>& stack_;
  const ForwardCall<T>& call_;
  const ThreadPlan plan_;
  const bool alternate_;
  const RowSchedule rows_;
  Saved<T>* const saved_;
  T* const dropped_;  // [rows, D * P] packed: a layer's input after dropout
  Index block_steps_ = 0;
  std::deque<TileCell<T>> cells_;
  std::vector<TileScratch<T>> scratch_;
  SpinBarrier barrier_;
  std::deque<SpinBarrier> step_barriers_;  // by direction or owner of layers
  std::vector<Buffer<T>> between_;
};

}  // namespace

template <class T>
void forward_on_tiles(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                      Saved<T>* saved) {
  const StackConfig& config = stack.config();
  const Index width = config.directions() * config.output_size();
  Buffer<T> dropped;
  if (saved != nullptr && saved->dropout.p > 0 && config.num_layers > 1) {
    dropped.resize(rows.rows(), width);
  }
  const bool alternate = layers_alternate<T>(config, saved);
  ThreadPlan plan = plan_threads(config, rows, alternate);
  TeamLease team(plan.threads());
  if (!team.granted()) plan = ThreadPlan{};  // another call has the team: this thread does it all
  std::deque<RowGroup<T>> groups;
  for (int g = 0; g < plan.rows; ++g) {
    groups.emplace_back(stack, call, RowSchedule(rows, g, plan.rows), plan, saved, dropped.data());
  }
  for (const Share& share : shares_of(config, rows, alternate)) {
    check_interrupt();
    team.run([&](int rank) noexcept {
      const int per_group = plan.threads_of_rows();
      groups[static_cast<std::size_t>(rank / per_group)].run(share, rank % per_group);
    });
  }
  for (const RowGroup<T>& group : groups) group.get_state();
  if (call.output.data != nullptr) clear_padding(rows, width, call.output);
}

#define FASTLSTM_INSTANTIATE(T)                                                              \
  template void forward_on_tiles(const Stack<T>&, const ForwardCall<T>&, const RowSchedule&, \
                                 Saved<T>*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

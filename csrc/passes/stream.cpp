#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "passes/cell_run.hpp"
#include "runtime/crowding.hpp"
#include "runtime/fixed_vector.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/spin_barrier.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

template <class T>
struct Stream<T>::State {
  State(std::shared_ptr<const Layers<T>> shared_layers, Index batch_size)
      : shared(std::move(shared_layers)),
        one_step(1, batch_size, nullptr),
        I(shared->config.input_size),
        P(shared->config.output_size()),
        runs(shared->config.num_layers) {
    const StackConfig& config = shared->config;
    Room room;
    for (Buffer<T>& buffer : between) room.add(buffer, B(), config.output_size());
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      runs.emplace_back(*shared, layer, one_step, nullptr, room);
    }
    const CallShape call(config, one_step, sizeof(T), true);
    spinners = plan_stream(call, false);
    sleepers = std::min(spinners, plan_stream(call, true));
    if (spinners > 1) barrier = std::make_unique<SpinBarrier>(1, spinners);
    for (int thread = 0; thread < spinners; ++thread) {
      buffers.emplace_back(*shared, one_step, room);
    }
    TeamLease(std::min(spinners, num_threads()));  // starts them: a step allocates nothing
    if (spinners == 1) plan();
  }

  Index B() const { return one_step.B(); }
  double products_per_step() const {
    return shared->config.products_per_row() * static_cast<double>(B());
  }

  /// x: [steps, B, I] in; out: [steps, B, P] out.
  void steps(Index n, const T* x, T* out) {
    if (planned()) return run_planned(n, {x, B() * I, I}, {out, B() * P, P});
    const FlushDenormals flush_denormals;
    for (Index t = 0; t < n; ++t) step(x + t * B() * I, out + t * B() * P);
  }

  /// Whether all that one thread does in a step is planned.
  bool planned() const { return !planned_.empty(); }

  /// Whether that is the fastest way to run so many: they are not worth a second thread, nor what a
  /// call over the whole sequence makes first.
  bool runs_planned(Index n) const {
    if (!planned()) return false;
    const Tuning& tuned = tuning();
    const double all = products_per_step() * static_cast<double>(n);
    if (all < tuned.products_per_thread) return true;
    const StackConfig& config = shared->config;
    if (config.num_layers > 1 || CellRun<T>::projects_inputs(I)) return false;
    const CallShape call(config, RowSchedule(n, B(), nullptr), sizeof(T), true);
    return all < tuned.products_per_stretch && plan_threads(call).threads() == 1;
  }

  /// Steps that are planned, without copies of h between layers: each reads that of the one below.
  ///
  /// FlushDenormals comes after all that needs no arithmetic: the CPU tells its mode when all that
  /// was computed before has ended, and what follows that waits, 5 ns of a step.
  void run_planned(Index steps, const SequenceView<const T>& x,
                   const SequenceView<T>& out) noexcept {
    const auto set_rows = [&](Index t) {
      for (std::size_t b = 0; b < inputs_.size(); ++b) {
        inputs_[b] = x.row(t, static_cast<Index>(b));
        outputs_[b] = out.row(t, static_cast<Index>(b));
      }
    };
    if (steps == 0) return;
    set_rows(0);
    const PlannedStep<T>*const first = planned_.data(), *const end = first + planned_.size();
    Index side = side_;
    side_ ^= steps & 1;
    const FlushDenormals flush_denormals;
    for (Index t = 0;;) {
      for (const PlannedStep<T>* layer = first; layer != end; ++layer) {
        layer->kernel(layer->calls[side]);
      }
      if (++t == steps) return;
      side ^= 1;
      set_rows(t);
    }
  }

  /// Tells the runs of the steps that were planned.
  void catch_up() {
    if (!planned() || runs.front().side(1) == side_) return;
    for (CellRun<T>& run : runs) run.restart();
  }

  void step(const T* x, T* out) {
    for (CellRun<T>& run : runs) run.restart();
    if (spinners == 1) {
      step({}, x, out);
      return;
    }
    TeamLease team(threads_now());
    barrier->set_size(team.threads());
    team.run([&](int rank) noexcept {
      step({rank, team.threads(), team.threads() > 1 ? barrier.get() : nullptr}, x, out);
    });
    ended = Clock::now();
  }

  using Clock = std::chrono::steady_clock;

  std::shared_ptr<const Layers<T>> shared;
  RowSchedule one_step;
  const Index I, P;
  Buffer<T> between[2];          // [B, P] outputs of layers below the last
  FixedVector<CellRun<T>> runs;  // by layer
  std::vector<ThreadBuffers<T>> buffers;
  std::unique_ptr<SpinBarrier> barrier;  // where several threads share a step
  int spinners = 1, sleepers = 1;  // threads worth their while that spin or sleep between steps
  Clock::time_point ended{};       // the last step

 private:
  void plan() {
    std::vector<PlannedStep<T>> layers;
    for (CellRun<T>& run : runs) {
      const std::optional<PlannedStep<T>> layer = run.plan(buffers.front());
      if (!layer.has_value()) return;
      layers.push_back(*layer);
    }
    const auto rows = static_cast<std::size_t>(B());
    inputs_.resize(rows);
    outputs_.resize(rows);
    between_rows_.resize(2 * rows * (layers.size() - 1));
    const T** rows_between = between_rows_.data();
    for (std::size_t k = 0; k < layers.size(); ++k) {
      for (const int side : {0, 1}) {
        CellStepTile<T>& call = layers[k].calls[side];
        call.x = inputs_.data();
        if (k + 1 == layers.size()) call.output = outputs_.data();
        if (k == 0) continue;
        const CellStepTile<T>& below = layers[k - 1].calls[side];
        for (Index b = 0; b < B(); ++b) rows_between[b] = below.h + b * below.ld_h;
        call.x = rows_between;
        rows_between += B();
      }
    }
    planned_ = std::move(layers);
    side_ = runs.front().side(1);
  }

  int threads_now() const {
    const std::chrono::microseconds just{static_cast<Clock::rep>(tuning().spinning_us)};
    const int worth = Clock::now() - ended < just ? spinners : sleepers;
    return threads_that_may_meet(std::min(worth, num_threads()));
  }

  void step(const Share& share, const T* x, T* out) noexcept {
    const StackConfig& config = shared->config;
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      const bool last = layer + 1 == config.num_layers;
      T* output = last ? out : between[layer % 2].data();
      runs[static_cast<std::size_t>(layer)].run(
          {{0, 1},
           RowView<const T>(SequenceView<const T>{x, 0, config.layer_input_size(layer)}),
           RowView<T>(SequenceView<T>{output, 0, P}),
           nullptr,
           nullptr},
          share, buffers[static_cast<std::size_t>(share.rank)]);
      x = output;
    }
  }

  std::vector<PlannedStep<T>> planned_;  // by layer; empty where a step is more
  Index side_ = 0;                       // which of their calls comes next
  std::vector<const T*> inputs_;         // [B] the rows that the first layer reads
  std::vector<const T*> between_rows_;   // [L - 1][2][B] those of the others
  std::vector<T*> outputs_;              // [B] the rows that the last layer writes
};

template <class T>
Stream<T>::Stream(const Stack<T>& stack, Index batch_size) {
  if (stack.config().bidirectional || stack.config().reverse) {
    throw std::invalid_argument("stream: a layer that reads from the end cannot stream");
  }
  if (batch_size < 1) throw std::invalid_argument("stream: batch_size must be at least 1");
  auto layers = std::make_shared<Layers<T>>(*stack.layers_);  // with the same weights
  layers->spare =
      std::make_shared<Spare<SavedArrays<T>>>();  // those of training are the stack's to keep
  state_ = std::make_unique<State>(std::move(layers), batch_size);
}

template <class T>
Stream<T>::Stream(Stream&&) noexcept = default;
template <class T>
Stream<T>::~Stream() = default;

template <class T>
void Stream<T>::step(const T* x, T* out) {
  step(x, out, 1);
}

template <class T>
void Stream<T>::step(const T* x, T* out, Index steps) {
  state_->steps(steps, x, out);
}

template <class T>
void Stream<T>::run(Index steps, SequenceView<const T> x, SequenceView<T> output) {
  if (state_->runs_planned(steps) && !x.packed && !output.packed) {
    return state_->run_planned(steps, x, output);
  }
  const Index cells = config().cells();
  std::vector<Buffer<T>> arrays;
  ForwardCall<T> call;
  call.steps = steps;
  call.B = batch_size();
  call.x = x;
  call.output = output;
  for (const StatePart& part : config().state_parts()) {
    const std::size_t p = arrays.size();
    arrays.emplace_back(cells * call.B, part.width);
    call.state_0[p] = call.state_n[p] = arrays.back().data();
  }
  get_state(call.state_n);
  Stack<T>(state_->shared).forward(call);
  set_state(call.state_0);
}

template <class T>
void Stream<T>::get_state(T* const* parts) const {
  const StackConfig& c = config();
  T* arrays[kMostStateParts] = {};
  std::copy_n(parts, c.memory_parts() + 1, arrays);
  state_->catch_up();
  for (Index layer = 0; layer < c.num_layers; ++layer) {
    state_->runs[static_cast<std::size_t>(layer)].get_state(
        cell_state<T>(c, batch_size(), layer, arrays));
  }
}

template <class T>
void Stream<T>::set_state(const T* const* parts) {
  const StackConfig& c = config();
  const T* arrays[kMostStateParts] = {};
  std::copy_n(parts, c.memory_parts() + 1, arrays);
  for (Index layer = 0; layer < c.num_layers; ++layer) {
    state_->runs[static_cast<std::size_t>(layer)].set_state(
        cell_state<const T>(c, batch_size(), layer, arrays));
  }
}

template <class T>
void Stream<T>::reorder(const Index* rows) {
  const Index B = batch_size(), cells = config().cells();
  bool moves = false;
  for (Index b = 0; b < B; ++b) moves = moves || rows[b] != b;
  if (!moves) return;
  std::vector<Buffer<T>> before, after;
  T* old_state[kMostStateParts] = {};
  const T* new_state[kMostStateParts] = {};
  for (const StatePart& part : config().state_parts()) {
    const std::size_t p = before.size();
    old_state[p] = before.emplace_back(cells * B, part.width).data();
    new_state[p] = after.emplace_back(cells * B, part.width).data();
  }
  get_state(old_state);
  for (std::size_t p = 0; p < before.size(); ++p) {
    const Index width = config().state_parts()[p].width;
    for (Index row = 0; row < cells * B; ++row) {
      const Index from = row / B * B + rows[row % B];
      std::copy_n(old_state[p] + from * width, width, after[p].data() + row * width);
    }
  }
  set_state(new_state);
}

template <class T>
bool Stream<T>::shares_steps() const {
  return state_->spinners > 1;
}

template <class T>
Index Stream<T>::batch_size() const {
  return state_->B();
}

template <class T>
const StackConfig& Stream<T>::config() const {
  return state_->shared->config;
}

template class Stream<float>;
template class Stream<double>;

}  // namespace fastlstm

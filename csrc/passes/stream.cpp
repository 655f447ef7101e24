#include <algorithm>
#include <chrono>
#include <deque>
#include <stdexcept>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "passes/cell_run.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

int threads_worth_of(double products, double per_thread) {
  return static_cast<int>(std::clamp(products / per_thread, 1.0, 64.0));
}

}  // namespace

template <class T>
struct Stream<T>::State {
  State(std::shared_ptr<const Layers<T>> shared_layers, Index batch_size)
      : shared(std::move(shared_layers)), one_step(1, batch_size, nullptr) {
    const StackConfig& config = shared->config;
    Room room;
    for (Buffer<T>& buffer : between) room.add(buffer, B(), config.output_size());
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      runs.emplace_back(*shared, layer, one_step, nullptr, room);
    }
    const double products = config.products_per_row() * static_cast<double>(B());
    spinners = threads_worth_of(products, tuning().products_per_spinner);
    sleepers = std::min(spinners, threads_worth_of(products, tuning().products_per_sleeper));
    for (int thread = 0; thread < spinners; ++thread) {
      buffers.emplace_back(*shared, one_step, room);
    }
    TeamLease(std::min(spinners, num_threads()));  // starts them: a step allocates nothing
  }

  Index B() const { return one_step.B(); }

  void step(const T* x, T* out) {
    for (CellRun<T>& run : runs) run.restart();
    if (spinners == 1) {
      step({}, x, out);
      return;
    }
    TeamLease team(threads_now());
    SpinBarrier barrier(team.threads());
    team.run([&](int rank) noexcept {
      step({rank, team.threads(), team.threads() > 1 ? &barrier : nullptr}, x, out);
    });
    ended = Clock::now();
  }

  using Clock = std::chrono::steady_clock;

  std::shared_ptr<const Layers<T>> shared;
  RowSchedule one_step;
  Buffer<T> between[2];         // [B, P] outputs of layers below the last
  std::deque<CellRun<T>> runs;  // by layer
  std::vector<ThreadBuffers<T>> buffers;
  int spinners = 1, sleepers = 1;  // threads worth their while that spin or sleep between steps
  Clock::time_point ended{};       // the last step

 private:
  int threads_now() const {
    if (cpus_are_crowded()) return 1;
    const std::chrono::microseconds just{static_cast<Clock::rep>(tuning().spinning_us)};
    return std::min(Clock::now() - ended < just ? spinners : sleepers, num_threads());
  }

  void step(const Share& share, const T* x, T* out) noexcept {
    const StackConfig& config = shared->config;
    const Index P = config.output_size();
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
  const FlushDenormals flush_denormals;
  state_->step(x, out);
}

template <class T>
void Stream<T>::run(Index steps, SequenceView<const T> x, SequenceView<T> output) {
  const Index cells = config().cells();
  std::vector<Buffer<T>> arrays;
  ForwardCall<T> call;
  call.steps = steps;
  call.B = batch_size();
  call.x = x;
  call.output = output;
  // Each layer's initial state is read before its final one is written over it.
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

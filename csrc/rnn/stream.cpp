#include <algorithm>
#include <chrono>
#include <deque>
#include <stdexcept>
#include <utility>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "rnn/cell_on_blas.hpp"
#include "rnn/cell_on_tiles.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

template <class T>
struct Stream<T>::State {
  State(const Stack<T>& stack_, Index B) : stack(stack_), one_step(1, B, nullptr) {
    for (Buffer<T>& buffer : between) buffer.resize(B, stack.config().output_size());
  }
  virtual ~State() = default;

  virtual void step(const T* x, T* out) = 0;
  virtual void get_state(T* h, T* c) const = 0;
  virtual void set_state(const T* h, const T* c) = 0;

  Index B() const { return one_step.B(); }
  /// The output of a layer: the caller's for the last.
  T* output_of(Index layer, T* out) {
    return layer + 1 == stack.config().num_layers ? out : between[layer % 2].data();
  }

  Stack<T> stack;
  RowSchedule one_step;
  Buffer<T> between[2];  // [B, P] outputs of layers below the last
};

namespace {

template <class T>
class StreamOnBlas : public Stream<T>::State {
 public:
  StreamOnBlas(const Stack<T>& layers, Index B)
      : Stream<T>::State(layers, B),
        workspace_(layers.config(), this->one_step, false),
        h_(layers.config().num_layers * B, layers.config().output_size()),
        c_(layers.config().num_layers * B, layers.config().c_size()) {
    h_.fill_zero();
    c_.fill_zero();
  }

  void step(const T* x, T* out) override {
    const SingleThreadedBlas single_threaded_blas;
    TeamLease team(1);
    const StackConfig& config = this->stack.config();
    const Index P = config.output_size(), B = this->B();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      T* output = this->output_of(layer, out);
      direction_forward<T>({this->stack.weights(layer), this->one_step,
                            CellNoise<T>(config, layer, nullptr, this->one_step), false, x,
                            h_.data() + layer * B * P, c_.data() + layer * B * config.c_size(),
                            output, P, nullptr, nullptr, workspace_, team});
      x = output;
    }
  }
  void get_state(T* h, T* c) const override {
    std::copy_n(h_.data(), h_.size(), h);
    std::copy_n(c_.data(), c_.size(), c);
  }
  void set_state(const T* h, const T* c) override {
    std::copy_n(h, h_.size(), h_.data());
    std::copy_n(c, c_.size(), c_.data());
  }

 private:
  BlasWorkspace<T> workspace_;
  Buffer<T> h_;  // [L, B, P]
  Buffer<T> c_;  // [L, B, H]; empty without c
};

// Products per step and thread that pay for a thread which spins, since the last step has just
// ended (about 3 us of work), and for waking one that has gone to sleep (about 80 us).
constexpr double kProductsPerSpinner = 8e4;
constexpr double kProductsPerSleeper = 2e6;
// Workers spin for longer than this after a step.
constexpr std::chrono::microseconds kJustEnded{20};

int threads_worth_of(double products, double per_thread) {
  return static_cast<int>(std::clamp(products / per_thread, 1.0, 64.0));
}

template <class T>
class StreamOnTiles : public Stream<T>::State {
 public:
  StreamOnTiles(const Stack<T>& layers, Index B) : Stream<T>::State(layers, B) {
    const StackConfig& config = layers.config();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_.emplace_back(this->stack.weights(layer), this->one_step, false,
                          CellNoise<T>(config, layer, nullptr, this->one_step));
    }
    const double products = config.products_per_row() * static_cast<double>(B);
    spinners_ = threads_worth_of(products, kProductsPerSpinner);
    sleepers_ = threads_worth_of(products, kProductsPerSleeper);
    for (int thread = 0; thread < spinners_; ++thread) {
      scratch_.emplace_back(TileCell<T>::scratch_rows(this->one_step));
    }
    TeamLease(std::min(spinners_, num_threads()));  // starts them: a step allocates nothing
  }

  void step(const T* x, T* out) override {
    for (TileCell<T>& cell : cells_) cell.restart();
    if (spinners_ == 1) {
      run({}, x, out);
      return;
    }
    TeamLease team(threads_now());
    SpinBarrier barrier(team.threads());
    team.run([&](int rank) noexcept {
      run({rank, team.threads(), team.threads() > 1 ? &barrier : nullptr}, x, out);
    });
    ended_ = Clock::now();
  }
  void get_state(T* h, T* c) const override {
    const StackConfig& config = this->stack.config();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_[static_cast<std::size_t>(layer)].get_state(
          h + layer * this->B() * config.output_size(), c + layer * this->B() * config.c_size());
    }
  }
  void set_state(const T* h, const T* c) override {
    const StackConfig& config = this->stack.config();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_[static_cast<std::size_t>(layer)].set_state(
          h + layer * this->B() * config.output_size(), c + layer * this->B() * config.c_size());
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  int threads_now() const {
    if (cpus_are_crowded()) return 1;
    return std::min(Clock::now() - ended_ < kJustEnded ? spinners_ : sleepers_, num_threads());
  }

  void run(const Part& part, const T* x, T* out) noexcept {
    const StackConfig& config = this->stack.config();
    const Index P = config.output_size();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      T* output = this->output_of(layer, out);
      cells_[static_cast<std::size_t>(layer)].run(
          {{0, 1},
           RowView<const T>(SequenceView<const T>{x, 0, config.layer_input_size(layer)}),
           RowView<T>(SequenceView<T>{output, 0, P}),
           nullptr,
           nullptr},
          part, scratch_[static_cast<std::size_t>(part.rank)]);
      x = output;
    }
  }

  std::deque<TileCell<T>> cells_;  // by layer
  std::vector<TileScratch<T>> scratch_;
  int spinners_ = 1, sleepers_ = 1;  // threads worth their while that spin or sleep between steps
  Clock::time_point ended_{};        // the last step
};

}  // namespace

template <class T>
Stream<T>::Stream(const Stack<T>& stack, Index batch_size) {
  if (stack.config().bidirectional || stack.config().reverse) {
    throw std::invalid_argument("stream: a layer that reads from the end cannot stream");
  }
  if (batch_size < 1) throw std::invalid_argument("stream: batch_size must be at least 1");
  if (active_target().tiles) {
    state_ = std::make_unique<StreamOnTiles<T>>(stack, batch_size);
  } else {
    require_blas();
    state_ = std::make_unique<StreamOnBlas<T>>(stack, batch_size);
  }
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
void Stream<T>::run(Index T_, SequenceView<const T> x, SequenceView<T> output) {
  const StackConfig& c = config();
  Buffer<T> h(c.num_layers * batch_size(), c.output_size());
  Buffer<T> cell(c.num_layers * batch_size(), c.c_size());
  get_state(h.data(), cell.data());
  // Each layer's initial state is read before its final one is written over it.
  state_->stack.forward(
      {T_, batch_size(), nullptr, x, h.data(), cell.data(), output, h.data(), cell.data()});
  set_state(h.data(), cell.data());
}

template <class T>
void Stream<T>::get_state(T* h, T* c) const {
  state_->get_state(h, c);
}

template <class T>
void Stream<T>::set_state(const T* h, const T* c) {
  state_->set_state(h, c);
}

template <class T>
Index Stream<T>::batch_size() const {
  return state_->B();
}

template <class T>
const StackConfig& Stream<T>::config() const {
  return state_->stack.config();
}

template class Stream<float>;
template class Stream<double>;

}  // namespace fastlstm

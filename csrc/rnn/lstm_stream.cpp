#include <deque>
#include <stdexcept>
#include <utility>
#include <vector>

#include "fastlstm/lstm.hpp"
#include "fastlstm/runtime.hpp"
#include "rnn/lstm_blas.hpp"
#include "rnn/lstm_tiles.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

template <class T>
struct LstmStream<T>::State {
  State(const Lstm<T>& lstm_, Index B) : lstm(lstm_), one_step(1, B, nullptr) {
    for (Buffer<T>& buffer : between) buffer.resize(B, lstm.config().output_size());
  }
  virtual ~State() = default;

  virtual void step(const T* x, T* out) = 0;
  virtual void get_state(T* h, T* c) const = 0;
  virtual void set_state(const T* h, const T* c) = 0;

  Index B() const { return one_step.B(); }
  /// The output of a layer: the caller's for the last.
  T* output_of(Index layer, T* out) {
    return layer + 1 == lstm.config().num_layers ? out : between[layer % 2].data();
  }

  Lstm<T> lstm;
  RowSchedule one_step;
  Buffer<T> between[2];  // [B, P] outputs of layers below the last
};

namespace {

template <class T>
class StreamOnBlas : public LstmStream<T>::State {
 public:
  StreamOnBlas(const Lstm<T>& layers, Index B)
      : LstmStream<T>::State(layers, B),
        workspace_(layers.config(), this->one_step, false),
        h_(layers.config().num_layers * B, layers.config().output_size()),
        c_(layers.config().num_layers * B, layers.config().hidden_size) {
    h_.fill_zero();
    c_.fill_zero();
  }

  void step(const T* x, T* out) override {
    const SingleThreadedBlas single_threaded_blas;
    TeamLease team(1);
    const LstmConfig& config = this->lstm.config();
    const Index P = config.output_size(), B = this->B();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      T* output = this->output_of(layer, out);
      lstm_direction_forward<T>({this->lstm.weights(layer), this->one_step, false, x,
                                 h_.data() + layer * B * P,
                                 c_.data() + layer * B * config.hidden_size, output, P, nullptr,
                                 nullptr, workspace_, team});
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
  LstmWorkspace<T> workspace_;
  Buffer<T> h_;  // [L, B, P]
  Buffer<T> c_;  // [L, B, H]
};

// Products per step and thread that pay for waking a thread, which between steps may have gone to
// sleep: about 80 us of work.
constexpr double kProductsPerThread = 2e6;

template <class T>
class StreamOnTiles : public LstmStream<T>::State {
 public:
  StreamOnTiles(const Lstm<T>& layers, Index B) : LstmStream<T>::State(layers, B) {
    const LstmConfig& config = layers.config();
    double products = 0;
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_.emplace_back(this->lstm.weights(layer), this->one_step, false);
      products += static_cast<double>(B * 4 * config.hidden_size) *
                  static_cast<double>(config.layer_input_size(layer) + config.output_size());
    }
    most_threads_ = static_cast<int>(std::max(1.0, std::min(64.0, products / kProductsPerThread)));
    for (int thread = 0; thread < most_threads_; ++thread) {
      scratch_.emplace_back(LstmTileCell<T>::scratch_rows(this->one_step));
    }
  }

  void step(const T* x, T* out) override {
    for (LstmTileCell<T>& cell : cells_) cell.restart();
    TeamLease team(most_threads_ == 1 ? 1 : std::min(most_threads_, num_threads()));
    SpinBarrier barrier(team.threads());
    team.run([&](int rank) noexcept {
      run({rank, team.threads(), team.threads() > 1 ? &barrier : nullptr}, x, out);
    });
  }
  void get_state(T* h, T* c) const override {
    const LstmConfig& config = this->lstm.config();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_[static_cast<std::size_t>(layer)].get_state(
          h + layer * this->B() * config.output_size(), c + layer * this->B() * config.hidden_size);
    }
  }
  void set_state(const T* h, const T* c) override {
    const LstmConfig& config = this->lstm.config();
    for (Index layer = 0; layer < config.num_layers; ++layer) {
      cells_[static_cast<std::size_t>(layer)].set_state(
          h + layer * this->B() * config.output_size(), c + layer * this->B() * config.hidden_size);
    }
  }

 private:
  void run(const Part& part, const T* x, T* out) noexcept {
    const LstmConfig& config = this->lstm.config();
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

  std::deque<LstmTileCell<T>> cells_;  // by layer
  std::vector<TileScratch<T>> scratch_;
  int most_threads_ = 1;
};

}  // namespace

template <class T>
LstmStream<T>::LstmStream(const Lstm<T>& lstm, Index batch_size) {
  if (lstm.config().bidirectional || lstm.config().reverse) {
    throw std::invalid_argument("stream: a layer that reads from the end cannot stream");
  }
  if (batch_size < 1) throw std::invalid_argument("stream: batch_size must be at least 1");
  if (active_target().tiles) {
    state_ = std::make_unique<StreamOnTiles<T>>(lstm, batch_size);
  } else {
    require_blas();
    state_ = std::make_unique<StreamOnBlas<T>>(lstm, batch_size);
  }
}

template <class T>
LstmStream<T>::LstmStream(LstmStream&&) noexcept = default;
template <class T>
LstmStream<T>::~LstmStream() = default;

template <class T>
void LstmStream<T>::step(const T* x, T* out) {
  const FlushDenormals flush_denormals;
  state_->step(x, out);
}

template <class T>
void LstmStream<T>::run(Index T_, SequenceView<const T> x, SequenceView<T> output) {
  const LstmConfig& c = config();
  Buffer<T> h(c.num_layers * batch_size(), c.output_size());
  Buffer<T> cell(c.num_layers * batch_size(), c.hidden_size);
  get_state(h.data(), cell.data());
  // Each layer's initial state is read before its final one is written over it.
  state_->lstm.forward(
      {T_, batch_size(), nullptr, x, h.data(), cell.data(), output, h.data(), cell.data()});
  set_state(h.data(), cell.data());
}

template <class T>
void LstmStream<T>::get_state(T* h, T* c) const {
  state_->get_state(h, c);
}

template <class T>
void LstmStream<T>::set_state(const T* h, const T* c) {
  state_->set_state(h, c);
}

template <class T>
Index LstmStream<T>::batch_size() const {
  return state_->B();
}

template <class T>
const LstmConfig& LstmStream<T>::config() const {
  return state_->lstm.config();
}

template class LstmStream<float>;
template class LstmStream<double>;

}  // namespace fastlstm

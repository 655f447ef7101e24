#include <stdexcept>
#include <utility>
#include <vector>

#include "fastlstm/lstm.hpp"
#include "rnn/lstm_direction.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

template <class T>
struct LstmStream<T>::State {
  State(const Lstm<T>& lstm_, Index B)
      : lstm(lstm_),
        one_step(1, B, nullptr),
        workspace(lstm.config(), one_step, false),
        h(lstm.config().num_layers * B, lstm.config().output_size()),
        c(lstm.config().num_layers * B, lstm.config().hidden_size) {
    h.fill_zero();
    c.fill_zero();
    for (Buffer<T>& buffer : between) buffer.resize(B, lstm.config().output_size());
  }

  Lstm<T> lstm;
  RowSchedule one_step;
  LstmWorkspace<T> workspace;
  Buffer<T> h, c;
  Buffer<T> between[2];  // outputs of layers below the last
};

template <class T>
LstmStream<T>::LstmStream(const Lstm<T>& lstm, Index batch_size) {
  if (lstm.config().bidirectional || lstm.config().reverse) {
    throw std::invalid_argument("stream: a layer that reads from the end cannot stream");
  }
  if (batch_size < 1) throw std::invalid_argument("stream: batch_size must be at least 1");
  state_ = std::make_unique<State>(lstm, batch_size);
}

template <class T>
LstmStream<T>::LstmStream(LstmStream&&) noexcept = default;
template <class T>
LstmStream<T>::~LstmStream() = default;

template <class T>
void LstmStream<T>::step(const T* x, T* out) {
  const FlushDenormals flush_denormals;
  const BlasThreads blas_threads;
  State& s = *state_;
  const LstmConfig& config = s.lstm.config();
  const Index B = batch_size(), P = config.output_size(), H = config.hidden_size;
  for (Index layer = 0; layer < config.num_layers; ++layer) {
    T* output = layer + 1 == config.num_layers ? out : s.between[layer % 2].data();
    lstm_direction_forward<T>({s.lstm.weights(layer), s.one_step, false, x,
                               s.h.data() + layer * B * P, s.c.data() + layer * B * H, output, P,
                               nullptr, nullptr, s.workspace});
    x = output;
  }
}

template <class T>
void LstmStream<T>::run(Index T_, SequenceView<const T> x, SequenceView<T> output) {
  State& s = *state_;
  // forward reads an initial state row by row before it writes the final one over it.
  s.lstm.forward({T_, batch_size(), nullptr, x, h(), c(), output, h(), c()});
}

template <class T>
T* LstmStream<T>::h() {
  return state_->h.data();
}

template <class T>
T* LstmStream<T>::c() {
  return state_->c.data();
}

template <class T>
Index LstmStream<T>::batch_size() const {
  return state_->one_step.B();
}

template <class T>
const LstmConfig& LstmStream<T>::config() const {
  return state_->lstm.config();
}

template class LstmStream<float>;
template class LstmStream<double>;

}  // namespace fastlstm

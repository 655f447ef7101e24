#include "fastlstm/lstm.hpp"

#include <limits>
#include <stdexcept>
#include <utility>

#include "rnn/lstm_forward.hpp"
#include "rnn/lstm_saved.hpp"
#include "rnn/lstm_weights.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

void check(const LstmConfig& c) {
  // BLAS counts in 32-bit integers, and a row of all gates is the longest thing that it sees.
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 8;
  const auto in_range = [](Index n, Index least) { return least <= n && n <= kMost; };
  if (!in_range(c.input_size, 1) || !in_range(c.hidden_size, 1) || !in_range(c.num_layers, 1) ||
      !in_range(c.proj_size, 0) || c.proj_size >= c.hidden_size + (c.proj_size == 0) ||
      (c.bidirectional && c.reverse)) {
    throw std::invalid_argument("LstmConfig: a size or an option is out of range");
  }
}

/// The stack's forward pass. saved: null in inference.
template <class T>
void forward_layers(const Lstm<T>& lstm, const LstmForward<T>& call, const RowSchedule& rows,
                    LstmSaved<T>* saved) {
  const FlushDenormals flush_denormals;
  if (active_target().tiles) {
    forward_on_tiles(lstm, call, rows, saved);
  } else {
    forward_on_blas(lstm, call, rows, saved);
  }
}

}  // namespace

template <class T>
Lstm<T>::Lstm(const LstmConfig& config, const LstmParams<const T>* params) : config_(config) {
  check(config);
  for (Index k = 0; k < config.cells(); ++k) {
    weights_.push_back(
        std::make_shared<const LstmWeights<T>>(config, k / config.directions(), params[k]));
  }
}

template <class T>
Lstm<T> Lstm<T>::with_params(Index k, const LstmParams<const T>& params) const {
  Lstm<T> other = *this;
  other.weights_[static_cast<std::size_t>(k)] =
      std::make_shared<const LstmWeights<T>>(config_, k / config_.directions(), params);
  return other;
}

template <class T>
void Lstm<T>::forward(const LstmForward<T>& call) const {
  forward_layers<T>(*this, call, RowSchedule(call.T_, call.B, call.lengths), nullptr);
}

template <class T>
LstmTape<T> Lstm<T>::forward_train(const LstmForward<T>& call, const LstmDropout& dropout) const {
  auto saved =
      std::make_unique<LstmSaved<T>>(*this, RowSchedule(call.T_, call.B, call.lengths), dropout);
  pack_rows(saved->rows, call.x, config_.input_size, saved->x.data());
  saved->save_state(call.h_0, call.c_0);
  forward_layers<T>(*this, call, saved->rows, saved.get());
  return LstmTape<T>(std::move(saved));
}

template class Lstm<float>;
template class Lstm<double>;

}  // namespace fastlstm

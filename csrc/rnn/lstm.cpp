#include "fastlstm/lstm.hpp"

#include <limits>
#include <stdexcept>
#include <utility>

#include "rnn/dropout.hpp"
#include "rnn/lstm_direction.hpp"
#include "rnn/lstm_saved.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"

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

/// The stack's forward pass: layer after layer, in packed order. saved: null in inference.
template <class T>
void forward_layers(const Lstm<T>& lstm, const LstmForward<T>& call, const RowSchedule& rows,
                    LstmSaved<T>* saved) {
  const FlushDenormals flush_denormals;
  const BlasThreads blas_threads;
  const LstmConfig& config = lstm.config();
  const Index D = config.directions(), P = config.output_size(), H = config.hidden_size;
  const Index width = D * P;
  LstmWorkspace<T> workspace(config, rows, saved != nullptr);

  Buffer<T> h(rows.B(), P), c(rows.B(), H);
  Buffer<T> packed_x, packed_output, dropped;
  // In inference the layers pass their rows on through two buffers, used in turn.
  Buffer<T> between[2];

  const T* layer_x = call.x.data;
  if (saved != nullptr) {
    layer_x = saved->x.data();
  } else if (!rows.is_packed(call.x, config.input_size)) {
    packed_x.resize(rows.rows(), config.input_size);
    pack_rows(rows, call.x, config.input_size, packed_x.data());
    layer_x = packed_x.data();
  }

  for (Index layer = 0; layer < config.num_layers; ++layer) {
    const bool last = layer + 1 == config.num_layers;
    const bool direct = last && saved == nullptr && rows.is_packed(call.output, width);
    T* layer_output = direct ? call.output.data : nullptr;
    if (saved != nullptr) {
      layer_output = saved->output(layer);
    } else if (!direct) {
      Buffer<T>& buffer = between[layer % 2];
      if (buffer.size() == 0) buffer.resize(rows.rows(), width);
      layer_output = buffer.data();
    }
    for (Index d = 0; d < D; ++d) {
      const Index k = layer * D + d;
      const Index state_h = k * rows.B() * P, state_c = k * rows.B() * H;
      sort_state(rows, call.h_0 ? call.h_0 + state_h : nullptr, P, h.data());
      sort_state(rows, call.c_0 ? call.c_0 + state_c : nullptr, H, c.data());
      if (saved != nullptr) saved->save_state(k, h.data(), c.data());
      lstm_direction_forward<T>({lstm.weights(k), rows, config.runs_backward(d), layer_x, h.data(),
                                 c.data(), layer_output + d * P, width,
                                 saved ? saved->gates(k) : nullptr, saved ? saved->c(k) : nullptr,
                                 workspace});
      unsort_state(rows, h.data(), P, call.h_n + state_h);
      unsort_state(rows, c.data(), H, call.c_n + state_c);
    }
    if (last && !direct) unpack_rows(rows, layer_output, width, call.output);
    layer_x = layer_output;
    if (!last && saved != nullptr && saved->dropout.p > 0) {
      if (dropped.size() == 0) dropped.resize(rows.rows(), width);
      drop_rows(rows, saved->dropout, layer, layer_output, width, dropped.data());
      layer_x = dropped.data();
    }
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
  forward_layers<T>(*this, call, saved->rows, saved.get());
  return LstmTape<T>(std::move(saved));
}

template class Lstm<float>;
template class Lstm<double>;

}  // namespace fastlstm

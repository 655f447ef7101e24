// The LSTM for C++ callers: inference, training and streaming.
//
// Equations (Gers, Schmidhuber, Cummins 2000; PyTorch's names, gates in the order i f g o):
//   i = sigmoid(W_i x + b_Wi + R_i h' + b_Ri)      input gate
//   f = sigmoid(W_f x + b_Wf + R_f h' + b_Rf)      forget gate
//   g = tanh   (W_g x + b_Wg + R_g h' + b_Rg)      candidate
//   o = sigmoid(W_o x + b_Wo + R_o h' + b_Ro)      output gate
//   c = f c' + i g                                 cell state
//   h = o tanh(c), or W_hr (o tanh(c)) with a projection (Sak et al. 2014)
// with h', c' the values of the step before.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fastlstm/types.hpp"

namespace fastlstm {

struct LstmConfig {
  Index input_size = 0;
  Index hidden_size = 0;
  Index num_layers = 1;
  Index proj_size = 0;  // 0: no projection
  bool bidirectional = false;
  bool reverse = false;  // one direction only, from the end of each sequence to its start

  Index directions() const { return bidirectional ? 2 : 1; }
  Index cells() const { return num_layers * directions(); }  // pairs of layer and direction
  Index output_size() const { return proj_size ? proj_size : hidden_size; }
  Index layer_input_size(Index layer) const {
    return layer == 0 ? input_size : directions() * output_size();
  }
  /// Whether direction d of a layer runs from the end to the start.
  bool runs_backward(Index d) const { return reverse || d == 1; }
};

/// The parameters of one layer and direction, or their gradients, in PyTorch's layout (row-major).
/// A null pointer means that the parameter is absent.
template <class T>
struct LstmParams {
  T* weight_ih = nullptr;  // [4H, layer input]
  T* weight_hh = nullptr;  // [4H, P]
  T* bias_ih = nullptr;    // [4H]
  T* bias_hh = nullptr;    // [4H]
  T* weight_hr = nullptr;  // [P, H], with a projection only
};

/// Dropout between layers in training. The masks depend on the seed and the place alone.
struct LstmDropout {
  double p = 0.0;  // 0 <= p <= 1
  std::uint64_t seed = 0;
};

/// What one forward call reads and writes. States are contiguous, [L * D, B, P] for h and
/// [L * D, B, H] for c. Inputs and outputs must not overlap.
template <class T>
struct LstmForward {
  Index T_ = 0;
  Index B = 0;
  const Index* lengths = nullptr;  // [B] 0 <= length <= T_; null: all are T_
  SequenceView<const T> x;         // features: I
  const T* h_0 = nullptr;          // null: zeros
  const T* c_0 = nullptr;          // null: zeros
  SequenceView<T> output;          // features: D * P; rows past a sequence's end become zero
  T* h_n = nullptr;
  T* c_n = nullptr;
};

/// Gradients that come into and go out of one backward call; layouts as in LstmForward.
template <class T>
struct LstmBackward {
  SequenceView<const T> d_output;           // data null: zeros
  const T* d_h_n = nullptr;                 // null: zeros
  const T* d_c_n = nullptr;                 // null: zeros
  SequenceView<T> d_x;                      // data null: not computed; rows past an end become zero
  T* d_h_0 = nullptr;                       // written
  T* d_c_0 = nullptr;                       // written
  const LstmParams<T>* d_params = nullptr;  // [L * D]; added to
};

template <class T>
struct LstmWeights;
template <class T>
class Lstm;

/// What one training call saved: enough for its backward pass, and for looking at every gate.
/// It keeps the parameters it was computed with, whatever happens to the layer afterwards.
template <class T>
class LstmTape {
 public:
  struct Saved;
  explicit LstmTape(std::unique_ptr<Saved> saved);
  LstmTape(LstmTape&&) noexcept;
  ~LstmTape();

  /// Back-propagation through time. May be called again, with other gradients.
  void backward(const LstmBackward<T>& gradients) const;

  /// Saved values of cell k = layer * D + direction in time-major order; zero past an end.
  void copy_gates(Index k, T* gates) const;  // gates: [T, B, 4H] i f g o
  void copy_cells(Index k, T* c) const;      // c: [T, B, H]
  void copy_hidden(Index k, T* h) const;     // h: [T, B, P]

 private:
  std::unique_ptr<Saved> saved_;
};

/// A stack of LSTM layers with fixed parameters. Calls on one object may run at the same time.
template <class T>
class Lstm {
 public:
  /// params: [L * D], copied into the layout that the active kernels want.
  /// Throws std::invalid_argument where the configuration makes no sense.
  Lstm(const LstmConfig& config, const LstmParams<const T>* params);

  /// The same stack with other parameters for cell k; shares the copies of all other cells.
  Lstm with_params(Index k, const LstmParams<const T>& params) const;

  const LstmConfig& config() const { return config_; }

  void forward(const LstmForward<T>& call) const;
  /// As forward, with dropout, and saving what the backward pass needs.
  LstmTape<T> forward_train(const LstmForward<T>& call, const LstmDropout& dropout) const;

  const LstmWeights<T>& weights(Index k) const { return *weights_[static_cast<std::size_t>(k)]; }

 private:
  LstmConfig config_;
  std::vector<std::shared_ptr<const LstmWeights<T>>> weights_;
};

/// A stack that runs step by step and keeps its state. One thread at a time per object.
template <class T>
class LstmStream {
 public:
  struct State;
  /// Throws std::invalid_argument for a stack that reads sequences from their end.
  LstmStream(const Lstm<T>& lstm, Index batch_size);
  LstmStream(LstmStream&&) noexcept;
  ~LstmStream();

  /// One time step. Allocates nothing.
  /// x: [B, I] in; out: [B, P] out.
  void step(const T* x, T* out);
  /// T_ time steps. x.data: in; output.data: out.
  void run(Index T_, SequenceView<const T> x, SequenceView<T> output);

  /// h: [L, B, P], c: [L, B, H]
  void get_state(T* h, T* c) const;
  void set_state(const T* h, const T* c);

  Index batch_size() const;
  const LstmConfig& config() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace fastlstm

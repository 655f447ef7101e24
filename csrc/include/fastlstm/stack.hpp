// Stacks of recurrent layers for C++ callers: inference, training and streaming.
//
// x is the input of a step, h' and c' are the values of the step before. Gates stand in PyTorch's
// order in all arrays.
//
// LSTM (Gers, Schmidhuber, Cummins 2000), gates i f g o:
//   i = sigmoid(W_i x + b_Wi + R_i h' + b_Ri)      input gate
//   f = sigmoid(W_f x + b_Wf + R_f h' + b_Rf)      forget gate
//   g = tanh   (W_g x + b_Wg + R_g h' + b_Rg)      candidate
//   o = sigmoid(W_o x + b_Wo + R_o h' + b_Ro)      output gate
//   c = f c' + i g                                 cell state
//   h = o tanh(c), or W_hr (o tanh(c)) with a projection (Sak et al. 2014)
// and with layer normalisation (Ba, Kiros, Hinton 2016), where N subtracts from a vector the mean
// of its values and divides by sqrt(variance + 1e-5):
//   the sums of all gates are gain_ih N(W x) + gain_hh N(R h') + b_W + b_R
//   h = o tanh(gain_c N(c) + bias_c)
//
// GRU (Cho et al. 2014; the reset gate after the product, as in PyTorch), gates r z n:
//   r = sigmoid(W_r x + b_Wr + R_r h' + b_Rr)      reset gate
//   z = sigmoid(W_z x + b_Wz + R_z h' + b_Rz)      update gate
//   n = tanh(W_n x + b_Wn + r (R_n h' + b_Rn))     candidate
//   h = (1 - z) n + z h'
// and with the reset gate before the product:
//   n = tanh(W_n x + b_Wn + R_n (r h') + b_Rn)
//
// RNN (Elman 1990):
//   h = tanh(W x + b_W + R h' + b_R), or relu of it
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "fastlstm/activation.hpp"
#include "fastlstm/types.hpp"

namespace fastlstm {

enum class CellKind { kLstm, kGru, kGruResetBefore, kRnnTanh, kRnnRelu };

/// What changes a cell's equations. The defaults are the equations above.
struct CellOptions {
  Activation gate{ActivationKind::kSigmoid};              // of i, f, o, or r, z
  Activation candidate{ActivationKind::kTanh};            // of g or n; RNN: of the sum
  Activation hidden{ActivationKind::kTanh};               // of c on its way into h
  double clip = std::numeric_limits<double>::infinity();  // the bound of the gates' sums
  bool input_forget = false;                              // f = 1 - i
  double zoneout_h = 0;     // 0 <= p <= 1: the probability that a unit of h keeps its value
  double zoneout_c = 0;     // the same of c
  bool peepholes = false;   // p_i c', p_f c' and p_o c are added to the sums of i, f and o
  bool layer_norm = false;  // with zoneout alone of the others

  /// Whether the functions are the defaults, of sums without a bound.
  bool usual_functions() const {
    const CellOptions defaults;
    return gate == defaults.gate && candidate == defaults.candidate && hidden == defaults.hidden &&
           clip == defaults.clip;
  }
  /// Whether a step of the cell is that of the equations above.
  bool plain() const {
    return usual_functions() && !input_forget && !peepholes && !layer_norm && zoneout_c == 0;
  }
};

/// How the output is made of those of two directions: side by side, their sum, product or mean.
/// Layers above the first read them side by side.
enum class Merge { kConcat, kSum, kMul, kAve };

struct StackConfig {
  Index input_size = 0;
  Index hidden_size = 0;
  Index num_layers = 1;
  Index proj_size = 0;  // LSTM; 0: no projection
  bool bidirectional = false;
  bool reverse = false;  // one direction only, from the end of each sequence to its start
  CellKind cell = CellKind::kLstm;
  CellOptions options{};
  Merge merge = Merge::kConcat;
  Index first_cell = 0;  // of a stack that is a part of another: which of its cells comes first

  Index directions() const { return bidirectional ? 2 : 1; }
  Index cells() const { return num_layers * directions(); }  // pairs of layer and direction
  Index output_size() const { return proj_size ? proj_size : hidden_size; }
  /// The width of the output: D * P, or P where directions are merged.
  Index merged_size() const {
    return merge == Merge::kConcat ? directions() * output_size() : output_size();
  }
  Index layer_input_size(Index layer) const {
    return layer == 0 ? input_size : directions() * output_size();
  }
  /// The most values in a row of any layer's input.
  Index widest_input() const {
    const Index between = num_layers > 1 ? layer_input_size(1) : 0;
    return input_size > between ? input_size : between;
  }
  /// G, the rows of W and R for each hidden unit.
  Index gates() const {
    switch (cell) {
      case CellKind::kLstm:
        return 4;
      case CellKind::kGru:
      case CellKind::kGruResetBefore:
        return 3;
      default:
        return 1;
    }
  }
  /// The width of c: H, or 0 for cells without, whose pointers to c are all unused.
  Index c_size() const { return cell == CellKind::kLstm ? hidden_size : 0; }
  /// The values that training keeps of each unit and step, besides c and h: i f g o of an LSTM, or
  /// their sums where it has other functions, R h' with layer normalisation; r z n of a GRU, or
  /// their sums, and R_n h' + b_Rn where it resets after the product; none of an RNN, or its sum,
  /// or with zoneout h before it (when nothing is drawn, all units are mixed, and the slope does
  /// not follow from h).
  Index saved_gates() const {
    if (gates() == 1) return options.plain() && options.zoneout_h == 0 ? 0 : 1;
    return cell == CellKind::kGruResetBefore ? 3 : 4;
  }
  /// The multiply-adds of one step of one sequence through all layers, forward.
  double products_per_row() const {
    double inputs = 0;
    for (Index layer = 0; layer < num_layers; ++layer) {
      inputs += static_cast<double>(layer_input_size(layer) + output_size());
    }
    return static_cast<double>(directions() * gates() * hidden_size) * inputs;
  }
  /// Whether direction d of a layer runs from the end to the start.
  bool runs_backward(Index d) const { return reverse || d == 1; }
};

/// The parameters of one layer and direction, or their gradients, in PyTorch's layout (row-major).
/// A null pointer means that the parameter is absent.
template <class T>
struct CellParams {
  T* weight_ih = nullptr;        // [G H, layer input]
  T* weight_hh = nullptr;        // [G H, P]
  T* bias_ih = nullptr;          // [G H]
  T* bias_hh = nullptr;          // [G H]
  T* weight_hr = nullptr;        // [P, H], with a projection only
  T* weight_peephole = nullptr;  // [3H] i f o, with peepholes only
  // With layer normalisation only:
  T* weight_ln_ih = nullptr;  // [4H] gain_ih
  T* weight_ln_hh = nullptr;  // [4H] gain_hh
  T* weight_ln_c = nullptr;   // [H] gain_c
  T* bias_ln_c = nullptr;     // [H] bias_c; absent with the other biases
};

/// Regularisation in training. The masks depend on the seed, the place and the call's
/// number of steps alone.
struct Dropout {
  double p = 0.0;  // between layers; 0 <= p <= 1
  std::uint64_t seed = 0;
  double recurrent = 0.0;  // of the h that R reads: one mask of each row for all steps
  double weight = 0.0;     // of the values of R: one mask for the call
  bool zoneout = false;    // draws zoneout's units; otherwise all keep their mean part
};

/// What a training call is expected to take, beside the arrays that are passed to it.
struct TrainingMemory {
  Index bytes = 0;        // of the tape and the backward pass, at most at one time
  double extra_time = 0;  // of forward and backward, for what is computed twice: 0 to 1/3
};

/// What one forward call reads and writes. States are contiguous, [L * D, B, P] for h and
/// [L * D, B, H] for c. Inputs and outputs must not overlap.
template <class T>
struct ForwardCall {
  Index T_ = 0;
  Index B = 0;
  const Index* lengths = nullptr;  // [B] 0 <= length <= T_; null: all are T_
  SequenceView<const T> x;         // features: I
  const T* h_0 = nullptr;          // null: zeros
  const T* c_0 = nullptr;          // null: zeros
  SequenceView<T> output;          // features: merged_size; rows past a sequence's end become zero
  T* h_n = nullptr;
  T* c_n = nullptr;
};

/// Gradients that come into and go out of one backward call; layouts as in ForwardCall.
template <class T>
struct BackwardCall {
  SequenceView<const T> d_output;           // data null: zeros
  const T* d_h_n = nullptr;                 // null: zeros
  const T* d_c_n = nullptr;                 // null: zeros
  SequenceView<T> d_x;                      // data null: not computed; rows past an end become
                                            // zero; apart from d_output, which is read meanwhile
  T* d_h_0 = nullptr;                       // written; null: not asked for
  T* d_c_0 = nullptr;                       // written; null as d_h_0, and where there is no c
  const CellParams<T>* d_params = nullptr;  // [L * D]; added to; null ones: not computed
  // For looking inside, or null: gradients of the state after each step, as they come from the
  // steps that follow it; zero past an end.
  T* d_h_steps = nullptr;  // [L * D, T, B, P]
  T* d_c_steps = nullptr;  // [L * D, T, B, H]; where there is c
};

template <class T>
struct CellWeights;
template <class T>
struct InputWeights;
template <class T>
class Stack;

/// What one training call saved: enough for its backward pass, and for looking at every gate.
/// It keeps the parameters it was computed with, whatever happens to the layer afterwards.
template <class T>
class Tape {
 public:
  struct Saved;
  explicit Tape(std::unique_ptr<Saved> saved);
  Tape(Tape&&) noexcept;
  ~Tape();

  /// Back-propagation through time. May be called again, with other gradients.
  void backward(const BackwardCall<T>& gradients) const;

  /// Saved values of cell k = layer * D + direction in time-major order; zero past an end. Gates
  /// and c throw std::logic_error where the call was within a limit of memory.
  void copy_gates(Index k, T* gates) const;  // gates: [T, B, saved_gates * H]
  void copy_cells(Index k, T* c) const;      // c: [T, B, H]
  void copy_hidden(Index k, T* h) const;     // h: [T, B, P]

 private:
  std::unique_ptr<Saved> saved_;
};

/// A stack of layers with fixed parameters. Calls on one object may run at the same time.
template <class T>
class Stack {
 public:
  /// params: [L * D], copied into the layout that the active kernels want.
  /// Throws std::invalid_argument where the configuration makes no sense.
  Stack(const StackConfig& config, const CellParams<const T>* params);

  /// The same stack with other parameters for cell k; shares the copies of all other cells.
  /// input: the copy of other weights' weight_ih, to be shared instead of that of params; or null.
  Stack with_params(Index k, const CellParams<const T>& params,
                    std::shared_ptr<InputWeights<T>> input = nullptr) const;

  const StackConfig& config() const { return config_; }

  void forward(const ForwardCall<T>& call) const;
  /// As forward, with dropout, and saving what the backward pass needs: all of it, or as much as a
  /// limit in bytes allows, where the gradients are in the order of x's strides. The rest is
  /// computed again in the backward pass; no bit depends on it.
  /// 0: no limit. Throws std::invalid_argument for one that cannot be kept.
  Tape<T> forward_train(const ForwardCall<T>& call, const Dropout& dropout,
                        Index memory_limit = 0) const;
  /// What such a call will take. lengths: [B] or null. batch_first: the order of the call's arrays.
  TrainingMemory training_memory(Index T_, Index B, const Index* lengths, bool batch_first,
                                 const Dropout& dropout, Index memory_limit) const;

  /// Cell k alone, as a stack of one layer and direction.
  Stack cell(Index k) const;

  const CellWeights<T>& weights(Index k) const { return *weights_[static_cast<std::size_t>(k)]; }

  /// Memory of a training call that has ended, for the next one. This stack and those that share
  /// its weights have it together.
  struct SpareRoom;
  SpareRoom& spare_room() const { return *spare_room_; }

 private:
  StackConfig config_;
  std::shared_ptr<SpareRoom> spare_room_;
  std::vector<std::shared_ptr<const CellWeights<T>>> weights_;
};

/// A stack that runs step by step and keeps its state. One thread at a time per object.
template <class T>
class Stream {
 public:
  struct State;
  /// Throws std::invalid_argument for a stack that reads sequences from their end.
  Stream(const Stack<T>& stack, Index batch_size);
  Stream(Stream&&) noexcept;
  ~Stream();

  /// One time step. Allocates nothing after the first.
  /// x: [B, I] in; out: [B, P] out.
  void step(const T* x, T* out);
  /// T_ time steps. x.data: in; output.data: out.
  void run(Index T_, SequenceView<const T> x, SequenceView<T> output);

  /// h: [L, B, P], c: [L, B, H]
  void get_state(T* h, T* c) const;
  void set_state(const T* h, const T* c);

  Index batch_size() const;
  const StackConfig& config() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace fastlstm

// Stacks of recurrent layers for C++ callers: inference, training and streaming.
// fastlstm/config.hpp has the cells' equations, fastlstm/parameters.hpp their parameters.
#pragma once

#include <cstdint>
#include <memory>

#include "fastlstm/config.hpp"
#include "fastlstm/parameters.hpp"
#include "fastlstm/types.hpp"

namespace fastlstm {

/// Regularisation in training. The masks depend on the seed, the place and the call's
/// number of steps alone.
struct Regularisation {
  double dropout = 0.0;  // between layers; 0 <= p <= 1
  std::uint64_t seed = 0;
  double recurrent_dropout = 0.0;  // of the h that R reads: one mask of each row for all steps
  double weight_dropout = 0.0;     // of the values of R: one mask for the call
  bool zoneout = false;            // draws zoneout's units; otherwise all keep their mean part
};

/// What a training call is expected to take, beside the arrays that are passed to it.
struct TrainingMemory {
  Index bytes = 0;        // of the tape and the backward pass, at most at one time
  double extra_time = 0;  // of forward and backward, for what is computed twice: 0 to 1/3
};

/// What one forward call reads and writes. Inputs and outputs must not overlap. States are by part,
/// as StackConfig::state_parts says: contiguous, [L * D, B, width of the part].
template <class T>
struct ForwardCall {
  Index steps = 0;  // T
  Index B = 0;
  const Index* lengths = nullptr;          // [B] 0 <= length <= steps; null: all are of all steps
  SequenceView<const T> x;                 // features: I
  const T* state_0[kMostStateParts] = {};  // null: zeros
  SequenceView<T> output;  // features: merged_size; rows past a sequence's end become zero
  T* state_n[kMostStateParts] = {};  // out: all parts; they may be those of state_0
};

template <class T>
class CollectedGradients;

/// Gradients that come into and go out of one backward call; layouts as in ForwardCall.
template <class T>
struct BackwardCall {
  SequenceView<const T> d_output;            // data null: zeros
  const T* d_state_n[kMostStateParts] = {};  // null: zeros
  SequenceView<T> d_x;                       // data null: not computed; rows past an end become
                                             // zero; apart from d_output, which is read meanwhile
  T* d_state_0[kMostStateParts] = {};        // written, all parts or, if null, none
  const CellParams<T>* d_params = nullptr;   // [L * D]; added to; null, or null ones: not computed
  bool adds_to_d_params = true;              // false: they are written, whatever was there
  /// Takes the gradients of parameters instead, for the products of several calls at once
  /// (fastlstm/collected.hpp); or null. Then d_params is not read. Without weight dropout.
  CollectedGradients<T>* collected = nullptr;
  // For looking inside, or null: gradients of the state after each step, as they come from the
  // steps that follow it; zero past an end. [L * D, T, B, width], all parts or none.
  T* d_state_steps[kMostStateParts] = {};
};

template <class T>
struct Layers;  // packed weights and all that calls share
template <class T>
struct Saved;  // by a training call
template <class T>
class Stream;
template <class T>
class BorrowedParams;

/// What one training call saved: enough for its backward pass, and for looking at every gate.
/// It keeps the parameters it was computed with, whatever happens to the layer afterwards.
template <class T>
class Tape {
 public:
  explicit Tape(std::unique_ptr<Saved<T>> saved);
  Tape(Tape&&) noexcept;
  ~Tape();

  /// Back-propagation through time. May be called again, with other gradients. Throws
  /// std::logic_error where weights are small.
  void backward(const BackwardCall<T>& gradients) const;

  /// The values of a row of gates, and what training keeps beside them: of an LSTM 4H, i f g o; of
  /// a GRU 3H, r z n, or 4H, r z n and R_n h' + b_Rn; of an RNN none, or its sum.
  Index gates_width() const;
  /// Saved values of cell k = layer * D + direction in time-major order; zero past an end. Gates
  /// and parts of the state other than h throw std::logic_error where the call was within a limit
  /// of memory.
  void copy_gates(Index k, T* gates) const;               // gates: [T, B, gates_width]
  void copy_state(Index k, Index part, T* values) const;  // values: [T, B, width of the part]

 private:
  std::unique_ptr<Saved<T>> saved_;
};

/// A stack of layers with fixed parameters. Calls on one object may run at the same time; copies
/// share everything.
template <class T>
class Stack {
 public:
  /// params: [L * D], copied into the layout that the active kernels want.
  /// Throws std::invalid_argument where the configuration makes no sense.
  Stack(const StackConfig& config, const CellParams<const T>* params);

  /// The same of small weights, as config.arithmetic says: float32 alone, and not for training,
  /// though forward_train runs (without weight dropout), for looking at every gate. weights: [L *
  /// D]; params has the other parameters.
  Stack(const StackConfig& config, const CellParams<const T>* params, const SmallWeights* weights);

  /// The same stack with other parameters for cell k; shares the copies of all other cells. Not of
  /// small weights.
  Stack with_params(Index k, const CellParams<const T>& params) const;

  const StackConfig& config() const;

  void forward(const ForwardCall<T>& call) const;
  /// As forward, with regularisation, and saving what the backward pass needs: all of it, or as
  /// much as a limit in bytes allows, where the gradients are in the order of x's strides. The rest
  /// is computed again in the backward pass; no bit depends on it.
  /// 0: no limit. Throws std::invalid_argument for one that cannot be kept.
  Tape<T> forward_train(const ForwardCall<T>& call, const Regularisation& regularisation,
                        Index memory_limit = 0) const;
  /// What such a call will take. lengths: [B] or null. batch_first: the order of the call's arrays.
  TrainingMemory training_memory(Index steps, Index B, const Index* lengths, bool batch_first,
                                 const Regularisation& regularisation, Index memory_limit) const;

 private:
  friend class Stream<T>;
  friend class BorrowedParams<T>;
  explicit Stack(std::shared_ptr<const Layers<T>> layers);

  std::shared_ptr<const Layers<T>> layers_;
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
  /// x: [B, I] in; out: [B, P] out, apart from x.
  void step(const T* x, T* out);
  /// Some time steps, one after the other: as calls of step, less what each does around it.
  /// x: [steps, B, I] in; out: [steps, B, P] out, apart from x.
  void step(const T* x, T* out, Index steps);
  /// Some time steps, in the way that is fastest for so many, which may allocate and take threads.
  /// x.data: in; output.data: out.
  void run(Index steps, SequenceView<const T> x, SequenceView<T> output);

  /// parts: by part of the state, [L, B, width] each.
  void get_state(T* const* parts) const;
  void set_state(const T* const* parts);
  /// Row b goes on from what row rows[b] was. rows: [B] in, 0 <= rows[b] < B; any may repeat.
  void reorder(const Index* rows);

  /// Whether a step may take more threads than the caller's.
  bool shares_steps() const;
  Index batch_size() const;
  const StackConfig& config() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace fastlstm

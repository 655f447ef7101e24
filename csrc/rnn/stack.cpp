#include "fastlstm/stack.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "rnn/cell_weights.hpp"
#include "rnn/dropout.hpp"
#include "rnn/memory_plan.hpp"
#include "rnn/merge.hpp"
#include "rnn/saved.hpp"
#include "rnn/segments.hpp"
#include "rnn/stack_forward.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

void check(const StackConfig& c) {
  // BLAS counts in 32-bit integers, and a row of all gates is the longest thing that it sees.
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 8;
  const auto in_range = [](Index n, Index least) { return least <= n && n <= kMost; };
  const bool projects = c.proj_size > 0;
  if (!in_range(c.input_size, 1) || !in_range(c.hidden_size, 1) || !in_range(c.num_layers, 1) ||
      !in_range(c.proj_size, 0) || (projects && c.proj_size >= c.hidden_size) ||
      (c.cell != CellKind::kLstm && (projects || c.options.input_forget || c.options.peepholes ||
                                     c.options.layer_norm || c.options.zoneout_c > 0)) ||
      (c.options.layer_norm &&
       (!c.options.usual_functions() || c.options.input_forget || c.options.peepholes)) ||
      (c.bidirectional && c.reverse) || (c.merge != Merge::kConcat && !c.bidirectional)) {
    throw std::invalid_argument("StackConfig: a size or an option is out of range");
  }
}

/// The forward pass of all layers, whose output has both directions. saved: null in inference.
template <class T>
void forward_unmerged(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                      Saved<T>* saved) {
  const FlushDenormals flush_denormals;
  if (active_target().tiles) {
    forward_on_tiles(stack, call, rows, saved);
  } else {
    forward_on_blas(stack, call, rows, saved);
  }
}

}  // namespace

template <class T>
void forward_layers(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                    Saved<T>* saved) {
  const StackConfig& config = stack.config();
  if (config.merge == Merge::kConcat) return forward_unmerged(stack, call, rows, saved);
  const Index P = config.output_size();
  Buffer<T> both(call.T_ * call.B, 2 * P);
  ForwardCall<T> unmerged = call;
  unmerged.output = {both.data(), call.B * 2 * P, 2 * P};
  forward_unmerged(stack, unmerged, rows, saved);
  for (Index t = 0; t < call.T_; ++t) {
    for (Index b = 0; b < call.B; ++b) {
      merge_row<T>(config.merge, unmerged.output.row(t, b), P, call.output.row(t, b));
    }
  }
}

namespace {

/// The stack with weight dropout: other R, packed for one call.
template <class T>
Stack<T> with_dropped_weights(const Stack<T>& stack, const Dropout& dropout) {
  Stack<T> dropped = stack;
  for (Index k = 0; k < stack.config().cells(); ++k) {
    const CellWeights<T>& w = stack.weights(k);
    Buffer<T> R(w.GH, w.P), bias_hh(w.GH), peephole;  // bias holds what both biases add up to
    bias_hh.fill_zero();
    if (w.cell.resets) std::copy_n(w.bias_h.data(), w.H, bias_hh.data() + w.GH - w.H);
    drop_weights(dropout, k, w.GH, w.P, w.R.data(), R.data());
    CellParams<const T> params{nullptr, R.data(), w.bias.data(), bias_hh.data(), w.W_hr.data()};
    if (w.options.peephole != nullptr) {
      peephole.resize(3, w.H);
      for (Index gate = 0; gate < 3; ++gate) {
        std::copy_n(w.options.peephole + gate * w.options.ld_peephole, w.H,
                    peephole.data() + gate * w.H);
      }
      params.weight_peephole = peephole.data();
    }
    params.weight_ln_ih = w.norm.gain_x;
    params.weight_ln_hh = w.norm.gain_h;
    params.weight_ln_c = w.norm.gain_c;
    params.bias_ln_c = w.norm.bias_c;
    dropped = dropped.with_params(k, params, w.input);
  }
  return dropped;
}

}  // namespace

template <class T>
Stack<T>::Stack(const StackConfig& config, const CellParams<const T>* params)
    : config_(config), spare_room_(std::make_shared<SpareRoom>()) {
  check(config);
  for (Index k = 0; k < config.cells(); ++k) {
    weights_.push_back(
        std::make_shared<const CellWeights<T>>(config, k / config.directions(), params[k]));
  }
}

template <class T>
Stack<T> Stack<T>::with_params(Index k, const CellParams<const T>& params,
                               std::shared_ptr<InputWeights<T>> input) const {
  Stack<T> other = *this;
  other.weights_[static_cast<std::size_t>(k)] = std::make_shared<const CellWeights<T>>(
      config_, k / config_.directions(), params, std::move(input));
  return other;
}

template <class T>
Stack<T> Stack<T>::cell(Index k) const {
  Stack<T> alone = *this;
  alone.config_.input_size = config_.layer_input_size(k / config_.directions());
  alone.config_.num_layers = 1;
  alone.config_.bidirectional = false;
  alone.config_.merge = Merge::kConcat;
  alone.config_.first_cell += k;
  alone.config_.reverse = config_.runs_backward(k % config_.directions());
  alone.weights_ = {weights_[static_cast<std::size_t>(k)]};
  return alone;
}

template <class T>
void Stack<T>::forward(const ForwardCall<T>& call) const {
  forward_layers<T>(*this, call, RowSchedule(call.T_, call.B, call.lengths), nullptr);
}

template <class T>
Tape<T> Stack<T>::forward_train(const ForwardCall<T>& call, const Dropout& dropout,
                                Index memory_limit) const {
  RowSchedule rows(call.T_, call.B, call.lengths);
  const MemoryPlan plan = plan_memory(config_, rows, dropout, sizeof(T),
                                      rows.is_packed(call.x, config_.input_size), memory_limit);
  // Not under a limit, where memory that is kept but not used would count.
  const bool keeps = memory_limit == 0;
  if (keeps && plan.memory.bytes >= kMemoryToKeep) keep_released_memory();
  auto spare = spare_room_->take();
  if (!keeps) *spare = {};
  auto saved =
      std::make_unique<Saved<T>>(dropout.weight > 0 ? with_dropped_weights(*this, dropout) : *this,
                                 std::move(rows), dropout, !plan.in_segments, std::move(*spare));
  if (keeps) saved->spare = std::move(spare);
  if (plan.in_segments) {
    pack_rows(saved->rows, call.x, config_.input_size, saved->x.data());
    forward_in_segments(*saved, call, plan);
  } else {
    saved->save_state(call.h_0, call.c_0);
    forward_layers<T>(saved->stack, call, saved->rows, saved.get());
  }
  return Tape<T>(std::move(saved));
}

template <class T>
TrainingMemory Stack<T>::training_memory(Index T_, Index B, const Index* lengths, bool batch_first,
                                         const Dropout& dropout, Index memory_limit) const {
  const RowSchedule rows(T_, B, lengths);
  // Of arrays of one column, which stand for all.
  const SequenceView<T> callers{nullptr, batch_first ? 1 : B, batch_first ? T_ : 1};
  return plan_memory(config_, rows, dropout, sizeof(T), rows.is_packed(callers, 1), memory_limit)
      .memory;
}

#define FASTLSTM_INSTANTIATE(T)                                                            \
  template class Stack<T>;                                                                 \
  template void forward_layers(const Stack<T>&, const ForwardCall<T>&, const RowSchedule&, \
                               Saved<T>*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include <stdexcept>
#include <utility>

#include "fastlstm/stack.hpp"
#include "passes/backward.hpp"
#include "passes/direction_backward.hpp"
#include "passes/masks.hpp"
#include "passes/merge.hpp"
#include "passes/saved.hpp"
#include "passes/segments.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

template <class T>
Tape<T>::Tape(std::unique_ptr<Saved<T>> saved) : saved_(std::move(saved)) {}
template <class T>
Tape<T>::Tape(Tape&&) noexcept = default;
template <class T>
Tape<T>::~Tape() {
  if (saved_ == nullptr || saved_->spare == nullptr) return;
  *saved_->spare = saved_->leave_arrays();
  saved_->layers.spare->put(std::move(saved_->spare));
}

namespace {

/// A time-major [T, B, width] array.
template <class T>
SequenceView<T> time_major(const RowSchedule& rows, Index width, T* data) {
  return {data, rows.B() * width, width};
}

/// The same sequence from step t on. rows: of all its steps.
template <class T>
SequenceView<T> from_step(SequenceView<T> sequence, const RowSchedule& rows, Index t) {
  if (sequence.data == nullptr) return sequence;
  sequence.data += sequence.packed ? rows.offset(t) * sequence.stride_b : t * sequence.stride_t;
  return sequence;
}

/// The backward pass of all layers, cell by cell, segment by segment from the last.
template <class T>
class StackBackward {
 public:
  StackBackward(Saved<T>& saved, const BackwardCall<T>& call) : saved_(saved), call_(call) {
    const Index B = saved.rows.B();
    d_h_.resize(B, P_);
    d_memory_.resize(B, M_);
    if (apart_) d_h_past_R_.resize(B, P_);
    longest_.rows = saved.segments.empty() ? saved.rows.rows() : 0;
    for (const auto& of_cell : saved.segments) {
      for (const auto& s : of_cell) longest_.count(saved.rows, s.first, s.end, s.kept);
    }
  }

  void compute() {
    const RowSchedule& rows = saved_.rows;
    const Index lowest = lowest_layer();
    for (Index layer = config_.num_layers - 1; layer >= lowest; --layer) {
      Buffer<T> d_layer_x;
      if (layer > lowest) d_layer_x.resize(rows.rows(), width_);
      for (Index d = 0; d < D_; ++d) run_cell(layer, d, d_layer_x.data());
      if (layer > lowest && saved_.regularisation.dropout > 0) {
        in_region([&] {
          drop_rows(rows, saved_.regularisation, layer - 1, d_layer_x.data(), width_,
                    d_layer_x.data());
        });
      }
      d_layer_output_ = std::move(d_layer_x);
      d_output_ = {};
      d_both_ = {};
    }
    if (call_.d_x.data != nullptr) clear_padding(rows, config_.input_size, call_.d_x);
  }

 private:
  /// The lowest layer that something is asked of; those below it need not run.
  Index lowest_layer() const {
    if (call_.d_x.data != nullptr || call_.d_state_0[0] != nullptr || steps_wanted() ||
        call_.collected != nullptr) {
      return 0;
    }
    for (Index k = 0; call_.d_params != nullptr && k < config_.cells(); ++k) {
      for (const auto& parameter : parameters_of<T>(config_, k / D_)) {
        if (call_.d_params[k].*parameter.field != nullptr) return k / D_;
      }
    }
    return config_.num_layers;
  }
  /// Zeros for the gradients of a cell's parameters that are asked for.
  void clear(const CellParams<T>& d, Index layer) {
    in_region([&] {
      SmallItems asks;
      for (const auto& parameter : parameters_of<T>(config_, layer)) {
        T* const values = d.*parameter.field;
        const Index columns = parameter.size() / parameter.rows;
        for (Index row = 0; values != nullptr && row < parameter.rows; ++row) {
          if (asks.interrupted_before(columns)) return;
          std::fill_n(values + row * columns, columns, T(0));
        }
      }
    });
  }
  bool steps_wanted() const { return call_.d_state_steps[0] != nullptr; }

  void run_cell(Index layer, Index d, T* d_layer_x) {
    const Index k = layer * D_ + d, B = saved_.rows.B();
    sort_states(config_, saved_.rows, cell_state(config_, B, k, call_.d_state_n), d_h_.data(),
                d_memory_.data());
    if (apart_) d_h_past_R_.fill_zero();
    if (steps_wanted()) {
      d_h_steps_.resize(saved_.rows.rows(), P_);
      d_memory_steps_.resize(saved_.rows.rows(), M_);
    }
    const CellWeights<T>& w = saved_.layers.weights(k);
    const bool given = call_.d_params != nullptr && call_.collected == nullptr;
    d_params_ = given ? call_.d_params[k] : CellParams<T>{};
    if (!call_.adds_to_d_params) clear(d_params_, layer);
    Buffer<T> d_dropped_R;
    const bool drops_R = saved_.regularisation.weight_dropout > 0 && d_params_.weight_hh != nullptr;
    if (drops_R) {
      d_dropped_R.resize(w.GH, P_);
      d_dropped_R.fill_zero();
      d_params_.weight_hh = d_dropped_R.data();
    }
    run_segments(k, d_layer_x);
    for (Index j = 0; apart_ && j < B * P_; ++j) d_h_.data()[j] += d_h_past_R_.data()[j];
    if (drops_R) {
      for (Index row = 0; row < w.GH; ++row) {
        T* const dropped = d_dropped_R.data() + row * P_;
        drop_weights(saved_.regularisation, k, row, P_, dropped);
        T* const d_R = call_.d_params[k].weight_hh + row * P_;
        for (Index j = 0; j < P_; ++j) d_R[j] += dropped[j];
      }
    }
    if (call_.d_state_0[0] != nullptr) {
      unsort_states(config_, saved_.rows, d_h_.data(), d_memory_.data(),
                    cell_state(config_, B, k, call_.d_state_0));
    }
    if (steps_wanted()) give_steps(k);
  }

  /// The gradients of the state after each step of a cell.
  void give_steps(Index k) {
    const RowSchedule& rows = saved_.rows;
    const Index TB = rows.all_steps() * rows.B(), H = config_.hidden_size;
    unpack_rows(rows, d_h_steps_.data(), P_, P_,
                time_major(rows, P_, call_.d_state_steps[0] + k * TB * P_));
    for (Index m = 0; m < config_.memory_parts(); ++m) {
      unpack_rows(rows, d_memory_steps_.data() + m * H, M_, H,
                  time_major(rows, H, call_.d_state_steps[m + 1] + k * TB * H));
    }
  }

  void run_segments(Index k, T* d_layer_x) {
    const Index B = saved_.rows.B(), H = config_.hidden_size;
    if (saved_.segments.empty()) {
      run_steps(
          k, 0, saved_.rows,
          {nullptr, saved_.h_0_of(k), saved_.memory_0_of(k), saved_.gates(k), saved_.memory(k)},
          d_layer_x);
      return;
    }
    const auto& segments = saved_.segments[static_cast<std::size_t>(k)];
    if (arrays_.x.size() == 0 && longest_.again > 0) {
      Room room;
      Saved<T>::add_arrays(saved_.layers, longest_.again, longest_.again, arrays_, room);
    }
    for (auto s = segments.rbegin(); s != segments.rend(); ++s) {
      const RowSchedule rows = saved_.rows.steps_of(s->first, s->end);
      if (s->kept) {
        run_steps(k, s->first, rows,
                  {nullptr, s->h_0.data(), s->memory_0.data(), s->gates.data(), s->memory.data()},
                  d_layer_x);
        continue;
      }
      // The state before the segment, in the caller's order.
      Buffer<T> h(B, P_), memory(config_.memory_parts(), B * H);
      CellState<T> state{{h.data()}};
      for (Index m = 0; m < config_.memory_parts(); ++m) {
        state.part[m + 1] = memory.data() + m * B * H;
      }
      unsort_states<T>(config_, rows, s->h_0.data(), s->memory_0.data(), state);
      Saved<T> again = run_segment(saved_, k, s->first, s->end, state, std::move(arrays_));
      run_steps(
          k, s->first, rows,
          {again.x.data(), s->h_0.data(), s->memory_0.data(), again.gates(0), again.memory(0)},
          d_layer_x);
      arrays_ = again.leave_arrays();
    }
  }

  /// What the forward pass left of some steps of a cell; all rows packed, states sorted.
  struct SavedSteps {
    const T* x;  // null: it is elsewhere
    const T *h_0, *memory_0, *gates, *memory;
  };

  /// rows: of the steps from `first` on.
  void run_steps(Index k, Index first, const RowSchedule& rows, SavedSteps saved, T* d_layer_x) {
    if (rows.rows() == 0) return;
    const Index layer = k / D_, d = k % D_, first_row = saved_.rows.offset(first);
    const Index I = config_.layer_input_size(layer);
    if (saved.x == nullptr) saved.x = layer_input(saved_, layer, rows, first_row, dropped_);

    const T* d_output = nullptr;
    if (layer + 1 < config_.num_layers) {
      d_output = d_layer_output_.data() + first_row * width_ + d * P_;
    } else if (call_.d_output.data != nullptr) {
      const Index merged = config_.merged_size();
      d_output = packed(rows, from_step(call_.d_output, saved_.rows, first), merged, d_output_);
      if (config_.merge != Merge::kConcat) d_output = unmerged(d_output, rows.rows(), first_row);
      d_output += d * P_;
    }

    T* d_x = nullptr;
    const SequenceView<T> callers_d_x = from_step(call_.d_x, saved_.rows, first);
    const bool direct = rows.is_packed(callers_d_x, I);
    if (layer > 0) {
      if (d_layer_x != nullptr) d_x = d_layer_x + first_row * I;
    } else if (direct) {
      d_x = callers_d_x.data;
    } else if (callers_d_x.data != nullptr) {
      d_x_.reserve(longest_.rows, I);
      d_x = d_x_.data();
      if (d > 0) {  // what the first direction has left there
        pack_rows(rows,
                  SequenceView<const T>{callers_d_x.data, callers_d_x.stride_t,
                                        callers_d_x.stride_b, callers_d_x.packed},
                  I, d_x);
      }
    }

    // Packed now: by the whole team, and where memory may be lacking.
    const CellWeights<T>& w = saved_.layers.weights(k);
    w.R_backward();
    if (d_x != nullptr) w.W_backward();
    auto* const collected = call_.collected != nullptr ? &call_.collected->state() : nullptr;
    if (collected != nullptr) {  // which may have products of its own to compute
      collected->prepare(saved_.layers.all_weights[static_cast<std::size_t>(k)], rows.rows());
    }
    // Sorted rows of a segment are the first of all: those that live in it.
    const Index call_B = saved_.rows.B();
    BackwardPlan plan = plan_direction(saved_.layers, k, rows, call_B);
    TeamLease team(plan.threads, 2 * products_of(saved_.layers.config, rows));
    if (!team.granted()) plan = plan_direction(saved_.layers, k, rows, call_B, true);
    DirectionBackward<T> run{saved_.layers, k, rows, saved_.regularisation};
    run.plan = plan;
    run.call_B = call_B;
    run.x = saved.x;
    run.steps.h_0 = saved.h_0;
    run.steps.memory_0 = saved.memory_0;
    run.steps.output = saved_.output(layer) + first_row * width_ + d * P_;
    run.steps.ld_output = width_;
    run.steps.gates = saved.gates;
    run.steps.memory = saved.memory;
    run.steps.d_output = d_output;
    run.steps.d_h = d_h_.data();
    run.steps.d_memory = d_memory_.data();
    run.steps.d_h_past_R = d_h_past_R_.data();
    if (steps_wanted()) {
      run.steps.d_h_steps = d_h_steps_.data() + first_row * P_;
      run.steps.d_memory_steps = d_memory_steps_.data() + first_row * M_;
    }
    run.d_x = d_x;
    run.add_to_d_x = d > 0;
    run.d_params = d_params_;
    run.collected = collected;
    direction_backward<T>(run, team);
    if (layer == 0 && d_x != nullptr && !direct) unpack_rows(rows, d_x, I, I, callers_d_x);
  }

  /// A caller's sequence in packed order: itself where it is in that order, or a copy in `room`.
  const T* packed(const RowSchedule& rows, SequenceView<const T> callers, Index width,
                  Buffer<T>& room) const {
    if (rows.is_packed(callers, width)) return callers.data;
    room.reserve(longest_.rows, width);
    pack_rows(rows, callers, width, room.data());
    return room.data();
  }

  /// The gradient of both directions. d_output: [rows, P] of what they were merged to.
  const T* unmerged(const T* d_output, Index rows, Index first_row) {
    d_both_.reserve(longest_.rows, width_);
    const T* both = saved_.output(config_.num_layers - 1) + first_row * width_;
    in_region([&] {
      SmallItems asks;
      for (Index row = 0; row < rows && !asks.interrupted_before(width_); ++row) {
        merge_row_backward(config_.merge, both + row * width_, P_, d_output + row * P_,
                           d_both_.data() + row * width_);
      }
    });
    return d_both_.data();
  }

  Saved<T>& saved_;
  const BackwardCall<T>& call_;
  const StackConfig& config_ = saved_.config();
  const Index D_ = config_.directions(), P_ = config_.output_size(), M_ = config_.memory_size();
  const Index width_ = D_ * P_;
  const bool apart_ = saved_.layers.cell->keeps_h_apart();
  // Of the cell in work:
  Buffer<T> d_h_, d_memory_;  // [B, P], [B, M] sorted: they go back through the steps
  Buffer<T> d_h_past_R_;      // [B, H] sorted; empty where the cell has no such part
  CellParams<T> d_params_;
  Buffer<T> d_h_steps_, d_memory_steps_;  // if they are asked for: [rows, .]
  Buffer<T> d_layer_output_;              // from the layer above: its d_x, of all rows
  LongestSegments longest_;               // or all rows
  // Of the steps in work: the top layer's d_output, the same before the directions were merged, the
  // bottom layer's d_x, inputs after dropout.
  Buffer<T> d_output_, d_both_, d_x_, dropped_;
  SavedArrays<T> arrays_;  // for segments that are run again
};

}  // namespace

// As StackBackward has its buffers: the layers' d_output and d_x, never more than two of them.
template <class T>
Count bytes_between_layers(const Layers<T>& layers, const RowSchedule& rows,
                           const Regularisation& regularisation, bool in_place, Index at_once) {
  const StackConfig& config = layers.config;
  const Count W = config.directions() * config.output_size(), of_layer = W * rows.rows();
  const bool one_layer = config.num_layers == 1, merges = config.merge != Merge::kConcat;
  const Count copied = in_place ? 0 : at_once;
  const Count d_output = copied * config.merged_size() + (merges ? W * at_once : Count(0));
  const Count d_x = copied * config.input_size;
  const Count top = d_output + (one_layer ? d_x : of_layer);
  const Count middle = config.num_layers > 2 ? of_layer * 2 : Count(0);
  const Count bottom = one_layer ? Count(0) : of_layer + d_x;
  const Count R = Count(config.gates() * config.hidden_size) * config.output_size();
  const Count d_R = regularisation.weight_dropout > 0 ? R : Count(0);
  // The gradient of a cell's state, and the state before a segment that is run again.
  const Index state = config.output_size() + config.memory_size();
  const Index apart = layers.cell->keeps_h_apart() ? config.output_size() : 0;
  const Count states = Count(rows.B()) * (2 * state + apart);
  return (most(top, most(middle, bottom)) + d_R + states) * static_cast<Index>(sizeof(T));
}

template <class T>
void Tape<T>::backward(const BackwardCall<T>& call) const {
  if (is_small(saved_->config().arithmetic)) {
    throw std::logic_error("BackwardCall: a stack of small weights has no gradients");
  }
  if (call.collected != nullptr) {
    const StackConfig &of_tape = saved_->config(), &given = call.collected->state().config;
    const bool same = of_tape.cell == given.cell && of_tape.input_size == given.input_size &&
                      of_tape.hidden_size == given.hidden_size &&
                      of_tape.output_size() == given.output_size();
    if (!same || of_tape.cells() != 1 || saved_->regularisation.weight_dropout > 0) {
      throw std::invalid_argument("BackwardCall: expected collected gradients of this single cell");
    }
  }
  const FlushDenormals flush_denormals;
  require_blas();
  const SingleThreadedBlas single_threaded_blas;
  StackBackward<T>(*saved_, call).compute();
}

namespace {

template <class T>
void require_whole(const Saved<T>& saved) {
  if (!saved.segments.empty()) {
    throw std::logic_error("Tape: gates and memory of a call within a memory limit are not kept");
  }
}

}  // namespace

template <class T>
Index Tape<T>::gates_width() const {
  return saved_->layers.gates_width();
}

template <class T>
void Tape<T>::copy_gates(Index k, T* gates) const {
  require_whole<T>(*saved_);
  const Index width = gates_width(), rows = saved_->rows.rows();
  if (rows == 0) return clear_padding(saved_->rows, width, time_major(saved_->rows, width, gates));
  const T* values = saved_->gates(k);
  Buffer<T> activated;
  const Cell<T>& cell = *saved_->layers.cell;
  if (cell.saves_sums()) {
    activated.resize(rows, width);
    std::copy_n(values, rows * width, activated.data());
    Buffer<T> dropped;
    const Index layer = k / saved_->config().directions();
    const T* x = layer_input(*saved_, layer, saved_->rows, 0, dropped);
    cell.activate(saved_->layers.weights(k), rows, x, activated.data());
    values = activated.data();
  }
  unpack_rows(saved_->rows, values, width, width, time_major(saved_->rows, width, gates));
}

template <class T>
void Tape<T>::copy_state(Index k, Index part, T* values) const {
  const StackConfig& config = saved_->config();
  const RowSchedule& rows = saved_->rows;
  if (rows.rows() == 0) {
    const Index width = part == 0 ? config.output_size() : config.hidden_size;
    return clear_padding(rows, width, time_major(rows, width, values));
  }
  if (part == 0) {
    const Index D = config.directions(), P = config.output_size();
    return unpack_rows(rows, saved_->output(k / D) + k % D * P, D * P, P,
                       time_major(rows, P, values));
  }
  require_whole<T>(*saved_);
  const Index H = config.hidden_size;
  unpack_rows(rows, saved_->memory(k) + (part - 1) * H, config.memory_size(), H,
              time_major(rows, H, values));
}

#define FASTLSTM_INSTANTIATE(T)                                                                    \
  template class Tape<T>;                                                                          \
  template Count bytes_between_layers(const Layers<T>&, const RowSchedule&, const Regularisation&, \
                                      bool, Index);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

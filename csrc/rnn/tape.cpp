#include <stdexcept>
#include <utility>

#include "fastlstm/stack.hpp"
#include "rnn/cell_backward.hpp"
#include "rnn/dropout.hpp"
#include "rnn/merge.hpp"
#include "rnn/saved.hpp"
#include "rnn/segments.hpp"
#include "rnn/thread_plan.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

template <class T>
Tape<T>::Tape(std::unique_ptr<Saved> saved) : saved_(std::move(saved)) {}
template <class T>
Tape<T>::Tape(Tape&&) noexcept = default;
template <class T>
Tape<T>::~Tape() {
  if (saved_ == nullptr || saved_->spare == nullptr) return;
  *saved_->spare = saved_->leave_room();
  saved_->stack.spare_room().put(std::move(saved_->spare));
}

namespace {

/// A time-major [T, B, width] array.
template <class T>
SequenceView<T> time_major(const RowSchedule& rows, Index width, T* data) {
  return {data, rows.B() * width, width};
}

/// The same sequence from step t on.
template <class T>
SequenceView<T> from_step(SequenceView<T> sequence, Index t) {
  if (sequence.data != nullptr) sequence.data += t * sequence.stride_t;
  return sequence;
}

/// The backward pass of all layers, cell by cell, segment by segment from the last.
template <class T>
class StackBackward {
 public:
  StackBackward(Saved<T>& saved, const BackwardCall<T>& call) : saved_(saved), call_(call) {
    if (call.d_h_0 == nullptr) {
      d_h_0_.resize(config_.cells() * saved.rows.B(), P_);
      d_c_0_.resize(config_.cells() * saved.rows.B(), C_);
    }
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
      if (layer > lowest && saved_.dropout.p > 0) {
        drop_rows(rows, saved_.dropout, layer - 1, d_layer_x.data(), width_, d_layer_x.data());
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
    if (call_.d_x.data != nullptr || call_.d_h_0 != nullptr || call_.d_h_steps != nullptr) return 0;
    for (Index k = 0; k < config_.cells(); ++k) {
      const CellParams<T>& p = call_.d_params[k];
      for (const T* d :
           {p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, p.weight_hr, p.weight_peephole,
            p.weight_ln_ih, p.weight_ln_hh, p.weight_ln_c, p.bias_ln_c}) {
        if (d != nullptr) return k / D_;
      }
    }
    return config_.num_layers;
  }

  /// The gradients of the state go backwards through the steps where the caller wants them.
  T* d_h(Index k) { return (call_.d_h_0 ? call_.d_h_0 : d_h_0_.data()) + k * saved_.rows.B() * P_; }
  T* d_c(Index k) { return (call_.d_h_0 ? call_.d_c_0 : d_c_0_.data()) + k * saved_.rows.B() * C_; }

  void run_cell(Index layer, Index d, T* d_layer_x) {
    const Index k = layer * D_ + d, B = saved_.rows.B();
    copy_or_zero(call_.d_h_n ? call_.d_h_n + k * B * P_ : nullptr, B * P_, d_h(k));
    copy_or_zero(call_.d_c_n ? call_.d_c_n + k * B * C_ : nullptr, B * C_, d_c(k));
    if (call_.d_h_steps != nullptr) {
      d_h_steps_.resize(saved_.rows.rows(), P_);
      d_c_steps_.resize(saved_.rows.rows(), C_);
    }
    const CellWeights<T>& w = saved_.stack.weights(k);
    d_params_ = call_.d_params[k];
    Buffer<T> d_dropped_R;
    const bool drops_R = saved_.dropout.weight > 0 && d_params_.weight_hh != nullptr;
    if (drops_R) {
      d_dropped_R.resize(w.GH, P_);
      d_dropped_R.fill_zero();
      d_params_.weight_hh = d_dropped_R.data();
    }
    const bool apart = kept_apart(w);
    if (apart) {
      d_past_R_.resize(B, P_);
      d_past_R_.fill_zero();
    }
    run_segments(k, d_layer_x);
    for (Index j = 0; apart && j < B * P_; ++j) d_h(k)[j] += d_past_R_.data()[j];
    if (drops_R) {
      drop_weights(saved_.dropout, k, w.GH, P_, d_dropped_R.data(), d_dropped_R.data());
      T* d_R = call_.d_params[k].weight_hh;
      for (Index j = 0; j < w.GH * P_; ++j) d_R[j] += d_dropped_R.data()[j];
    }
    if (call_.d_h_steps != nullptr) {
      const Index TB = saved_.rows.T() * B;
      unpack_rows(saved_.rows, d_h_steps_.data(), P_,
                  time_major(saved_.rows, P_, call_.d_h_steps + k * TB * P_));
      unpack_rows(saved_.rows, d_c_steps_.data(), C_,
                  time_major(saved_.rows, C_, call_.d_c_steps + k * TB * C_));
    }
  }

  void run_segments(Index k, T* d_layer_x) {
    const Index B = saved_.rows.B();
    if (saved_.segments.empty()) {
      const Index h_at = saved_.h_0_at(k), c_at = saved_.c_0_at(k);
      run_steps(k, 0, saved_.rows,
                {nullptr, saved_.h_0.data() + h_at, saved_.c_0.data() + c_at, saved_.gates(k),
                 saved_.c(k)},
                d_layer_x);
      return;
    }
    const auto& segments = saved_.segments[static_cast<std::size_t>(k)];
    if (room_.x.size() == 0 && longest_.again > 0) {
      room_ = Saved<T>::room_for(config_, longest_.again, longest_.again);
    }
    for (auto s = segments.rbegin(); s != segments.rend(); ++s) {
      const RowSchedule rows = saved_.rows.steps_of(s->first, s->end);
      if (s->kept) {
        run_steps(k, s->first, rows,
                  {nullptr, s->h_0.data(), s->c_0.data(), s->gates.data(), s->c.data()}, d_layer_x);
        continue;
      }
      Buffer<T> h(B, P_), c(B, C_);
      unsort_state(rows, s->h_0.data(), P_, h.data());
      unsort_state(rows, s->c_0.data(), C_, c.data());
      Saved<T> again =
          run_segment(saved_, k, s->first, s->end, h.data(), c.data(), std::move(room_));
      run_steps(k, s->first, rows,
                {again.x.data(), s->h_0.data(), s->c_0.data(), again.gates(0), again.c(0)},
                d_layer_x);
      room_ = again.leave_room();
    }
  }

  /// What the forward pass left of some steps of a cell; all rows packed, states sorted.
  struct Left {
    const T* x;  // null: it is elsewhere
    const T *h_0, *c_0, *gates, *c;
  };

  /// rows: of the steps from `first` on.
  void run_steps(Index k, Index first, const RowSchedule& rows, Left left, T* d_layer_x) {
    const Index layer = k / D_, d = k % D_, first_row = saved_.rows.offset(first);
    const Index I = config_.layer_input_size(layer);
    if (left.x == nullptr) left.x = layer_input(saved_, layer, rows, first_row, dropped_);

    const T* d_output = nullptr;
    if (layer + 1 < config_.num_layers) {
      d_output = d_layer_output_.data() + first_row * width_ + d * P_;
    } else if (call_.d_output.data != nullptr) {
      const Index merged = config_.merged_size();
      d_output = packed(rows, from_step(call_.d_output, first), merged, d_output_);
      if (config_.merge != Merge::kConcat) d_output = unmerged(d_output, rows.rows(), first_row);
      d_output += d * P_;
    }

    T* d_x = nullptr;
    const SequenceView<T> callers_d_x = from_step(call_.d_x, first);
    const bool direct = rows.is_packed(callers_d_x, I);
    if (layer > 0) {
      if (d_layer_x != nullptr) d_x = d_layer_x + first_row * I;
    } else if (direct) {
      d_x = callers_d_x.data;
    } else if (callers_d_x.data != nullptr) {
      d_x_.reserve(longest_.rows, I);
      d_x = d_x_.data();
      if (d > 0) {  // what the first direction has left there
        pack_rows(
            rows,
            SequenceView<const T>{callers_d_x.data, callers_d_x.stride_t, callers_d_x.stride_b}, I,
            d_x);
      }
    }

    const bool apart = kept_apart(saved_.stack.weights(k));
    Buffer<T> d_past_sorted(apart ? rows.B() : 0, P_);
    if (apart) sort_state<T>(rows, d_past_R_.data(), P_, d_past_sorted.data());
    const bool steps = call_.d_h_steps != nullptr;
    T* const d_h_steps = steps ? d_h_steps_.data() + first_row * P_ : nullptr;
    T* const d_c_steps = steps ? d_c_steps_.data() + first_row * C_ : nullptr;
    Buffer<T> d_h_sorted(rows.B(), P_), d_c_sorted(rows.B(), C_);
    sort_state<T>(rows, d_h(k), P_, d_h_sorted.data());
    sort_state<T>(rows, d_c(k), C_, d_c_sorted.data());
    {
      TeamLease team(threads_worth(2 * products_of(config_, rows)));
      direction_backward<T>({saved_.stack.weights(k),
                             rows,
                             saved_.rows.B(),
                             CellNoise<T>(config_, k, &saved_.dropout, rows),
                             config_.runs_backward(d),
                             left.x,
                             left.h_0,
                             left.c_0,
                             saved_.output(layer) + first_row * width_ + d * P_,
                             width_,
                             left.gates,
                             left.c,
                             d_output,
                             d_h_sorted.data(),
                             d_c_sorted.data(),
                             d_past_sorted.data(),
                             d_x,
                             d > 0,
                             team,
                             d_params_,
                             d_h_steps,
                             d_c_steps});
    }
    unsort_state(rows, d_h_sorted.data(), P_, d_h(k));
    unsort_state(rows, d_c_sorted.data(), C_, d_c(k));
    if (apart) unsort_state(rows, d_past_sorted.data(), P_, d_past_R_.data());
    if (layer == 0 && d_x != nullptr && !direct) unpack_rows(rows, d_x, I, callers_d_x);
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
    for (Index row = 0; row < rows; ++row) {
      merge_row_backward(config_.merge, both + row * width_, P_, d_output + row * P_,
                         d_both_.data() + row * width_);
    }
    return d_both_.data();
  }

  Saved<T>& saved_;
  const BackwardCall<T>& call_;
  const StackConfig& config_ = saved_.config();
  const Index D_ = config_.directions(), P_ = config_.output_size(), C_ = config_.c_size();
  const Index width_ = D_ * P_;
  Buffer<T> d_h_0_, d_c_0_;          // where the caller does not want them: [L * D, B, .]
  Buffer<T> d_past_R_;               // [B, H] of the cell in work, in the caller's order
  CellParams<T> d_params_;           // of the cell in work
  Buffer<T> d_layer_output_;         // from the layer above: its d_x, of all rows
  Buffer<T> d_h_steps_, d_c_steps_;  // of one cell, if they are asked for: [rows, .]
  LongestSegments longest_;          // or all rows
  // Of the steps in work: the top layer's d_output, the same before the directions were merged, the
  // bottom layer's d_x, inputs after dropout.
  Buffer<T> d_output_, d_both_, d_x_, dropped_;
  typename Saved<T>::Room room_;  // for segments that are run again
};

}  // namespace

template <class T>
void Tape<T>::backward(const BackwardCall<T>& call) const {
  const FlushDenormals flush_denormals;
  require_blas();
  const SingleThreadedBlas single_threaded_blas;
  StackBackward<T>(*saved_, call).compute();
}

namespace {

template <class T>
void require_whole(const Saved<T>& saved) {
  if (!saved.segments.empty()) {
    throw std::logic_error("Tape: gates and cells of a call within a memory limit are not kept");
  }
}

}  // namespace

template <class T>
void Tape<T>::copy_gates(Index k, T* gates) const {
  require_whole<T>(*saved_);
  const Index width = saved_->gates_width(), rows = saved_->rows.rows();
  const T* saved = saved_->gates(k);
  Buffer<T> activated;
  const CellWeights<T>& w = saved_->stack.weights(k);
  const StepOptions<T>* options = w.step_options();
  const Index G = saved_->config().gates();
  if (w.cell.normalises) {
    require_blas();
    const SingleThreadedBlas single_threaded_blas;
    activated.resize(rows, width);
    std::copy_n(saved, rows * width, activated.data());
    Buffer<T> dropped;
    const Index layer = k / saved_->config().directions();
    const T* x = layer_input(*saved_, layer, saved_->rows, 0, dropped);
    normalised_gates(w, rows, x, activated.data());
    saved = activated.data();
  } else if (G > 1 && options != nullptr && !options->usual_functions) {
    activated.resize(rows, width);
    std::copy_n(saved, rows * width, activated.data());
    kernels<T>().activate_gates(
        {rows, G, saved_->config().hidden_size, width, activated.data(), options});
    saved = activated.data();
  }
  unpack_rows(saved_->rows, saved, width, time_major(saved_->rows, width, gates));
}

template <class T>
void Tape<T>::copy_cells(Index k, T* c) const {
  require_whole<T>(*saved_);
  const Index width = saved_->config().c_size();
  unpack_rows(saved_->rows, saved_->c(k), width, time_major(saved_->rows, width, c));
}

template <class T>
void Tape<T>::copy_hidden(Index k, T* h) const {
  const StackConfig& config = saved_->config();
  const Index D = config.directions(), P = config.output_size();
  Buffer<T> one(saved_->rows.rows(), P);
  const T* both = saved_->output(k / D) + k % D * P;
  for (Index row = 0; row < saved_->rows.rows(); ++row) {
    std::copy_n(both + row * D * P, P, one.data() + row * P);
  }
  unpack_rows(saved_->rows, one.data(), P, time_major(saved_->rows, P, h));
}

template class Tape<float>;
template class Tape<double>;

}  // namespace fastlstm

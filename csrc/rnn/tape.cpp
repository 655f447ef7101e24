#include <utility>

#include "fastlstm/stack.hpp"
#include "rnn/cell_on_blas.hpp"
#include "rnn/dropout.hpp"
#include "rnn/merge.hpp"
#include "rnn/saved.hpp"
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
Tape<T>::~Tape() = default;

template <class T>
void Tape<T>::backward(const BackwardCall<T>& call) const {
  const FlushDenormals flush_denormals;
  require_blas();
  const SingleThreadedBlas single_threaded_blas;
  Saved& saved = *saved_;
  const StackConfig& config = saved.config();
  const RowSchedule& rows = saved.rows;
  const Index D = config.directions(), P = config.output_size(), C = config.c_size();
  TeamLease team(threads_worth(2 * products_of(config, rows)));
  const Index width = D * P;

  Buffer<T> d_h(rows.B(), P), d_c(rows.B(), C);
  Buffer<T> dropped;         // the input of a layer above the first, when there was dropout
  Buffer<T> d_layer_output;  // from above: the caller's gradient, then each layer's d_x
  if (call.d_output.data != nullptr) {
    const Index merged = config.merged_size();
    d_layer_output.resize(rows.rows(), merged);
    pack_rows(rows, call.d_output, merged, d_layer_output.data());
    if (config.merge != Merge::kConcat) {
      Buffer<T> d_both(rows.rows(), width);
      const T* both = saved.output(config.num_layers - 1);
      for (Index row = 0; row < rows.rows(); ++row) {
        merge_row_backward(config.merge, both + row * width, P, d_layer_output.data() + row * P,
                           d_both.data() + row * width);
      }
      d_layer_output = std::move(d_both);
    }
  }

  for (Index layer = config.num_layers - 1; layer >= 0; --layer) {
    const bool drops = layer > 0 && saved.dropout.p > 0;
    const T* layer_x = layer == 0 ? saved.x.data() : saved.output(layer - 1);
    if (drops) {
      if (dropped.size() == 0) dropped.resize(rows.rows(), width);
      drop_rows(rows, saved.dropout, layer - 1, layer_x, width, dropped.data());
      layer_x = dropped.data();
    }
    Buffer<T> d_layer_x;
    if (layer > 0 || call.d_x.data != nullptr) {
      d_layer_x.resize(rows.rows(), config.layer_input_size(layer));
    }
    for (Index d = 0; d < D; ++d) {
      const Index k = layer * D + d;
      const Index h_at = saved.h_0_at(k), c_at = saved.c_0_at(k);
      sort_state(rows, call.d_h_n ? call.d_h_n + h_at : nullptr, P, d_h.data());
      sort_state(rows, call.d_c_n ? call.d_c_n + c_at : nullptr, C, d_c.data());
      const T* d_output = d_layer_output.data();
      const CellNoise<T> noise(config, k, &saved.dropout, rows);
      const CellWeights<T>& w = saved.stack.weights(k);
      CellParams<T> d_params = call.d_params[k];
      Buffer<T> d_dropped_R;
      if (saved.dropout.weight > 0) {
        d_dropped_R.resize(w.GH, P);
        d_dropped_R.fill_zero();
        d_params.weight_hh = d_dropped_R.data();
      }
      direction_backward<T>({w, rows, noise, config.runs_backward(d), layer_x,
                             saved.h_0.data() + h_at, saved.c_0.data() + c_at,
                             saved.output(layer) + d * P, width, saved.gates(k), saved.c(k),
                             d_output ? d_output + d * P : nullptr, d_h.data(), d_c.data(),
                             d_layer_x.data(), d > 0, team, d_params});
      if (saved.dropout.weight > 0) {
        drop_weights(saved.dropout, k, w.GH, P, d_dropped_R.data(), d_dropped_R.data());
        T* d_R = call.d_params[k].weight_hh;
        for (Index j = 0; j < w.GH * P; ++j) d_R[j] += d_dropped_R.data()[j];
      }
      unsort_state(rows, d_h.data(), P, call.d_h_0 + h_at);
      unsort_state(rows, d_c.data(), C, call.d_c_0 + c_at);
    }
    if (drops) drop_rows(rows, saved.dropout, layer - 1, d_layer_x.data(), width, d_layer_x.data());
    d_layer_output = std::move(d_layer_x);
  }
  if (call.d_x.data != nullptr) {
    unpack_rows(rows, d_layer_output.data(), config.input_size, call.d_x);
  }
}

namespace {

/// A time-major [T, B, width] array.
template <class T>
SequenceView<T> time_major(const RowSchedule& rows, Index width, T* data) {
  return {data, rows.B() * width, width};
}

}  // namespace

template <class T>
void Tape<T>::copy_gates(Index k, T* gates) const {
  const Index width = saved_->gates_width(), rows = saved_->rows.rows();
  const T* saved = saved_->gates(k);
  Buffer<T> activated;
  const StepOptions<T>* options = saved_->stack.weights(k).step_options();
  const Index G = saved_->config().gates();
  if (G > 1 && options != nullptr && !options->usual_functions) {
    activated.resize(rows, width);
    std::copy_n(saved, rows * width, activated.data());
    kernels<T>().activate_gates(
        {rows, saved_->config().gates(), saved_->config().hidden_size, activated.data(), options});
    saved = activated.data();
  }
  unpack_rows(saved_->rows, saved, width, time_major(saved_->rows, width, gates));
}

template <class T>
void Tape<T>::copy_cells(Index k, T* c) const {
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

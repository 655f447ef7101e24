#include "rnn/lstm_blas.hpp"

#include <algorithm>

#include "rnn/step_blocks.hpp"
#include "runtime/blas.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

/// rows: [n, width] contiguous in; to: n rows of ld elements, out.
template <class T>
void copy_rows(const T* rows, Index n, Index width, T* to, Index ld) {
  if (ld == width) {
    std::copy_n(rows, n * width, to);
    return;
  }
  for (Index k = 0; k < n; ++k) std::copy_n(rows + k * width, width, to + k * ld);
}

/// The values that the live rows of step t came from: the first `carried` rows have theirs at
/// packed row `row`, the others (which started here) in the initial state.
struct PreviousRows {
  Index carried;
  Index row;
};

PreviousRows previous_rows(const RowSchedule& rows, bool backward, Index t) {
  const Index previous = backward ? t + 1 : t - 1;
  if (previous < 0 || previous >= rows.steps()) return {0, 0};
  return {std::min(rows.live(t), rows.live(previous)), rows.offset(previous)};
}

}  // namespace

template <class T>
LstmWorkspace<T>::LstmWorkspace(const LstmConfig& config, const RowSchedule& rows,
                                bool save_gates) {
  if (!save_gates) gates.resize(most_block_rows(rows), 4 * config.hidden_size);
  if (config.proj_size > 0) hidden.resize(rows.B(), config.hidden_size);
}

template <class T>
void lstm_direction_forward(const LstmDirectionForward<T>& run) {
  const LstmWeights<T>& w = run.weights;
  const RowSchedule& rows = run.rows;
  const Index I = w.I, H = w.H, P = w.P;
  const bool save = run.saved_gates != nullptr;
  const KernelTable<T>& kernel = kernels<T>();
  T* hidden = w.projects ? run.workspace.hidden.data() : run.h;

  for_each_block(rows, run.backward, [&](const StepBlock& block) {
    T* block_gates = save ? run.saved_gates + block.first_row * 4 * H : run.workspace.gates.data();
    gemm<T>(block.rows, 4 * H, I, {run.x + block.first_row * I, I}, {w.W.data(), I, true}, 0,
            block_gates, 4 * H);
    for_each_step(block, run.backward, [&](Index t) {
      const Index live = rows.live(t), row = rows.offset(t);
      T* gates = block_gates + (row - block.first_row) * 4 * H;
      gemm<T>(live, 4 * H, P, {run.h, P}, {w.R.data(), P, true}, 1, gates, 4 * H);
      kernel.lstm_step({live, H, save, w.bias.data(), gates, run.c, hidden});
      if (w.projects) {
        gemm<T>(live, P, H, {hidden, H}, {w.W_hr.data(), H, true}, 0, run.h, P);
      }
      copy_rows(run.h, live, P, run.output + row * run.ld_output, run.ld_output);
      if (save) std::copy_n(run.c, live * H, run.saved_c + row * H);
    });
  });
}

template <class T>
void lstm_direction_backward(const LstmDirectionBackward<T>& run) {
  const LstmWeights<T>& w = run.weights;
  const RowSchedule& rows = run.rows;
  const Index I = w.I, H = w.H, P = w.P;
  const KernelTable<T>& kernel = kernels<T>();
  const Index most_rows = most_block_rows(rows);
  Buffer<T> block_d_gates(most_rows, 4 * H);
  Buffer<T> block_h_prev(most_rows, P);
  // With a projection, gradients of o tanh(c) differ from those of h, and its weights' gradient
  // needs both o tanh(c) and the gradient of h over the block.
  Buffer<T> d_hidden, block_hidden, block_d_h;
  if (w.projects) {
    d_hidden.resize(rows.B(), H);
    block_hidden.resize(most_rows, H);
    block_d_h.resize(most_rows, P);
  }

  const auto backward_step = [&](Index t, Index first_row) {
    const Index live = rows.live(t), row = rows.offset(t);
    T* d_gates = block_d_gates.data() + (row - first_row) * 4 * H;
    T* h_prev = block_h_prev.data() + (row - first_row) * P;
    if (run.d_output != nullptr) {
      for (Index b = 0; b < live; ++b) {
        const T* d_output = run.d_output + (row + b) * run.ld_output;
        for (Index k = 0; k < P; ++k) run.d_h[b * P + k] += d_output[k];
      }
    }
    const T* d_hidden_rows = run.d_h;
    if (w.projects) {
      std::copy_n(run.d_h, live * P, block_d_h.data() + (row - first_row) * P);
      gemm<T>(live, H, P, {run.d_h, P}, {w.W_hr.data(), H}, 0, d_hidden.data(), H);
      d_hidden_rows = d_hidden.data();
    }
    const PreviousRows previous = previous_rows(rows, run.backward, t);
    const auto backward_rows = [&](Index first, Index n, const T* c_prev) {
      const Index at = row + first;
      kernel.lstm_step_backward({n, H, run.gates + at * 4 * H, run.c + at * H, c_prev,
                                 d_hidden_rows + first * H, run.d_c + first * H,
                                 d_gates + first * 4 * H});
    };
    const Index started = live - previous.carried;
    backward_rows(0, previous.carried, run.c + previous.row * H);
    backward_rows(previous.carried, started, run.c_0 + previous.carried * H);
    for (Index b = 0; b < previous.carried; ++b) {
      std::copy_n(run.output + (previous.row + b) * run.ld_output, P, h_prev + b * P);
    }
    std::copy_n(run.h_0 + previous.carried * P, started * P, h_prev + previous.carried * P);
    gemm<T>(live, P, 4 * H, {d_gates, 4 * H}, {w.R.data(), P}, 0, run.d_h, P);
  };

  for_each_block(rows, !run.backward, [&](const StepBlock& block) {
    const Index n = block.rows, first = block.first_row;
    for_each_step(block, !run.backward, [&](Index t) { backward_step(t, first); });
    const T* d_gates = block_d_gates.data();
    gemm<T>(4 * H, I, n, {d_gates, 4 * H, true}, {run.x + first * I, I}, 1, run.d_params.weight_ih,
            I);
    gemm<T>(4 * H, P, n, {d_gates, 4 * H, true}, {block_h_prev.data(), P}, 1,
            run.d_params.weight_hh, P);
    if (run.d_params.bias_ih != nullptr) {
      kernel.add_column_sums({n, 4 * H, d_gates, run.d_params.bias_ih});
      kernel.add_column_sums({n, 4 * H, d_gates, run.d_params.bias_hh});
    }
    if (run.d_x != nullptr) {
      gemm<T>(n, I, 4 * H, {d_gates, 4 * H}, {w.W.data(), I}, run.add_to_d_x ? 1 : 0,
              run.d_x + first * I, I);
    }
    if (w.projects) {
      kernel.lstm_hidden({n, H, run.gates + first * 4 * H, run.c + first * H, block_hidden.data()});
      gemm<T>(P, H, n, {block_d_h.data(), P, true}, {block_hidden.data(), H}, 1,
              run.d_params.weight_hr, H);
    }
  });
}

#define FASTLSTM_INSTANTIATE(T)                                         \
  template struct LstmWorkspace<T>;                                     \
  template void lstm_direction_forward(const LstmDirectionForward<T>&); \
  template void lstm_direction_backward(const LstmDirectionBackward<T>&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

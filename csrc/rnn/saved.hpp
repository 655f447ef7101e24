// What a training call keeps for its backward pass. All rows are in packed order.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "rnn/cell_weights.hpp"
#include "rnn/row_schedule.hpp"

namespace fastlstm {

/// The input, and of each row and cell its gates, c and h (an LSTM: 4H + H + P values). Activated
/// gates are kept, not pre-activations: the derivatives of sigmoid and tanh follow from their
/// values. With layer normalisation R h is kept instead of the gates, and W x computed again.
///
/// Under a limit of memory, gates and states are in segments instead, some of them without gates
/// (rnn/memory_plan.hpp).
template <class T>
struct Tape<T>::Saved {
  /// Some steps of one cell.
  struct Steps {
    Index first, end;
    Buffer<T> h_0, c_0;  // [B, .] sorted: the state before them, of the rows that live in them
    bool kept;           // otherwise they are to be run again
    Buffer<T> gates, c;  // as all_gates and all_c, of these steps, if they are kept
  };

  Saved(const Stack<T>& stack_, RowSchedule rows_, const Dropout& dropout_, bool whole)
      : stack(stack_),
        rows(std::move(rows_)),
        dropout(dropout_),
        x(rows.rows(), config().input_size),
        outputs(config().num_layers * rows.rows(), config().directions() * config().output_size()),
        all_gates(whole ? config().cells() * rows.rows() : 0, gates_width()),
        all_c(whole ? config().cells() * rows.rows() : 0, config().c_size()),
        h_0(whole ? config().cells() * rows.B() : 0, config().output_size()),
        c_0(whole ? config().cells() * rows.B() : 0, config().c_size()) {}

  const StackConfig& config() const { return stack.config(); }
  Index gates_width() const { return config().saved_gates() * config().hidden_size; }

  // Of cell k = layer * D + direction, or of a layer.
  T* gates(Index k) { return all_gates.data() + k * rows.rows() * gates_width(); }
  T* c(Index k) { return all_c.data() + k * rows.rows() * config().c_size(); }
  T* output(Index layer) {
    return outputs.data() + layer * rows.rows() * config().directions() * config().output_size();
  }
  Index h_0_at(Index k) const { return k * rows.B() * config().output_size(); }
  Index c_0_at(Index k) const { return k * rows.B() * config().c_size(); }
  /// h, c: [L * D, B, .] of the call, in the caller's order; null: zeros.
  void save_state(const T* h, const T* c) {
    for (Index k = 0; k < config().cells(); ++k) {
      sort_state(rows, h ? h + h_0_at(k) : nullptr, config().output_size(), h_0.data() + h_0_at(k));
      sort_state(rows, c ? c + c_0_at(k) : nullptr, config().c_size(), c_0.data() + c_0_at(k));
    }
  }

  Stack<T> stack;  // shares the parameters of the call
  RowSchedule rows;
  Dropout dropout;
  Buffer<T> x;          // [rows, I]
  Buffer<T> outputs;    // [L, rows, D * P] before dropout
  Buffer<T> all_gates;  // [L * D, rows, saved_gates * H]
  Buffer<T> all_c;      // [L * D, rows, H]; empty without c
  Buffer<T> h_0;        // [L * D, B, P] sorted
  Buffer<T> c_0;        // [L * D, B, H] sorted; empty without c
  // [L * D] by cell, in the order of its run; empty: all is above.
  std::vector<std::vector<Steps>> segments;
};

template <class T>
using Saved = typename Tape<T>::Saved;

}  // namespace fastlstm

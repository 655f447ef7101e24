// What a training call keeps for its backward pass. All rows are in packed order.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "passes/layers.hpp"
#include "passes/states.hpp"

namespace fastlstm {

/// The input, and of each row and cell its gates, memory and h (an LSTM: 4H + H + P values).
/// Activated gates are kept, not pre-activations, where the derivatives follow from their values
/// (Cell::saved_gates).
///
/// Under a limit of memory, gates and states are in segments instead, some of them without gates
/// (passes/memory_plan.hpp).
template <class T>
struct Saved {
  /// Some steps of one cell.
  struct Segment {
    Index first, end;
    Buffer<T> h_0, memory_0;  // [B, .] sorted: the state before them, of rows that live in them
    bool kept;                // otherwise they are to be run again
    Buffer<T> gates, memory;  // as all_gates and all_memory, of these steps, if they are kept
  };

  /// For one segment after another, as large as the largest: `rows` rows of a cell of any layer, of
  /// which at most `again` have their gates there. With memory of its own for each segment, glibc's
  /// aligned_alloc left gaps that the next did not fit into: 13 % more than was predicted.
  static void add_arrays(const Layers<T>& layers, Index rows, Index again, SavedArrays<T>& arrays,
                         Room& room) {
    room.add(arrays.x, rows, layers.config.widest_input());
    room.add(arrays.outputs, rows, layers.config.output_size());
    room.add(arrays.gates, again, layers.gates_width());
    room.add(arrays.memory, again, layers.config.memory_size());
  }

  Saved(const Layers<T>& layers_, RowSchedule rows_, const Regularisation& regularisation_,
        bool whole, SavedArrays<T> arrays = {})
      : layers(layers_),
        rows(std::move(rows_)),
        regularisation(regularisation_),
        x(std::move(arrays.x)),
        outputs(std::move(arrays.outputs)),
        all_gates(std::move(arrays.gates)),
        all_memory(std::move(arrays.memory)) {
    Room room;
    add_room(room, whole);
  }
  /// Only counts what it takes.
  Saved(const Layers<T>& layers_, const RowSchedule& rows_, bool whole, Room& room)
      : layers(layers_), rows(rows_) {
    add_room(room, whole);
  }

  SavedArrays<T> leave_arrays() {
    return {std::move(x), std::move(outputs), std::move(all_gates), std::move(all_memory)};
  }

  const StackConfig& config() const { return layers.config; }

  // Of cell k = layer * D + direction, or of a layer.
  T* gates(Index k) { return all_gates.data() + k * rows.rows() * layers.gates_width(); }
  T* memory(Index k) { return all_memory.data() + k * rows.rows() * config().memory_size(); }
  T* output(Index layer) {
    return outputs.data() + layer * rows.rows() * config().directions() * config().output_size();
  }
  T* h_0_of(Index k) { return h_0.data() + k * rows.B() * config().output_size(); }
  T* memory_0_of(Index k) { return memory_0.data() + k * rows.B() * config().memory_size(); }
  void save_state(const T* const (&state_0)[kMostStateParts]) {
    for (Index k = 0; k < config().cells(); ++k) {
      sort_states(config(), rows, cell_state(config(), rows.B(), k, state_0), h_0_of(k),
                  memory_0_of(k));
    }
  }

  Layers<T> layers;  // with the parameters of the call
  RowSchedule rows;
  Regularisation regularisation;
  Buffer<T> x;           // [rows, I]
  Buffer<T> outputs;     // [L, rows, D * P] before dropout
  Buffer<T> all_gates;   // [L * D, rows, gates_width]
  Buffer<T> all_memory;  // [L * D, rows, M]
  Buffer<T> h_0;         // [L * D, B, P] sorted
  Buffer<T> memory_0;    // [L * D, B, M] sorted
  /// Takes the large arrays afterwards, for the stack's next tape; null: they are released.
  std::unique_ptr<SavedArrays<T>> spare;
  // [L * D] by cell, in the order of its run; empty: all is above.
  std::vector<std::vector<Segment>> segments;

 private:
  void add_room(Room& room, bool whole) {
    const Index R = rows.rows(), P = config().output_size(), M = config().memory_size();
    const Count cells = config().cells();
    const auto reserve = [&room](Buffer<T>& buffer, Count n, Index width) {
      if (room.counts() || buffer.size() < (n * width).get()) room.add(buffer, n, width);
    };
    reserve(x, R, config().input_size);
    reserve(outputs, Count(config().num_layers) * R, config().directions() * P);
    if (!whole) return;
    reserve(all_gates, cells * R, layers.gates_width());
    reserve(all_memory, cells * R, M);
    room.add(h_0, cells * rows.B(), P);
    room.add(memory_0, cells * rows.B(), M);
  }
};

}  // namespace fastlstm

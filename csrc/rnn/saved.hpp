// What a training call keeps for its backward pass. All rows are in packed order.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
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

  /// The large arrays, for one tape after another (Stack::SpareRoom), or one segment after another,
  /// as large as the largest. With memory of its own for each segment, glibc's aligned_alloc left
  /// gaps that the next did not fit into: 13 % more than was predicted.
  struct Room {
    Buffer<T> x, outputs, gates, c;

    Index bytes() const {
      return (x.size() + outputs.size() + gates.size() + c.size()) * static_cast<Index>(sizeof(T));
    }
  };
  /// For `rows` rows of a cell of any layer, of which at most `again` have their gates there.
  static Room room_for(const StackConfig& config, Index rows, Index again) {
    return {Buffer<T>(rows, config.widest_input()), Buffer<T>(rows, config.output_size()),
            Buffer<T>(again, config.saved_gates() * config.hidden_size),
            Buffer<T>(again, config.c_size())};
  }

  Saved(const Stack<T>& stack_, RowSchedule rows_, const Dropout& dropout_, bool whole,
        Room room = {})
      : stack(stack_),
        rows(std::move(rows_)),
        dropout(dropout_),
        x(std::move(room.x)),
        outputs(std::move(room.outputs)),
        all_gates(std::move(room.gates)),
        all_c(std::move(room.c)) {
    const Index R = rows.rows(), P = config().output_size(), C = config().c_size();
    x.reserve(R, config().input_size);
    outputs.reserve(config().num_layers * R, config().directions() * P);
    if (!whole) return;
    all_gates.reserve(config().cells() * R, gates_width());
    all_c.reserve(config().cells() * R, C);
    h_0.resize(config().cells() * rows.B(), P);
    c_0.resize(config().cells() * rows.B(), C);
  }

  Room leave_room() {
    return {std::move(x), std::move(outputs), std::move(all_gates), std::move(all_c)};
  }

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
  /// Takes the large arrays afterwards, for the stack's next tape; null: they are released.
  std::unique_ptr<Room> spare;
  // [L * D] by cell, in the order of its run; empty: all is above.
  std::vector<std::vector<Steps>> segments;
};

template <class T>
using Saved = typename Tape<T>::Saved;

/// The arrays of the last tape, which the next one takes over. Fresh memory is slow where a machine
/// takes back what is free, as some virtual ones do: LSTM of 2 layers, T = 2000, B = 8, H = 256,
/// 704 ms for a call, and 900 where a second had passed since the last one.
///
/// Without a lock, which a fork could leave taken: whoever takes the room has it alone.
template <class T>
struct Stack<T>::SpareRoom {
  using Room = typename Saved<T>::Room;
  static constexpr Index kMostBytes = Index{256} << 20;

  ~SpareRoom() { delete room_.load(); }

  /// What is there, or an empty room.
  std::unique_ptr<Room> take() {
    std::unique_ptr<Room> room(room_.exchange(nullptr));
    return room != nullptr ? std::move(room) : std::make_unique<Room>();
  }
  /// Releases what was there; and the room, where it is too large to be kept.
  void put(std::unique_ptr<Room> room) noexcept {
    if (room->bytes() > kMostBytes) room = nullptr;
    delete room_.exchange(room.release());
  }

 private:
  std::atomic<Room*> room_{nullptr};
};

}  // namespace fastlstm

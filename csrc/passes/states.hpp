// A cell's state in a call: in the caller's arrays, part by part, and as passes take it, sorted, h
// by itself and the other parts side by side.
#pragma once

#include "fastlstm/config.hpp"
#include "runtime/buffer.hpp"
#include "schedule/row_schedule.hpp"

namespace fastlstm {

/// The parts of one cell's state, [B, width] each in the caller's order. V: T or const T.
template <class V>
struct CellState {
  V* part[kMostStateParts] = {};  // null, where it is read: zeros

  V* h() const { return part[0]; }
  V* memory(Index k) const { return part[k + 1]; }
};

/// That of cell k in a call's arrays, [L * D, B, width] each.
template <class V>
CellState<V> cell_state(const StackConfig& config, Index B, Index k,
                        V* const (&parts)[kMostStateParts]) {
  CellState<V> state;
  for (Index p = 0; p <= config.memory_parts(); ++p) {
    const Index width = p == 0 ? config.output_size() : config.hidden_size;
    if (parts[p] != nullptr) state.part[p] = parts[p] + k * B * width;
  }
  return state;
}

/// h: [B, P], memory: [B, M] out, sorted.
template <class T>
void sort_states(const StackConfig& config, const RowSchedule& rows, const CellState<const T>& from,
                 T* h, T* memory) {
  const Index H = config.hidden_size, M = config.memory_size();
  sort_state(rows, from.h(), config.output_size(), h, config.output_size());
  for (Index k = 0; k < config.memory_parts(); ++k) {
    sort_state(rows, from.memory(k), H, memory + k * H, M);
  }
}

/// The other way round.
template <class T>
void unsort_states(const StackConfig& config, const RowSchedule& rows, const T* h, const T* memory,
                   const CellState<T>& to) {
  const Index H = config.hidden_size, M = config.memory_size();
  unsort_state(rows, h, config.output_size(), config.output_size(), to.h());
  for (Index k = 0; k < config.memory_parts(); ++k) {
    unsort_state(rows, memory + k * H, M, H, to.memory(k));
  }
}

}  // namespace fastlstm

#include "passes/segments.hpp"

#include <algorithm>
#include <utility>

#include "passes/forward.hpp"
#include "passes/masks.hpp"
#include "passes/merge.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

template <class T>
const T* layer_input(Saved<T>& saved, Index layer, const RowSchedule& rows, Index first_row,
                     Buffer<T>& dropped) {
  const Index width = saved.config().layer_input_size(layer);
  if (layer == 0) return saved.x.data() + first_row * width;
  const T* x = saved.output(layer - 1) + first_row * width;
  if (saved.regularisation.dropout == 0) return x;
  dropped.reserve(rows.rows(), width);
  in_region([&] { drop_rows(rows, saved.regularisation, layer - 1, x, width, dropped.data()); });
  return dropped.data();
}

template <class T>
Saved<T> run_segment(Saved<T>& saved, Index k, Index first, Index end, const CellState<T>& state,
                     SavedArrays<T> arrays) {
  const StackConfig& config = saved.config();
  const Index layer = k / config.directions();
  // Less what is done to its input and its weights already.
  Regularisation inside = saved.regularisation;
  inside.dropout = inside.weight_dropout = 0;
  Saved<T> run(saved.layers.only(k), saved.rows.steps_of(first, end), inside, true,
               std::move(arrays));
  const Index values = run.rows.rows() * config.layer_input_size(layer);
  Buffer<T> dropped;
  const T* x = layer_input(saved, layer, run.rows, saved.rows.offset(first), dropped);
  std::copy_n(x, values, run.x.data());
  ForwardCall<T> call;
  call.steps = end - first;
  call.B = saved.rows.B();
  for (Index part = 0; part < kMostStateParts; ++part) {
    call.state_0[part] = call.state_n[part] = state.part[part];
  }
  run.save_state(call.state_0);
  forward_layers(run.layers, call, run.rows, &run);
  return run;
}

template <class T>
void forward_in_segments(Saved<T>& saved, const ForwardCall<T>& call, const MemoryPlan& plan) {
  const FlushDenormals flush_denormals;
  const StackConfig& config = saved.config();
  const RowSchedule& rows = saved.rows;
  const Index D = config.directions(), P = config.output_size(), H = config.hidden_size;
  const Index width = D * P;
  LongestSegments longest;
  for (Index d = 0; d < D; ++d) {
    for (const Segment& s : segments_of(rows, config.runs_backward(d), plan)) {
      longest.count(rows, s.first, s.end, s.kept);
    }
  }
  SavedArrays<T> arrays;
  Room room;
  Saved<T>::add_arrays(saved.layers, longest.rows, longest.again, arrays, room);
  for (Index k = 0; k < config.cells(); ++k) {
    // The final state is where the running one is.
    const CellState<T> state = cell_state(config, rows.B(), k, call.state_n);
    const CellState<const T> state_0 = cell_state(config, rows.B(), k, call.state_0);
    copy_or_zero(state_0.h(), rows.B() * P, state.h());
    for (Index m = 0; m < config.memory_parts(); ++m) {
      copy_or_zero(state_0.memory(m), rows.B() * H, state.memory(m));
    }
    auto& segments = saved.segments.emplace_back();
    for (const Segment& s : segments_of(rows, config.runs_backward(k % D), plan)) {
      // What is kept has memory of its own.
      Buffer<T> gates, memory;
      if (s.kept) {
        gates = std::exchange(arrays.gates, Buffer<T>());
        memory = std::exchange(arrays.memory, Buffer<T>());
      }
      Saved<T> run = run_segment(saved, k, s.first, s.end, state, std::move(arrays));
      T* output = saved.output(k / D) + rows.offset(s.first) * width + k % D * P;
      for (Index row = 0; row < run.rows.rows(); ++row) {
        std::copy_n(run.output(0) + row * P, P, output + row * width);
      }
      segments.push_back(
          {s.first, s.end, std::move(run.h_0), std::move(run.memory_0), s.kept, {}, {}});
      if (s.kept) {
        segments.back().gates = std::move(run.all_gates);
        segments.back().memory = std::move(run.all_memory);
      }
      arrays = run.leave_arrays();
      if (s.kept) {
        arrays.gates = std::move(gates);
        arrays.memory = std::move(memory);
      }
    }
  }
  arrays = {};
  const T* output = saved.output(config.num_layers - 1);
  if (config.merge == Merge::kConcat) return unpack_rows(rows, output, width, width, call.output);
  Buffer<T> merged(rows.rows(), P);
  in_region([&] {
    SmallItems asks;
    for (Index row = 0; row < rows.rows() && !asks.interrupted_before(width); ++row) {
      merge_row(config.merge, output + row * width, P, merged.data() + row * P);
    }
  });
  unpack_rows(rows, merged.data(), P, P, call.output);
}

#define FASTLSTM_INSTANTIATE(T)                                                           \
  template const T* layer_input(Saved<T>&, Index, const RowSchedule&, Index, Buffer<T>&); \
  template Saved<T> run_segment(Saved<T>&, Index, Index, Index, const CellState<T>&,      \
                                SavedArrays<T>);                                          \
  template void forward_in_segments(Saved<T>&, const ForwardCall<T>&, const MemoryPlan&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "rnn/segments.hpp"

#include <algorithm>
#include <utility>

#include "rnn/dropout.hpp"
#include "rnn/merge.hpp"
#include "rnn/stack_forward.hpp"
#include "runtime/fp_mode.hpp"

namespace fastlstm {

template <class T>
const T* layer_input(Saved<T>& saved, Index layer, const RowSchedule& rows, Index first_row,
                     Buffer<T>& dropped) {
  const StackConfig& config = saved.config();
  const Index width = config.layer_input_size(layer);
  if (layer == 0) return saved.x.data() + first_row * width;
  const T* x = saved.output(layer - 1) + first_row * width;
  if (saved.dropout.p == 0) return x;
  dropped.reserve(rows.rows(), width);
  drop_rows(rows, saved.dropout, layer - 1, x, width, dropped.data());
  return dropped.data();
}

template <class T>
Saved<T> run_segment(Saved<T>& saved, Index k, Index first, Index end, T* h, T* c,
                     typename Saved<T>::Room room) {
  const StackConfig& config = saved.config();
  const Index layer = k / config.directions();
  Dropout inside = saved.dropout;  // less what is done to its input and its weights already
  inside.p = inside.weight = 0;
  Saved<T> run(saved.stack.cell(k), saved.rows.steps_of(first, end), inside, true, std::move(room));
  const Index values = run.rows.rows() * config.layer_input_size(layer);
  Buffer<T> dropped;
  const T* x = layer_input(saved, layer, run.rows, saved.rows.offset(first), dropped);
  std::copy_n(x, values, run.x.data());
  run.save_state(h, c);
  ForwardCall<T> call;
  call.T_ = end - first;
  call.B = saved.rows.B();
  call.h_0 = call.h_n = h;
  call.c_0 = call.c_n = c;
  forward_layers(run.stack, call, run.rows, &run);
  return run;
}

template <class T>
void forward_in_segments(Saved<T>& saved, const ForwardCall<T>& call, const MemoryPlan& plan) {
  const FlushDenormals flush_denormals;
  const StackConfig& config = saved.config();
  const RowSchedule& rows = saved.rows;
  const Index D = config.directions(), P = config.output_size(), C = config.c_size();
  const Index width = D * P;
  LongestSegments longest;
  for (Index d = 0; d < D; ++d) {
    for (const Segment& s : segments_of(rows, config.runs_backward(d), plan)) {
      longest.count(rows, s.first, s.end, s.kept);
    }
  }
  typename Saved<T>::Room room = Saved<T>::room_for(config, longest.rows, longest.again);
  for (Index k = 0; k < config.cells(); ++k) {
    // The final state is where the running one is.
    T* const h = call.h_n + k * rows.B() * P;
    T* const c = call.c_n + k * rows.B() * C;
    copy_or_zero(call.h_0 ? call.h_0 + k * rows.B() * P : nullptr, rows.B() * P, h);
    copy_or_zero(call.c_0 ? call.c_0 + k * rows.B() * C : nullptr, rows.B() * C, c);
    auto& segments = saved.segments.emplace_back();
    for (const Segment& s : segments_of(rows, config.runs_backward(k % D), plan)) {
      // What is kept has memory of its own.
      Buffer<T> gates, all_c;
      if (s.kept) {
        gates = std::exchange(room.gates, Buffer<T>());
        all_c = std::exchange(room.c, Buffer<T>());
      }
      Saved<T> run = run_segment(saved, k, s.first, s.end, h, c, std::move(room));
      T* output = saved.output(k / D) + rows.offset(s.first) * width + k % D * P;
      for (Index row = 0; row < run.rows.rows(); ++row) {
        std::copy_n(run.output(0) + row * P, P, output + row * width);
      }
      segments.push_back({s.first, s.end, std::move(run.h_0), std::move(run.c_0), s.kept, {}, {}});
      if (s.kept) {
        segments.back().gates = std::move(run.all_gates);
        segments.back().c = std::move(run.all_c);
      }
      room = run.leave_room();
      if (s.kept) {
        room.gates = std::move(gates);
        room.c = std::move(all_c);
      }
    }
  }
  room = {};
  const T* output = saved.output(config.num_layers - 1);
  if (config.merge == Merge::kConcat) return unpack_rows(rows, output, width, call.output);
  Buffer<T> merged(rows.rows(), P);
  for (Index row = 0; row < rows.rows(); ++row) {
    merge_row(config.merge, output + row * width, P, merged.data() + row * P);
  }
  unpack_rows(rows, merged.data(), P, call.output);
}

#define FASTLSTM_INSTANTIATE(T)                                                                   \
  template const T* layer_input(Saved<T>&, Index, const RowSchedule&, Index, Buffer<T>&);         \
  template Saved<T> run_segment(Saved<T>&, Index, Index, Index, T*, T*, typename Saved<T>::Room); \
  template void forward_in_segments(Saved<T>&, const ForwardCall<T>&, const MemoryPlan&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "rnn/cell_on_blas.hpp"
#include "rnn/dropout.hpp"
#include "rnn/stack_forward.hpp"
#include "rnn/thread_plan.hpp"
#include "runtime/blas.hpp"

namespace fastlstm {

template <class T>
void forward_on_blas(const Stack<T>& stack, const ForwardCall<T>& call, const RowSchedule& rows,
                     Saved<T>* saved) {
  require_blas();
  const SingleThreadedBlas single_threaded_blas;
  const StackConfig& config = stack.config();
  const Index D = config.directions(), P = config.output_size(), C = config.c_size();
  TeamLease team(threads_worth(products_of(config, rows)));
  const Index width = D * P;
  BlasWorkspace<T> workspace(config, rows, saved != nullptr);

  Buffer<T> h(rows.B(), P), c(rows.B(), C);
  Buffer<T> packed_x, dropped;
  // In inference the layers pass their rows on through two buffers, used in turn.
  Buffer<T> between[2];

  const T* layer_x = call.x.data;
  if (saved != nullptr) {
    if (layer_x != nullptr) pack_rows(rows, call.x, config.input_size, saved->x.data());
    layer_x = saved->x.data();
  } else if (!rows.is_packed(call.x, config.input_size)) {
    packed_x.resize(rows.rows(), config.input_size);
    pack_rows(rows, call.x, config.input_size, packed_x.data());
    layer_x = packed_x.data();
  }

  for (Index layer = 0; layer < config.num_layers; ++layer) {
    const bool last = layer + 1 == config.num_layers;
    const bool direct = last && saved == nullptr && rows.is_packed(call.output, width);
    T* layer_output = direct ? call.output.data : nullptr;
    if (saved != nullptr) {
      layer_output = saved->output(layer);
    } else if (!direct) {
      Buffer<T>& buffer = between[layer % 2];
      if (buffer.size() == 0) buffer.resize(rows.rows(), width);
      layer_output = buffer.data();
    }
    for (Index d = 0; d < D; ++d) {
      const Index k = layer * D + d;
      const Index state_h = k * rows.B() * P, state_c = k * rows.B() * C;
      sort_state(rows, call.h_0 ? call.h_0 + state_h : nullptr, P, h.data());
      sort_state(rows, call.c_0 ? call.c_0 + state_c : nullptr, C, c.data());
      const CellNoise<T> noise(config, k, saved != nullptr ? &saved->dropout : nullptr, rows);
      direction_forward<T>({stack.weights(k), rows, noise, config.runs_backward(d), layer_x,
                            h.data(), c.data(), layer_output + d * P, width,
                            saved ? saved->gates(k) : nullptr, saved ? saved->c(k) : nullptr,
                            workspace, team});
      unsort_state(rows, h.data(), P, call.h_n + state_h);
      unsort_state(rows, c.data(), C, call.c_n + state_c);
    }
    if (last && !direct && call.output.data != nullptr)
      unpack_rows(rows, layer_output, width, call.output);
    layer_x = layer_output;
    if (!last && saved != nullptr && saved->dropout.p > 0) {
      if (dropped.size() == 0) dropped.resize(rows.rows(), width);
      drop_rows(rows, saved->dropout, layer, layer_output, width, dropped.data());
      layer_x = dropped.data();
    }
  }
}

#define FASTLSTM_INSTANTIATE(T)                                                             \
  template void forward_on_blas(const Stack<T>&, const ForwardCall<T>&, const RowSchedule&, \
                                Saved<T>*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "passes/steps_backward.hpp"

#include <algorithm>

namespace fastlstm {

template <class T>
StepsBackward<T>::StepsBackward(const Layers<T>& layers, BackwardShape<T> shape,
                                const CellMasks<T>& masks, const StepsBackwardCall<T>& call,
                                Room& room)
    : w_(shape.weights),
      rows_(shape.rows),
      backward_(shape.backward),
      gates_width_(layers.gates_width()),
      masks_(masks),
      call_(call),
      ld_d_h_(backward_columns<T>(w_.P)),
      projection_(w_, rows_.B(), shape.block_rows, room) {
  const Index B = rows_.B();
  room.add(d_h_, B, ld_d_h_);
  room.add(d_gates_, shape.block_rows, w_.GH);
  room.add(h_prev_, shape.block_rows, w_.P);
  if (masks_.zones_c()) room.add(keep_c_, B, w_.H);
  if (masks_.zones_h()) room.add(d_kept_h_, B, w_.P);
  if (masks_.drops_h()) room.add(h_mask_, B, w_.P);
  shape.ld_d_h = ld_d_h_;
  shape.keep_c = keep_c_.data();
  shape.h_mask = h_mask_.data();
  cell_ = layers.cell->backward(shape, room);
  if (room.counts()) return;
  for (Index b = 0; b < B; ++b) {
    std::copy_n(call.d_h + b * w_.P, w_.P, d_h_.data() + b * ld_d_h_);
    if (masks_.drops_h()) masks_.h_mask(b, w_.P, h_mask_.data() + b * w_.P);
  }
}

template <class T>
void StepsBackward<T>::step(const StepBlock& block, Index t, Index task, Piece rows,
                            const Share& share) noexcept {
  const Index first = rows.first, end = std::min(first + rows.size, rows_.live(t));
  cell_->before_step(block, t, task);
  if (first < end) {
    const Index row = rows_.offset(t), in_block = row - block.first_row;
    const PreviousRows previous = previous_rows(t, first, end);
    if (share.rank == 0) begin(t, previous, in_block, first, end);
    T* const h_prev = h_prev_.data() + in_block * w_.P;
    BackwardStep<T> s{share};
    s.task = task;
    s.first = first;
    s.end = end;
    s.carried = previous.carried;
    s.down = reads_down(t, end - first);
    s.row = row;
    s.in_block = in_block;
    if (gates_width_ > 0) s.gates = call_.gates + row * gates_width_;
    s.memory = call_.memory + row * w_.M;
    s.memory_before = call_.memory + previous.row * w_.M;
    s.memory_0 = call_.memory_0;
    s.output = call_.output + row * call_.ld_output;
    s.ld_output = call_.ld_output;
    s.h_prev = h_prev;
    s.d_h = projection_.projects() ? projection_.d_hidden() : d_h_.data();
    s.ld_d_h = projection_.projects() ? w_.H : ld_d_h_;
    s.d_h_prev = d_h_.data();
    s.d_memory = call_.d_memory;
    s.d_h_past_R = call_.d_h_past_R;
    s.d_gates = d_gates_.data() + in_block * w_.GH;
    s.hidden = projection_.hidden(in_block);
    cell_->step(s);
    if (share.rank == 0) this->end(h_prev, first, end);
  }
  cell_->after_step(block, t, task);
}

template <class T>
typename StepsBackward<T>::PreviousRows StepsBackward<T>::previous_rows(Index t, Index first,
                                                                        Index end) const {
  const Index before = backward_ ? t + 1 : t - 1;
  if (before < 0 || before >= rows_.steps()) return {first, 0};
  return {std::clamp(rows_.live(before), first, end), rows_.offset(before)};
}

template <class T>
void StepsBackward<T>::begin(Index t, const PreviousRows& previous, Index in_block, Index first,
                             Index end) noexcept {
  const Index P = w_.P, M = w_.M, row = rows_.offset(t);
  if (call_.d_h_steps != nullptr) {
    for (Index b = first; b < end; ++b) {
      T* d_h = call_.d_h_steps + (row + b) * P;
      std::copy_n(d_h_.data() + b * ld_d_h_, P, d_h);
      if (call_.d_h_past_R != nullptr) {
        for (Index k = 0; k < P; ++k) d_h[k] += call_.d_h_past_R[b * P + k];
      }
      std::copy_n(call_.d_memory + b * M, M, call_.d_memory_steps + (row + b) * M);
    }
  }
  if (call_.d_output != nullptr) {
    for (Index b = first; b < end; ++b) {
      const T* d_output = call_.d_output + (row + b) * call_.ld_output;
      T* d_h = d_h_.data() + b * ld_d_h_;
      for (Index k = 0; k < P; ++k) d_h[k] += d_output[k];
    }
  }
  if (masks_.zones_h()) keep_h(t, first, end);
  for (Index b = first; masks_.zones_c() && b < end; ++b) {
    masks_.keep_c(t, b, 0, w_.H, keep_c_.data() + b * w_.H);
  }
  if (projection_.projects()) projection_.step(d_h_.data(), ld_d_h_, in_block, first, end);
  T* h_prev = h_prev_.data() + in_block * P;
  const Index carried = previous.carried;
  for (Index b = first; b < carried; ++b) {
    std::copy_n(call_.output + (previous.row + b) * call_.ld_output, P, h_prev + b * P);
  }
  std::copy_n(call_.h_0 + carried * P, (end - carried) * P, h_prev + carried * P);
}

template <class T>
void StepsBackward<T>::keep_h(Index t, Index first, Index end) noexcept {
  const Index P = w_.P;
  for (Index b = first; b < end; ++b) {
    T *d_h = d_h_.data() + b * ld_d_h_, *d_kept = d_kept_h_.data() + b * P;
    masks_.keep_h(t, b, 0, P, d_kept);
    T* const apart = call_.d_h_past_R != nullptr ? call_.d_h_past_R + b * P : nullptr;
    for (Index k = 0; k < P; ++k) {
      const T keep = d_kept[k];
      d_kept[k] = keep * (apart != nullptr ? d_h[k] + apart[k] : d_h[k]);
      d_h[k] = (1 - keep) * d_h[k];
      if (apart != nullptr) apart[k] = (1 - keep) * apart[k];
    }
  }
}

template <class T>
void StepsBackward<T>::end(T* h_prev, Index first, Index end) noexcept {
  const Index P = w_.P;
  for (Index b = first; b < end; ++b) {
    T* d_h = d_h_.data() + b * ld_d_h_;
    for (Index k = 0; masks_.drops_h() && k < P; ++k) {
      h_prev[b * P + k] *= h_mask_.data()[b * P + k];
      d_h[k] *= h_mask_.data()[b * P + k];
    }
    for (Index k = 0; masks_.zones_h() && k < P; ++k) d_h[k] += d_kept_h_.data()[b * P + k];
  }
}

template <class T>
void StepsBackward<T>::finish() {
  for (Index b = 0; b < rows_.B(); ++b) {
    std::copy_n(d_h_.data() + b * ld_d_h_, w_.P, call_.d_h + b * w_.P);
  }
}

template <class T>
void StepsBackward<T>::add_gradients(Index rows, const CellParams<T>& d) noexcept {
  cell_->add_gradients(rows, d_gates_.data(), d);
  projection_.add_gradient(rows, d.weight_hr);
}

template class StepsBackward<float>;
template class StepsBackward<double>;

}  // namespace fastlstm

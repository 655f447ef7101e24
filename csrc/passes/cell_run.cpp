#include "passes/cell_run.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/tuning.hpp"
#include "schedule/parts.hpp"

namespace fastlstm {

namespace {

Index padded(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Elements between the rows of a state: not a multiple of 4096 bytes, whose rows would share sets
/// of the L1 cache.
template <class T>
Index padded_row(Index n, Index multiple) {
  const Index row = padded(n, multiple);
  return row * static_cast<Index>(sizeof(T)) % 4096 == 0 ? row + multiple : row;
}

Index projected_rows() { return static_cast<Index>(tuning().projected_rows); }

}  // namespace

template <class T>
ThreadBuffers<T>::ThreadBuffers(const Layers<T>& layers, const RowSchedule& rows, Room& room) {
  const auto most = static_cast<std::size_t>(std::max({projected_rows(), rows.B(), kAheadSteps}));
  inputs.resize(most);
  outputs.resize(most);
  room.add(sums, sums_values(layers, rows));
  room.add(converted, converted_bytes(layers, rows));
}

template <class T>
Index ThreadBuffers<T>::sums_values(const Layers<T>& layers, const RowSchedule& rows) {
  if (layers.cell->inputs_first()) return 0;
  const PanelLayout& layout = layers.weights(0).R.layout();  // that of all layers
  return step_sums(rows.B(), layout.blocks(), layout.width());
}

template <class T>
Index ThreadBuffers<T>::converted_bytes(const Layers<T>& layers, const RowSchedule& rows) {
  const StackConfig& config = layers.config;
  if (!converts_inputs(config.arithmetic)) return 0;
  // Of x and h together, or of h before a projection.
  return std::max(fastlstm::converted_bytes(rows.rows(), config.widest_input()) +
                      fastlstm::converted_bytes(rows.rows(), config.output_size()),
                  fastlstm::converted_bytes(rows.rows(), config.hidden_size));
}

template <class T>
CellRun<T>::CellRun(const Layers<T>& layers, Index k, const RowSchedule& rows,
                    const Regularisation* regularisation, Room& room)
    : w_(layers.weights(k)),
      rows_(rows),
      backward_(layers.config.runs_backward(k % layers.config.directions())),
      inputs_first_(layers.cell->inputs_first()),
      gates_width_(layers.gates_width()),
      memory_parts_(layers.config.memory_parts()),
      layout_(w_.R.layout()),
      grain_(std::max<Index>(1, 64 / (layout_.block_units * static_cast<Index>(sizeof(T))))),
      ld_units_(padded_row<T>(w_.H, layout_.block_units * grain_)),
      ld_h_(w_.projects ? padded_row<T>(w_.P, 4 * kernels<T>().lanes) : ld_units_),
      at_once_(projects_inputs(w_.I) || inputs_first_ ? projected_steps(rows) : 1),
      least_to_project_ahead_(least_threads_to_project_ahead()),
      most_rows_down_(static_cast<Index>(tuning().rows_down)),
      masks_(layers.masks(k, regularisation, rows)) {
  const Index B = rows.B();
  room.add(h_, Count(2) * B, ld_h_);
  room.add(memory_, Count(memory_parts_) * B, ld_units_);
  if (w_.projects) room.add(hidden_, B, ld_units_);
  if (masks_.zones_c()) room.add(keep_c_, B, ld_units_);
  if (masks_.zones_h()) room.add(keep_h_, B, ld_h_);
  if (masks_.drops_h()) {
    room.add(h_mask_, B, ld_h_);
    room.add(masked_h_, Count(2) * B, ld_h_);
  }
  if (at_once_ > 1 || inputs_first_) {
    room.add(projected_, std::min(rows.rows(), at_once_ * B), layout_.columns());
  }
  cell_ = layers.cell->forward({w_, B, ld_units_, ld_h_, masks_.zones_c(), keep_c_.data()}, room);
  if (room.counts()) return;
  h_.fill_zero();
  memory_.fill_zero();
  masked_h_.fill_zero();
  for (Index b = 0; b < B; ++b) {
    if (masks_.zones_c()) {
      masks_.keep_c(0, b, 0, ld_units_, keep_c_.data() + b * ld_units_);
    }
    if (masks_.zones_h()) masks_.keep_h(0, b, 0, ld_h_, keep_h_.data() + b * ld_h_);
    if (masks_.drops_h()) masks_.h_mask(b, w_.P, h_mask_.data() + b * ld_h_);
  }
}

template <class T>
Index CellRun<T>::projected_steps(const RowSchedule& rows) {
  if (rows.B() == 0) return 1;
  return std::max<Index>(1, std::min(projected_rows() / rows.B(), rows.steps()));
}

template <class T>
void CellRun<T>::set_state(const CellState<const T>& state) {
  for (Index b = 0; b < rows_.B(); ++b) {
    const Index place = rows_.place(b);
    for (Index s : {0, 1}) {  // a row that starts late finds its state in either
      T* to = h(s) + b * ld_h_;
      copy_or_zero(state.h() != nullptr ? state.h() + place * w_.P : nullptr, w_.P, to);
      if (masks_.drops_h()) {
        for (Index j = 0; j < w_.P; ++j) {
          masked_h(s)[b * ld_h_ + j] = to[j] * h_mask_.data()[b * ld_h_ + j];
        }
      }
    }
    for (Index k = 0; k < memory_parts_; ++k) {
      const T* from = state.memory(k);
      copy_or_zero(from != nullptr ? from + place * w_.H : nullptr, w_.H,
                   memory(k) + b * ld_units_);
    }
  }
}

template <class T>
void CellRun<T>::get_state(const CellState<T>& state) const {
  for (Index b = 0; b < rows_.B(); ++b) {
    const Index place = rows_.place(b);
    // The steps computed when the row's last one was: it has written the other buffer.
    const Index steps = backward_ ? rows_.steps() : rows_.length(b);
    std::copy_n(h_.data() + (side(steps) * rows_.B() + b) * ld_h_, w_.P, state.h() + place * w_.P);
    for (Index k = 0; k < memory_parts_; ++k) {
      std::copy_n(memory(k) + b * ld_units_, w_.H, state.memory(k) + place * w_.H);
    }
  }
}

template <class T>
double CellRun<T>::least_threads_to_project_ahead() const {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  // Small weights do not keep the CPU waiting for long.
  if (!kernels<T>().projects_ahead || inputs_first_ || is_small(w_.R.view().arithmetic)) {
    return kNever;
  }
  const Tuning& tuned = tuning();
  const auto weights = static_cast<double>(w_.GH * (w_.I + w_.P));
  if (rows_.B() != 1 || at_once_ < 2 * kAheadSteps || weights < tuned.ahead_least_weights ||
      weights > tuned.ahead_most_weights) {
    return kNever;
  }
  return weights * static_cast<double>(sizeof(T)) / tuned.ahead_most_bytes;
}

template <class T>
void CellRun<T>::run_ahead(const Run& run, const Share& share, ThreadBuffers<T>& own) {
  const auto [first_block, end_block] = share.range(layout_.blocks(), grain_);
  const Index ld = layout_.columns();
  const T* x[kAheadSteps];
  const auto take_inputs = [&](Index first) {
    for (Index k = 0; k < kAheadSteps; ++k) {  // after the end the last one again
      x[k] = run.x.row(rows_, time(std::min(first + k, run.steps.end - 1)), 0);
    }
  };
  take_inputs(run.steps.first);
  ProjectRows<T> call{};
  call.rows = kAheadSteps;
  call.first_block = first_block;
  call.end_block = end_block;
  call.V = layout_.width() / kernels<T>().lanes;
  call.K = w_.I;
  call.x = x;
  call.panel = w_.input->W.view();
  call.bias = w_.bias_panel.data();
  call.out = projected_.data();
  call.ld_out = ld;
  project_rows(call);
  Index row = 0, next_row = kAheadSteps;  // of projected_
  for (Index first = run.steps.first; first < run.steps.end; first += kAheadSteps) {
    const Index end = std::min(first + kAheadSteps, run.steps.end);
    take_inputs(end);
    ProjectAhead<T> ahead{x, projected_.data() + next_row * ld, ld, false, first_block, 0};
    for (Index s = first; s < end; ++s) {
      ahead.last_step = s + 1 == end;
      step(run, s, row + s - first, share, own, end < run.steps.end ? &ahead : nullptr);
    }
    std::swap(row, next_row);
  }
}

template <class T>
void CellRun<T>::run(const Run& run, const Share& share, ThreadBuffers<T>& own) {
  if (share.size >= least_to_project_ahead_) return run_ahead(run, share, own);
  for (Index first = run.steps.first; first < run.steps.end; first += at_once_) {
    const StepRange steps{first, std::min(first + at_once_, run.steps.end)};
    if (projected_.size() > 0) project_inputs(run, steps, share, own);
    // Packed rows follow time, whichever way the steps go.
    const Index first_row = rows_.offset(std::min(time(steps.first), time(steps.end - 1)));
    for (Index s = steps.first; s < steps.end; ++s) {
      step(run, s, rows_.offset(time(s)) - first_row, share, own);
    }
  }
}

template <class T>
void CellRun<T>::project_inputs(const Run& run, StepRange steps, const Share& share,
                                ThreadBuffers<T>& own) {
  const auto [first_block, end_block] = share.range(layout_.blocks(), grain_);
  const Index t_first = std::min(time(steps.first), time(steps.end - 1));
  const Index t_end = t_first + (steps.end - steps.first);
  Index n = 0;
  for (Index t = t_first; t < t_end; ++t) {
    for (Index b = 0; b < rows_.live(t); ++b) {
      own.inputs[static_cast<std::size_t>(n++)] = run.x.row(rows_, t, b);
    }
  }
  ProjectRows<T> call{};
  call.rows = n;
  call.V = layout_.width() / kernels<T>().lanes;
  call.K = w_.I;
  call.x = own.inputs.data();
  call.panel = w_.input->W.view();
  call.bias = w_.bias_panel.data();
  call.out = projected_.data();
  call.ld_out = layout_.columns();
  call.room = own.converted.data();
  for (Index part = 0; part < layout_.parts(); ++part) {
    call.first_block = part * layout_.blocks() + first_block;
    call.end_block = part * layout_.blocks() + end_block;
    project_rows(call);
  }
  cell_->finish_inputs(n, projected_.data(), layout_.columns(), share);
}

template <class T>
void CellRun<T>::step(const Run& run, Index s, Index projected_row, const Share& share,
                      ThreadBuffers<T>& own, ProjectAhead<T>* ahead) {
  const Index t = time(s), live = rows_.live(t);
  const bool fused = projected_.size() == 0;
  const auto [first_block, end_block] = share.range(layout_.blocks(), grain_);
  for (Index b = 0; b < live; ++b) {
    if (fused) own.inputs[static_cast<std::size_t>(b)] = run.x.row(rows_, t, b);
    own.outputs[static_cast<std::size_t>(b)] = run.output.row(rows_, t, b);
  }
  const bool save = run.gates != nullptr || run.memory != nullptr;
  const Index saved_row = save ? rows_.packed_row(t, 0) : 0;
  const Index saved_stride = save && live > 1 ? rows_.packed_row(t, 1) - saved_row : 1;

  ForwardStep<T> cell_step{share, step_arguments(s, live, own), own.inputs.data()};
  CellStepTile<T>& call = cell_step.tile;
  call.first_block = first_block;
  call.end_block = end_block;
  call.x = fused ? own.inputs.data() : nullptr;
  call.projected = fused ? nullptr : projected_.data() + projected_row * call.ld_projected;
  call.output = w_.projects ? nullptr : own.outputs.data();
  call.gates = save && gates_width_ > 0 ? run.gates + saved_row * gates_width_ : nullptr;
  call.ld_gates = saved_stride * gates_width_;
  call.saved_memory = save ? run.memory + saved_row * w_.M : nullptr;
  call.ld_saved_memory = saved_stride * w_.M;
  call.ahead = ahead;
  const Index units = layout_.block_units;
  const Index first_unit = first_block * units, end_unit = std::min(w_.H, end_block * units);
  if (masks_.zones_c() && masks_.draws_zoneout()) {
    for (Index b = 0; b < live; ++b) {
      masks_.keep_c(t, b, first_unit, end_unit - first_unit,
                    keep_c_.data() + b * ld_units_ + first_unit);
    }
  }
  cell_->step(cell_step);
  if (!w_.projects) regularise(s, first_unit, end_unit, own);
  share.wait();
  if (w_.projects) project_h(s, share, own);
}

template <class T>
CellStepTile<T> CellRun<T>::step_arguments(Index s, Index rows, ThreadBuffers<T>& own) {
  CellStepTile<T> call{};
  call.rows = rows;
  call.end_block = layout_.blocks();
  call.H = w_.H;
  call.I = w_.I;
  call.P = w_.P;
  call.W = w_.input->W.view();
  call.bias = w_.bias_panel.data();
  call.bias_h = w_.bias_h.data();
  call.ld_projected = layout_.columns();
  call.h_prev = masks_.drops_h() ? masked_h(s) : h(s);
  call.h_past_R = h(s);
  call.ld_h_prev = ld_h_;
  call.R = w_.R.view();
  for (Index k = 0; k < memory_parts_; ++k) call.memory[k] = memory(k);
  call.ld_memory = ld_units_;
  call.h = w_.projects ? hidden_.data() : h(s + 1);
  call.ld_h = w_.projects ? ld_units_ : ld_h_;
  call.sums = own.sums.data();
  call.room = own.converted.data();
  call.down = rows <= most_rows_down_ && side(s) != 0;  // as reads_down; goes on in a stream
  return call;
}

template <class T>
std::optional<PlannedStep<T>> CellRun<T>::plan(ThreadBuffers<T>& own) {
  const StepKernel<T> kernel = cell_->one_kernel();
  const bool more = w_.projects || masks_.zones_h() || masks_.drops_h() || masks_.draws_zoneout();
  if (kernel.run == nullptr || more) return std::nullopt;
  PlannedStep<T> step{kernel.run, {}};
  for (const Index s : {0, 1}) {
    CellStepTile<T>& call = step.calls[side(s)];
    call = step_arguments(s, rows_.B(), own);
    call.options = kernel.options;
  }
  return step;
}

template <class T>
void CellRun<T>::project_h(Index s, const Share& share, ThreadBuffers<T>& own) {
  const Index live = rows_.live(time(s)), columns = w_.W_hr.layout().width();
  const auto [first_column, end_column] = share.range(w_.W_hr.layout().blocks(), 1);
  for (Index b = 0; b < live; ++b) {
    own.inputs[static_cast<std::size_t>(b)] = hidden_.data() + b * ld_units_;
  }
  ProjectRows<T> call{};
  call.rows = live;
  call.first_block = first_column;
  call.end_block = end_column;
  call.V = 4;
  call.K = w_.H;
  call.x = own.inputs.data();
  call.panel = w_.W_hr.view();
  call.out = h(s + 1);
  call.ld_out = ld_h_;
  call.room = own.converted.data();
  project_rows(call);
  const Index from = first_column * columns, to = std::min(w_.P, end_column * columns);
  for (Index b = 0; b < live && from < to; ++b) {
    std::copy_n(h(s + 1) + b * ld_h_ + from, to - from,
                own.outputs[static_cast<std::size_t>(b)] + from);
  }
  regularise(s, from, to, own);
  share.wait();
}

template <class T>
void CellRun<T>::regularise(Index s, Index first, Index end, ThreadBuffers<T>& own) {
  if (!masks_.zones_h() && !masks_.drops_h()) return;
  const Index t = time(s);
  for (Index b = 0; b < rows_.live(t); ++b) {
    const Index row = b * ld_h_;
    T* new_h = h(s + 1) + row;
    if (masks_.zones_h()) {
      const T *old_h = h(s) + row, *keep = keep_h_.data() + row;
      if (masks_.draws_zoneout()) {
        masks_.keep_h(t, b, first, end - first, keep_h_.data() + row + first);
      }
      T* output = own.outputs[static_cast<std::size_t>(b)];
      for (Index j = first; j < end; ++j) {
        new_h[j] = keep[j] * old_h[j] + (1 - keep[j]) * new_h[j];
        output[j] = new_h[j];
      }
    }
    if (masks_.drops_h()) {
      T* masked = masked_h(s + 1) + row;
      const T* mask = h_mask_.data() + row;
      for (Index j = first; j < end; ++j) masked[j] = new_h[j] * mask[j];
    }
  }
}

template struct ThreadBuffers<float>;
template struct ThreadBuffers<double>;
template class CellRun<float>;
template class CellRun<double>;

}  // namespace fastlstm

#include "rnn/cell_on_tiles.hpp"

#include "runtime/cpu.hpp"

namespace fastlstm {

namespace {

/// Rows that the chunked path projects at once: each weight is then read from the L2 cache for many
/// rows, and what they give stays there until the recurrence reads it.
constexpr Index kProjectedRows = 48;

/// The weights of a layer that pay for projecting ahead. Fewer come from the L1 cache (a layer of H
/// = 32 took 4 % longer), and more have no place for inputs' weights in the L3 cache (H = 1024).
/// Where the L3 cache is slow, they must not push R out of the L2 cache (Emerald Rapids, GFLOP/s
/// with and without: H = 128 82 and 82, 256 61 and 83, 512 23 and 26, and two threads 52 and 81).
constexpr Index kLeastAheadWeights = 20000, kMostAheadWeights = 4000000;
constexpr Index kMostAheadBytesOfSlowL3 = 1 << 20;

Index padded(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Elements between the rows of a state: not a multiple of 4096 bytes, whose rows would share sets
/// of the L1 cache.
template <class T>
Index padded_row(Index n, Index multiple) {
  const Index row = padded(n, multiple);
  return row * static_cast<Index>(sizeof(T)) % 4096 == 0 ? row + multiple : row;
}

}  // namespace

template <class T>
TileCell<T>::TileCell(const CellWeights<T>& weights, const RowSchedule& rows, bool backward,
                      const CellNoise<T>& noise)
    : w_(weights),
      rows_(rows),
      backward_(backward),
      grain_(std::max<Index>(1, 64 / (w_.cell.block_units * static_cast<Index>(sizeof(T))))),
      ld_c_(padded_row<T>(w_.H, w_.cell.block_units * grain_)),
      ld_h_(w_.projects ? padded_row<T>(w_.P, 4 * kernels<T>().lanes) : ld_c_),
      h_(2 * rows.B(), ld_h_),
      c_(rows.B(), w_.C > 0 ? ld_c_ : 0),
      noise_(noise),
      options_(w_.options),
      projected_(projected_steps(rows) > 1 || w_.cell.in_halves || w_.cell.normalises
                     ? std::min(rows.rows(), projected_steps(rows) * rows.B())
                     : 0,
                 w_.parts * w_.blocks * w_.width) {
  if (w_.projects) hidden_.resize(rows.B(), ld_c_);
  if (w_.cell.in_halves) {
    from_h_.resize(rows.B(), w_.parts * w_.blocks * w_.width);
    reset_h_.resize(rows.B(), ld_h_);
  }
  if (w_.cell.normalises) {
    from_h_.resize(rows.B(), w_.blocks * w_.width);
    if (noise.zones_c()) new_c_.resize(rows.B(), ld_c_);
  }
  h_.fill_zero();
  c_.fill_zero();
  const Index B = rows.B();
  if (noise_.zones_c()) {
    keep_c_.resize(B, ld_c_);
    options_.keep_c = keep_c_.data();
    options_.ld_keep_c = ld_c_;
    for (Index b = 0; b < B; ++b) noise_.keep_c(0, b, 0, ld_c_, keep_c_.data() + b * ld_c_);
  }
  if (noise_.zones_h()) {
    keep_h_.resize(B, ld_h_);
    for (Index b = 0; b < B; ++b) noise_.keep_h(0, b, 0, ld_h_, keep_h_.data() + b * ld_h_);
  }
  if (noise_.drops_h()) {
    h_mask_.resize(B, ld_h_);
    masked_h_.resize(2 * B, ld_h_);
    masked_h_.fill_zero();
    for (Index b = 0; b < B; ++b) noise_.h_mask(b, w_.P, h_mask_.data() + b * ld_h_);
  }
}

template <class T>
Index TileCell<T>::projected_steps(const RowSchedule& rows) {
  if (rows.B() == 0) return 1;
  return std::max<Index>(1, std::min(kProjectedRows / rows.B(), rows.steps()));
}

template <class T>
Index TileCell<T>::scratch_rows(const RowSchedule& rows) {
  return std::max(kProjectedRows, rows.B());
}

template <class T>
void TileCell<T>::set_state(const T* h_0, const T* c_0) {
  for (Index b = 0; b < rows_.B(); ++b) {
    const Index place = rows_.place(b);
    for (Index s : {0, 1}) {  // a row that starts late finds its state in either
      T* to = h(s) + b * ld_h_;
      copy_or_zero(h_0 != nullptr ? h_0 + place * w_.P : nullptr, w_.P, to);
      if (noise_.drops_h()) {
        for (Index j = 0; j < w_.P; ++j) {
          masked_h(s)[b * ld_h_ + j] = to[j] * h_mask_.data()[b * ld_h_ + j];
        }
      }
    }
    copy_or_zero(c_0 != nullptr ? c_0 + place * w_.C : nullptr, w_.C, c_.data() + b * ld_c_);
  }
}

template <class T>
void TileCell<T>::get_state(T* h_n, T* c_n) const {
  for (Index b = 0; b < rows_.B(); ++b) {
    const Index place = rows_.place(b);
    // The steps computed when the row's last one was: it has written the other buffer.
    const Index steps = backward_ ? rows_.steps() : rows_.length(b);
    std::copy_n(h_.data() + (((steps ^ swap_) & 1) * rows_.B() + b) * ld_h_, w_.P,
                h_n + place * w_.P);
    std::copy_n(c_.data() + b * ld_c_, w_.C, c_n + place * w_.C);
  }
}

template <class T>
bool TileCell<T>::projects_ahead() const {
  if (!kernels<T>().projects_ahead || w_.cell.in_halves || w_.cell.normalises) return false;
  const Index weights = w_.GH * (w_.I + w_.P);
  const Index most = cpu_has_fast_l3() ? kMostAheadWeights
                                       : kMostAheadBytesOfSlowL3 / static_cast<Index>(sizeof(T));
  return rows_.B() == 1 && rows_.steps() >= 2 * kAheadSteps && weights >= kLeastAheadWeights &&
         weights <= most;
}

template <class T>
void TileCell<T>::run_ahead(const Run& run, const Part& part, TileScratch<T>& scratch) {
  const auto [first_block, end_block] = part.range(w_.blocks, grain_);
  const Index ld = w_.blocks * w_.width;
  const T* x[kAheadSteps];
  const auto take_inputs = [&](Index first) {
    for (Index k = 0; k < kAheadSteps; ++k) {  // after the end the last one again
      x[k] = run.x.row(rows_, time(std::min(first + k, run.steps.end - 1)), 0);
    }
  };
  take_inputs(run.steps.first);
  kernels<T>().project_rows({kAheadSteps, first_block, end_block, w_.cell.vectors, w_.I, x,
                             w_.input->panel.data(), w_.bias_panel.data(), projected_.data(), ld});
  Index row = 0, next_row = kAheadSteps;  // of projected_
  for (Index first = run.steps.first; first < run.steps.end; first += kAheadSteps) {
    const Index end = std::min(first + kAheadSteps, run.steps.end);
    take_inputs(end);
    ProjectAhead<T> ahead{x, projected_.data() + next_row * ld, ld, false, first_block, 0};
    for (Index s = first; s < end; ++s) {
      ahead.last_step = s + 1 == end;
      step(run, s, row + s - first, part, scratch, end < run.steps.end ? &ahead : nullptr);
    }
    std::swap(row, next_row);
  }
}

template <class T>
void TileCell<T>::run(const Run& run, const Part& part, TileScratch<T>& scratch) {
  if (projects_ahead()) return run_ahead(run, part, scratch);
  const Index at_once = projected_steps(rows_);
  for (Index first = run.steps.first; first < run.steps.end; first += at_once) {
    const StepRange steps{first, std::min(first + at_once, run.steps.end)};
    if (projected_.size() > 0) project(run, steps, part, scratch);
    // Packed rows follow time, whichever way the steps go.
    const Index first_row = rows_.offset(std::min(time(steps.first), time(steps.end - 1)));
    for (Index s = steps.first; s < steps.end; ++s) {
      const Index row = rows_.offset(time(s)) - first_row;
      if (w_.cell.in_halves) {
        step_in_halves(run, s, row, part, scratch);
      } else {
        step(run, s, row, part, scratch);
      }
    }
  }
}

template <class T>
void TileCell<T>::project(const Run& run, StepRange steps, const Part& part,
                          TileScratch<T>& scratch) {
  const auto [first_block, end_block] = part.range(w_.blocks, grain_);
  const Index t_first = std::min(time(steps.first), time(steps.end - 1));
  const Index t_end = t_first + (steps.end - steps.first);
  Index n = 0;
  for (Index t = t_first; t < t_end; ++t) {
    for (Index b = 0; b < rows_.live(t); ++b) {
      scratch.inputs[static_cast<std::size_t>(n++)] = run.x.row(rows_, t, b);
    }
  }
  for (Index k = 0; k < w_.parts; ++k) {
    kernels<T>().project_rows({n, k * w_.blocks + first_block, k * w_.blocks + end_block,
                               w_.cell.vectors, w_.I, scratch.inputs.data(), w_.input->panel.data(),
                               w_.cell.normalises ? nullptr : w_.bias_panel.data(),
                               projected_.data(), w_.parts * w_.blocks * w_.width});
  }
  if (!w_.cell.normalises) return;
  part.wait();
  const Index lanes = kernels<T>().lanes, ld = w_.blocks * w_.width;
  const auto [first_row, end_row] = part.range(n, 1);
  kernels<T>().normalise_sums({end_row - first_row,
                               w_.H,
                               {lanes, w_.width},
                               w_.norm.gain_x,
                               w_.bias.data(),
                               projected_.data() + first_row * ld,
                               ld});
  part.wait();
}

template <class T>
void TileCell<T>::normalised_units(const CellStepTile<T>& call, const Part& part,
                                   TileScratch<T>& scratch) {
  const Index lanes = kernels<T>().lanes, ld = w_.blocks * w_.width;
  for (Index b = 0; b < call.rows; ++b) {
    scratch.inputs[static_cast<std::size_t>(b)] = call.h_prev + b * call.ld_h_prev;
  }
  kernels<T>().project_rows({call.rows, call.first_block, call.end_block, w_.cell.vectors, w_.P,
                             scratch.inputs.data(), call.R, nullptr, from_h_.data(), ld,
                             call.down});
  part.wait();
  LstmNormStep<T> s{};
  s.rows = call.rows;
  s.end = std::min(w_.H, call.end_block * lanes);
  s.first = std::min(s.end, call.first_block * lanes);
  s.H = w_.H;
  s.strides = {lanes, w_.width};
  s.norm = &w_.norm;
  s.from_x = call.projected;
  s.ld_x = call.ld_projected;
  s.from_h = from_h_.data();
  s.ld_from_h = ld;
  s.c = call.c;
  s.new_c = noise_.zones_c() ? new_c_.data() : call.c;
  s.ld_c = call.ld_c;
  s.h = call.h;
  s.ld_h = call.ld_h;
  s.output = call.output;
  s.gates = call.gates;
  s.ld_gates = call.ld_gates;
  s.saved_c = call.saved_c;
  s.ld_saved_c = call.ld_saved_c;
  s.keep_c = options_.keep_c;
  s.ld_keep_c = options_.ld_keep_c;
  kernels<T>().lstm_norm_gates(s);
  part.wait();
  kernels<T>().lstm_norm_hidden(s);
}

template <class T>
void TileCell<T>::step_in_halves(const Run& run, Index s, Index projected_row, const Part& part,
                                 TileScratch<T>& scratch) {
  const Index t = time(s), live = rows_.live(t), units = w_.cell.block_units;
  const auto [first_block, end_block] = part.range(w_.blocks, grain_);
  const Index ld = w_.parts * w_.blocks * w_.width;
  for (Index b = 0; b < live; ++b) {
    scratch.outputs[static_cast<std::size_t>(b)] = run.output.row(rows_, t, b);
  }
  GruHalfStep<T> call{};
  call.rows = live;
  call.end = std::min(w_.H, end_block * units);
  call.first = std::min(call.end, first_block * units);
  call.H = w_.H;
  call.stride = w_.blocks * w_.width;
  call.from_x = projected_.data() + projected_row * ld;
  call.ld_x = ld;
  call.from_h = from_h_.data();
  call.ld_from_h = ld;
  call.h_prev = h(s);
  call.read_h = noise_.drops_h() ? masked_h(s) : h(s);
  call.ld_h_prev = ld_h_;
  call.reset_h = reset_h_.data();
  call.h = h(s + 1);
  call.ld_h = ld_h_;
  call.output = scratch.outputs.data();
  call.options = w_.step_options();
  if (run.gates != nullptr) {
    const Index row = rows_.packed_row(t, 0);
    const Index stride = live > 1 ? rows_.packed_row(t, 1) - row : 1;
    call.gates = run.gates + row * w_.SH;
    call.ld_gates = stride * w_.SH;
  }
  const auto multiply = [&, first = first_block, end = end_block](const T* rows, Index gate) {
    for (Index b = 0; b < live; ++b) {
      scratch.inputs[static_cast<std::size_t>(b)] = rows + b * ld_h_;
    }
    kernels<T>().project_rows({live, gate * w_.blocks + first, gate * w_.blocks + end, 4, w_.P,
                               scratch.inputs.data(), w_.R_panel.data(), nullptr, from_h_.data(),
                               ld});
  };
  multiply(call.read_h, 0);
  multiply(call.read_h, 1);
  kernels<T>().gru_reset(call);
  part.wait();
  multiply(reset_h_.data(), 2);
  kernels<T>().gru_candidate(call);
  regularise(s, call.first, call.end, scratch);
  part.wait();
}

template <class T>
void TileCell<T>::step(const Run& run, Index s, Index projected_row, const Part& part,
                       TileScratch<T>& scratch, ProjectAhead<T>* ahead) {
  const Index t = time(s), live = rows_.live(t);
  const bool fused = projected_.size() == 0;
  const auto [first_block, end_block] = part.range(w_.blocks, grain_);
  for (Index b = 0; b < live; ++b) {
    if (fused) scratch.inputs[static_cast<std::size_t>(b)] = run.x.row(rows_, t, b);
    scratch.outputs[static_cast<std::size_t>(b)] = run.output.row(rows_, t, b);
  }
  const bool save = run.gates != nullptr;
  const Index saved_row = save ? rows_.packed_row(t, 0) : 0;
  const Index saved_stride = save && live > 1 ? rows_.packed_row(t, 1) - saved_row : 1;

  CellStepTile<T> call{};
  call.rows = live;
  call.first_block = first_block;
  call.end_block = end_block;
  call.H = w_.H;
  call.I = w_.I;
  call.P = w_.P;
  call.x = fused ? scratch.inputs.data() : nullptr;
  call.W = w_.input->panel.data();
  call.bias = w_.bias_panel.data();
  call.bias_h = w_.bias_h.data();
  call.ld_projected = w_.blocks * w_.width;
  call.projected = fused ? nullptr : projected_.data() + projected_row * call.ld_projected;
  call.h_prev = noise_.drops_h() ? masked_h(s) : h(s);
  call.h_past_R = h(s);
  call.ld_h_prev = ld_h_;
  call.R = w_.R_panel.data();
  call.c = c_.data();
  call.ld_c = ld_c_;
  call.h = w_.projects ? hidden_.data() : h(s + 1);
  call.ld_h = w_.projects ? ld_c_ : ld_h_;
  call.output = w_.projects ? nullptr : scratch.outputs.data();
  call.gates = save && w_.SH > 0 ? run.gates + saved_row * w_.SH : nullptr;
  call.ld_gates = saved_stride * w_.SH;
  call.saved_c = save ? run.c + saved_row * w_.C : nullptr;
  call.ld_saved_c = saved_stride * w_.C;
  call.options = w_.step_options() != nullptr ? &options_ : nullptr;
  call.ahead = ahead;
  call.down = reads_down(s ^ swap_, live);
  const Index units = w_.cell.block_units;
  const Index first_unit = first_block * units, end_unit = std::min(w_.H, end_block * units);
  if (noise_.zones_c() && noise_.draws_zoneout()) {
    for (Index b = 0; b < live; ++b) {
      noise_.keep_c(t, b, first_unit, end_unit - first_unit,
                    keep_c_.data() + b * ld_c_ + first_unit);
    }
  }
  if (w_.cell.normalises) {
    normalised_units(call, part, scratch);
  } else {
    w_.cell.step_tile(call);
  }
  if (!w_.projects) regularise(s, first_unit, end_unit, scratch);
  part.wait();
  if (!w_.projects) return;

  const Index columns = 4 * kernels<T>().lanes;
  const auto [first_column, end_column] = part.range(w_.proj_blocks, 1);
  for (Index b = 0; b < live; ++b) {
    scratch.inputs[static_cast<std::size_t>(b)] = hidden_.data() + b * ld_c_;
  }
  kernels<T>().project_rows({live, first_column, end_column, 4, w_.H, scratch.inputs.data(),
                             w_.W_hr_panel.data(), nullptr, h(s + 1), ld_h_});
  const Index from = first_column * columns, to = std::min(w_.P, end_column * columns);
  for (Index b = 0; b < live && from < to; ++b) {
    std::copy_n(h(s + 1) + b * ld_h_ + from, to - from,
                scratch.outputs[static_cast<std::size_t>(b)] + from);
  }
  regularise(s, from, to, scratch);
  part.wait();
}

template <class T>
void TileCell<T>::regularise(Index s, Index first, Index end, TileScratch<T>& scratch) {
  if (!noise_.zones_h() && !noise_.drops_h()) return;
  const Index t = time(s);
  for (Index b = 0; b < rows_.live(t); ++b) {
    const Index row = b * ld_h_;
    T* new_h = h(s + 1) + row;
    if (noise_.zones_h()) {
      const T *old_h = h(s) + row, *keep = keep_h_.data() + row;
      if (noise_.draws_zoneout()) {
        noise_.keep_h(t, b, first, end - first, keep_h_.data() + row + first);
      }
      T* output = scratch.outputs[static_cast<std::size_t>(b)];
      for (Index j = first; j < end; ++j) {
        new_h[j] = keep[j] * old_h[j] + (1 - keep[j]) * new_h[j];
        output[j] = new_h[j];
      }
    }
    if (noise_.drops_h()) {
      T* masked = masked_h(s + 1) + row;
      const T* mask = h_mask_.data() + row;
      for (Index j = first; j < end; ++j) masked[j] = new_h[j] * mask[j];
    }
  }
}

template class TileCell<float>;
template class TileCell<double>;

}  // namespace fastlstm

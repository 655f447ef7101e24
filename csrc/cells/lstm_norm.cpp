// The LSTM with layer normalisation. State: h and c. A step has two halves, since it needs whole
// rows: of R h' before the gates, and of c before h (kernels/lstm_norm_step.hpp). Training saves R
// h' alone; W x is computed again (kernels/lstm_norm_backward.hpp).
#include "cells/cells.hpp"
#include "cells/steps.hpp"

namespace fastlstm {

namespace {

/// Rows whose W x the backward pass computes at once.
constexpr Index kAgainRows = 48;
static_assert(kAgainRows >= kMostStepRows);

/// Values of LstmNormSums for each hidden unit, and their places in an array of so many.
constexpr Index kNormSums = 14;
template <class T>
LstmNormSums<T> named_sums(T* sums, Index H) {
  return {sums, sums + 4 * H, sums + 8 * H, sums + 12 * H, sums + 13 * H};
}

/// [10H]: gain_ih and gain_hh [4H], gain_c and bias_c [H].
template <class T>
Buffer<T> pack_norm(const StackConfig& config, const CellParams<const T>& params) {
  const Index H = config.hidden_size;
  Buffer<T> values(10, H);
  std::copy_n(params.weight_ln_ih, 4 * H, values.data());
  std::copy_n(params.weight_ln_hh, 4 * H, values.data() + 4 * H);
  std::copy_n(params.weight_ln_c, H, values.data() + 8 * H);
  copy_or_zero(params.bias_ln_c, H, values.data() + 9 * H);
  return values;
}

template <class T>
LstmNorm<T> norm_of(const CellWeights<T>& w) {
  const T* values = w.others.data();
  return {values, values + 4 * w.H, values + 8 * w.H, values + 9 * w.H};
}

/// Where the gates stand in a row of W's and R's panels, and in an array [rows, 4H].
template <class T>
GateStrides panel_strides(const CellWeights<T>& w) {
  return {kernels<T>().lanes, w.R.layout().width()};
}
template <class T>
GateStrides gate_after_gate(Index H) {
  return {H, kernels<T>().lanes};
}

/// from_x = x W, without the bias. x: [n] rows of I, in; pointers: [n] room; from_x: rows of the
/// panel's columns, out. converted: [converted_bytes(n, I)] room, where inputs are converted.
template <class T>
void multiply_inputs(const CellWeights<T>& w, Index n, const T* x, const T** pointers, T* from_x,
                     void* converted = nullptr) {
  for (Index b = 0; b < n; ++b) pointers[b] = x + b * w.I;
  const PanelLayout& layout = w.input->W.layout();
  ProjectRows<T> call{};
  call.rows = n;
  call.end_block = layout.blocks();
  call.V = 4;
  call.K = w.I;
  call.x = pointers;
  call.panel = w.input->W.view();
  call.out = from_x;
  call.ld_out = layout.columns();
  call.room = converted;
  project_rows(call);
}

template <class T>
class NormalisedForward final : public ForwardCell<T> {
 public:
  NormalisedForward(const ForwardShape<T>& shape, Room& room)
      : w_(shape.weights), norm_(norm_of(w_)), keep_c_(shape.keep_c), ld_(shape.ld_units) {
    room.add(from_h_, shape.B, w_.R.layout().columns());
    if (shape.zones_c) room.add(new_c_, shape.B, ld_);
  }

  void step(ForwardStep<T>& s) noexcept override {
    const CellStepTile<T>& tile = s.tile;
    const Index lanes = kernels<T>().lanes, ld = w_.R.layout().columns();
    for (Index b = 0; b < tile.rows; ++b) s.pointers[b] = tile.h_prev + b * tile.ld_h_prev;
    ProjectRows<T> product{};
    product.rows = tile.rows;
    product.first_block = tile.first_block;
    product.end_block = tile.end_block;
    product.V = 4;
    product.K = w_.P;
    product.x = s.pointers;
    product.panel = tile.R;
    product.out = from_h_.data();
    product.ld_out = ld;
    product.down = tile.down;
    product.room = tile.room;
    project_rows(product);
    s.share.wait();
    LstmNormStep<T> call{};
    call.rows = tile.rows;
    call.end = std::min(w_.H, tile.end_block * lanes);
    call.first = std::min(call.end, tile.first_block * lanes);
    call.H = w_.H;
    call.strides = panel_strides(w_);
    call.norm = &norm_;
    call.from_x = tile.projected;
    call.ld_x = tile.ld_projected;
    call.from_h = from_h_.data();
    call.ld_from_h = ld;
    call.c = tile.memory[0];
    call.new_c = new_c_.size() > 0 ? new_c_.data() : call.c;
    call.ld_c = tile.ld_memory;
    call.h = tile.h;
    call.ld_h = tile.ld_h;
    call.output = tile.output;
    call.gates = tile.gates;
    call.ld_gates = tile.ld_gates;
    call.saved_c = tile.saved_memory;
    call.ld_saved_c = tile.ld_saved_memory;
    call.keep_c = keep_c_;
    call.ld_keep_c = ld_;
    const Index values = call.rows * (call.end - call.first);
    if (!interrupted_before(values)) kernels<T>().lstm_norm_gates(call);
    s.share.wait();
    if (!interrupted_before(values)) kernels<T>().lstm_norm_hidden(call);
  }

  void finish_inputs(Index n, T* from_x, Index ld, const Share& share) noexcept override {
    share.wait();
    const auto [first, end] = share.range(n, 1);
    NormaliseSums<T> call{};
    call.rows = end - first;
    call.H = w_.H;
    call.strides = panel_strides(w_);
    call.gain = norm_.gain_x;
    call.bias = w_.bias.data();
    call.sums = from_x + first * ld;
    call.ld = ld;
    if (!interrupted_before(call.rows * call.H)) kernels<T>().normalise_sums(call);
    share.wait();
  }

 private:
  const CellWeights<T>& w_;
  const LstmNorm<T> norm_;
  const T* const keep_c_;
  const Index ld_;
  Buffer<T> from_h_;  // [B] columns of R's panel: R h'
  Buffer<T> new_c_;   // [B] of ld: c before zoneout; empty without
};

template <class T>
class NormalisedBackward final : public BackwardCell<T> {
 public:
  NormalisedBackward(const CellOptions& options, const BackwardShape<T>& shape, Room& room)
      : BackwardCell<T>(shape),
        options_(step_options<T>(options)),
        norm_(norm_of(shape.weights)),
        ld_from_x_(shape.weights.input->W.layout().columns()),
        again_row_(static_cast<std::size_t>(pieces(shape.rows.B(), shape.step_rows))) {
    const CellWeights<T>& w = shape.weights;
    const Index tasks = pieces(shape.rows.B(), shape.step_rows);
    room.add(d_from_h_, shape.block_rows, w.GH);
    room.add(from_x_, tasks * kAgainRows, ld_from_x_);
    room.add(sums_, pieces(shape.rows.B(), shape.sum_rows), 2 * kNormSums * w.H);
    room.add(kernel_room_, tasks, kNormRows * 6 * w.H);
    sums_.fill_zero();
  }

  /// W x for the task's rows of step t, and of some that follow in the order of the backward pass,
  /// unless an earlier call has computed it. It stays in the L2 cache until it is needed.
  void before_step(const StepBlock& block, Index t, Index task) noexcept override {
    const BackwardShape<T>& shape = this->shape_;
    const RowSchedule& rows = shape.rows;
    const Index B = rows.B();
    const Index at_once = B <= shape.step_rows ? std::max<Index>(1, kAgainRows / B) : 1;
    const Index done = shape.backward ? t - block.first : block.end - 1 - t;
    if (done % at_once != 0) return;
    // One task has all rows of several steps, which stand one after another; several have one step.
    const Piece p = piece(B, task, shape.step_rows);
    const Index t_first = shape.backward ? t : std::max(block.first, t + 1 - at_once);
    const Index t_last = shape.backward ? std::min(block.end, t + at_once) - 1 : t;
    const Index row = rows.offset(t_first) + p.first;
    const Index end = rows.offset(t_last) + std::min(p.first + p.size, rows.live(t_last));
    again_row_[static_cast<std::size_t>(task)] = row;
    if (end <= row) return;
    const T* pointers[kAgainRows];
    multiply_inputs(shape.weights, end - row, shape.x + row * shape.weights.I, pointers,
                    from_x_.data() + task * kAgainRows * ld_from_x_);
  }

  void step(const BackwardStep<T>& s) noexcept override {
    const BackwardShape<T>& shape = this->shape_;
    const CellWeights<T>& w = shape.weights;
    const Index task = s.task, H = w.H;
    const Index again = s.row - again_row_[static_cast<std::size_t>(task)];
    T* const d_from_h = d_from_h_.data() + s.in_block * w.GH;
    const auto units = [&](Index from, Index to, const T* memory_prev) {
      CellStepBackward<T> a = backward_arguments(s, w, 4, from, to, memory_prev);
      a.d_from_h = d_from_h + from * w.GH;
      StepOptions<T> options = options_;
      if (shape.keep_c != nullptr) {
        options.keep_c = shape.keep_c + from * H;
        options.ld_keep_c = H;
      }
      a.options = &options;
      LstmNormBackward<T> norm{};
      norm.parameters = norm_;
      norm.bias = w.bias.data();
      norm.strides = panel_strides(w);
      norm.from_x = from_x_.data() + (task * kAgainRows + again + from) * ld_from_x_;
      norm.ld_x = ld_from_x_;
      norm.room = kernel_room_.data() + task * kNormRows * 6 * H;
      norm.sums = named_sums(sums(from / shape.sum_rows), H);
      a.norm = &norm;
      kernels<T>().lstm_norm_backward(a);
    };
    backward_with_one_product(s, shape, d_from_h, shape.sum_rows, units);
  }

  /// Two levels of sums keep the rounding error small.
  void after_step(const StepBlock& block, Index t, Index task) noexcept override {
    if ((t - block.first) % 8 != 0) return;
    const BackwardShape<T>& shape = this->shape_;
    const Piece p = piece(shape.rows.B(), task, shape.step_rows);
    for (Index b = p.first; b < p.first + p.size; b += shape.sum_rows) {
      add_sums_of(b / shape.sum_rows);
    }
  }

  const T* d_from_h(const T*) const override { return d_from_h_.data(); }

  /// What all groups of rows have summed.
  void add_gradients(Index, const T*, const CellParams<T>& d) noexcept override {
    const Index H = this->shape_.weights.H;
    for (Index group = 0; group < pieces(this->shape_.rows.B(), this->shape_.sum_rows); ++group) {
      add_sums_of(group);
      T* const totals = sums(group) + kNormSums * H;
      const LstmNormSums<T> named = named_sums(totals, H);
      const auto add = [](const T* values, Index n, T* to) {
        for (Index j = 0; to != nullptr && j < n; ++j) to[j] += values[j];
      };
      add(named.bias, 4 * H, d.bias_ih);
      add(named.bias, 4 * H, d.bias_hh);
      add(named.gain_x, 4 * H, d.weight_ln_ih);
      add(named.gain_h, 4 * H, d.weight_ln_hh);
      add(named.gain_c, H, d.weight_ln_c);
      add(named.bias_c, H, d.bias_ln_c);
      std::fill_n(totals, kNormSums * H, T(0));
    }
  }

 private:
  /// What a group's rows have summed, and after it the sums of these.
  T* sums(Index group) { return sums_.data() + group * 2 * kNormSums * this->shape_.weights.H; }

  void add_sums_of(Index group) noexcept {
    const Index n = kNormSums * this->shape_.weights.H;
    T *some = sums(group), *totals = some + n;
    for (Index j = 0; j < n; ++j) totals[j] += some[j];
    std::fill_n(some, n, T(0));
  }

  const StepOptions<T> options_;
  const LstmNorm<T> norm_;
  const Index ld_from_x_;
  Buffer<T> d_from_h_;            // [block rows, 4H]
  Buffer<T> from_x_;              // [kAgainRows] of ld_from_x for each task: W x
  std::vector<Index> again_row_;  // by task: the first of these rows
  Buffer<T> sums_;                // [2][kNormSums H] of each group
  Buffer<T> kernel_room_;         // [kNormRows][6H] for each task
};

template <class T>
class NormalisedLstm final : public Cell<T> {
 public:
  using Cell<T>::Cell;

  WeightShape<T> weight_shape() const override {
    const Index lanes = kernels<T>().lanes;
    WeightShape<T> shape{PanelLayout::of_gates(4, this->config().hidden_size, lanes), 4};
    shape.bias_in_products = false;
    shape.pack_others = pack_norm<T>;
    return shape;
  }
  Index saved_gates() const override { return 4; }  // R h'
  bool inputs_first() const override { return true; }
  bool sums_over_rows() const override { return true; }
  bool saves_sums() const override { return true; }

  std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape, Room& room) const override {
    return std::make_unique<NormalisedForward<T>>(shape, room);
  }
  std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape,
                                            Room& room) const override {
    return std::make_unique<NormalisedBackward<T>>(this->config().options, shape, room);
  }

  void activate(const CellWeights<T>& w, Index rows, const T* x, T* gates) const override {
    const LstmNorm<T> norm = norm_of(w);
    const Index H = w.H, ld = w.R.layout().columns();
    const GateStrides in_panel = panel_strides(w), in_array = gate_after_gate<T>(H);
    Buffer<T> from_x(rows, ld);
    std::vector<const T*> pointers(static_cast<std::size_t>(rows));
    Buffer<char> converted;
    if (converts_inputs(this->config().arithmetic)) converted.resize(converted_bytes(rows, w.I));
    multiply_inputs(w, rows, x, pointers.data(), from_x.data(), converted.data());
    kernels<T>().normalise_sums({rows, H, in_panel, norm.gain_x, w.bias.data(), from_x.data(), ld});
    kernels<T>().normalise_sums({rows, H, in_array, norm.gain_h, nullptr, gates, w.GH});
    for (Index row = 0; row < rows; ++row) {
      for (Index k = 0; k < w.GH; ++k) {
        gates[row * w.GH + k] += from_x.data()[row * ld + w.R.layout().column(k)];
      }
    }
    Cell<T>::activate(w, rows, x, gates);
  }
};

}  // namespace

template <class T>
std::unique_ptr<Cell<T>> make_lstm_norm(const StackConfig& config) {
  return std::make_unique<NormalisedLstm<T>>(config);
}

template std::unique_ptr<Cell<float>> make_lstm_norm(const StackConfig&);
template std::unique_ptr<Cell<double>> make_lstm_norm(const StackConfig&);

}  // namespace fastlstm

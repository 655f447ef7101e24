// The GRU with its reset gate before the product, R_n (r h'). State: h. A step has two halves, with
// that product between them (kernels/gru_half_steps.hpp).
#include "cells/cells.hpp"
#include "cells/steps.hpp"

namespace fastlstm {

namespace {

template <class T>
class GruResetBeforeForward final : public ForwardCell<T> {
 public:
  GruResetBeforeForward(const CellOptions& options, const ForwardShape<T>& shape, Room& room)
      : w_(shape.weights),
        ld_h_(shape.ld_h),
        options_(step_options<T>(options)),
        plain_(options.plain()) {
    room.add(from_h_, shape.B, w_.R.layout().columns());
    room.add(reset_h_, shape.B, ld_h_);
  }

  void step(ForwardStep<T>& s) noexcept override {
    const CellStepTile<T>& tile = s.tile;
    const PanelLayout& layout = w_.R.layout();
    GruHalfStep<T> call{};
    call.rows = tile.rows;
    call.end = std::min(w_.H, tile.end_block * layout.block_units);
    call.first = std::min(call.end, tile.first_block * layout.block_units);
    call.H = w_.H;
    call.stride = layout.blocks() * layout.width();
    call.from_x = tile.projected;
    call.ld_x = tile.ld_projected;
    call.from_h = from_h_.data();
    call.ld_from_h = layout.columns();
    call.h_prev = tile.h_past_R;
    call.read_h = tile.h_prev;
    call.ld_h_prev = ld_h_;
    call.reset_h = reset_h_.data();
    call.h = tile.h;
    call.ld_h = tile.ld_h;
    call.output = tile.output;
    call.gates = tile.gates;
    call.ld_gates = tile.ld_gates;
    call.options = plain_ ? nullptr : &options_;
    multiply(s, tile.h_prev, 0);
    multiply(s, tile.h_prev, 1);
    const Index values = call.rows * (call.end - call.first);
    if (!interrupted_before(values)) kernels<T>().gru_reset(call);
    s.share.wait();
    multiply(s, reset_h_.data(), 2);
    if (!interrupted_before(values)) kernels<T>().gru_candidate(call);
  }

 private:
  /// from_h = rows R of a gate, for this thread's blocks.
  void multiply(const ForwardStep<T>& s, const T* rows, Index gate) noexcept {
    const Index blocks = w_.R.layout().blocks();
    for (Index b = 0; b < s.tile.rows; ++b) s.pointers[b] = rows + b * ld_h_;
    ProjectRows<T> call{};
    call.rows = s.tile.rows;
    call.first_block = gate * blocks + s.tile.first_block;
    call.end_block = gate * blocks + s.tile.end_block;
    call.V = 4;
    call.K = w_.P;
    call.x = s.pointers;
    call.panel = w_.R.view();
    call.out = from_h_.data();
    call.ld_out = w_.R.layout().columns();
    call.room = s.tile.room;
    project_rows(call);
  }

  const CellWeights<T>& w_;
  const Index ld_h_;
  const StepOptions<T> options_;
  const bool plain_;
  Buffer<T> from_h_;   // [B] columns of R's panel: R h' of r and z, then R_n (r h')
  Buffer<T> reset_h_;  // [B] of ld_h: r h'
};

template <class T>
class GruResetBeforeBackward final : public BackwardCell<T> {
 public:
  GruResetBeforeBackward(const CellOptions& options, const BackwardShape<T>& shape, Room& room)
      : BackwardCell<T>(shape), options_(step_options<T>(options)), plain_(options.plain()) {
    room.add(reset_h_, shape.block_rows, shape.weights.H);
    room.add(d_reset_, shape.rows.B(), shape.ld_d_h);
  }

  void step(const BackwardStep<T>& s) noexcept override {
    const CellWeights<T>& w = this->shape_.weights;
    const Index ld_d_h = this->shape_.ld_d_h;
    const GruHalfStepBackward<T> half = half_step(s);
    if (s.share.rank == 0) kernels<T>().gru_candidate_backward(half);
    s.share.wait();
    multiply_by_R(s, w, 1, s.d_gates, d_reset_.data(), ld_d_h);
    s.share.wait();
    if (s.share.rank == 0) kernels<T>().gru_reset_backward(half);
    s.share.wait();
    multiply_by_R(s, w, 0, s.d_gates, s.d_h_prev, ld_d_h);
    s.share.wait();
  }

  /// The rows of n multiplied r h'.
  std::vector<RInputs<T>> R_inputs(const T* h_prev) const override {
    const CellWeights<T>& w = this->shape_.weights;
    return {{0, 2 * w.H, h_prev}, {2 * w.H, w.GH, reset_h_.data()}};
  }

 private:
  GruHalfStepBackward<T> half_step(const BackwardStep<T>& s) {
    const Index H = this->shape_.weights.H, ld_d_h = this->shape_.ld_d_h;
    const T* const h_mask = this->shape_.h_mask;
    GruHalfStepBackward<T> half{};
    half.rows = s.end - s.first;
    half.H = H;
    half.gates = s.gates + s.first * 3 * H;
    half.h_prev = s.h_prev + s.first * H;
    half.h_mask = h_mask != nullptr ? h_mask + s.first * H : nullptr;
    half.d_h = s.d_h + s.first * s.ld_d_h;
    half.ld_d_h = s.ld_d_h;  // that of d_reset, too: there is no projection
    half.d_h_past_R = s.d_h_past_R + s.first * H;
    half.d_gates = s.d_gates + s.first * 3 * H;
    half.d_reset = d_reset_.data() + s.first * ld_d_h;
    half.reset_h = reset_h_.data() + (s.in_block + s.first) * H;
    half.options = plain_ ? nullptr : &options_;
    return half;
  }

  const StepOptions<T> options_;
  const bool plain_;
  Buffer<T> reset_h_;  // [block rows, H] r h'
  Buffer<T> d_reset_;  // [B] of ld_d_h: its gradient
};

template <class T>
class GruResetBefore final : public Cell<T> {
 public:
  using Cell<T>::Cell;

  WeightShape<T> weight_shape() const override {
    return {PanelLayout::of_matrix(3, this->config().hidden_size, kernels<T>().lanes), 2};
  }
  Index saved_gates() const override { return 3; }  // r z n, or their sums
  bool inputs_first() const override { return true; }
  bool keeps_h_apart() const override { return true; }

  std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape, Room& room) const override {
    return std::make_unique<GruResetBeforeForward<T>>(this->config().options, shape, room);
  }
  std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape,
                                            Room& room) const override {
    return std::make_unique<GruResetBeforeBackward<T>>(this->config().options, shape, room);
  }
};

}  // namespace

template <class T>
std::unique_ptr<Cell<T>> make_gru_reset_before(const StackConfig& config) {
  return std::make_unique<GruResetBefore<T>>(config);
}

template std::unique_ptr<Cell<float>> make_gru_reset_before(const StackConfig&);
template std::unique_ptr<Cell<double>> make_gru_reset_before(const StackConfig&);

}  // namespace fastlstm

// The LSTM. State: h and c. Equations: kernels/lstm_step.hpp, and its gradient's in
// kernels/lstm_step_backward.hpp.
#include "cells/cells.hpp"
#include "cells/steps.hpp"

namespace fastlstm {

namespace {

/// Peepholes of i, f and o, each padded to whole vectors: [3] of this many.
template <class T>
Index padded_peephole(Index H) {
  const Index lanes = kernels<T>().lanes;
  return (H + lanes - 1) / lanes * lanes;
}

template <class T>
Buffer<T> pack_peepholes(const StackConfig& config, const CellParams<const T>& params) {
  const Index H = config.hidden_size, ld = padded_peephole<T>(H);
  Buffer<T> peepholes(3, ld);
  peepholes.fill_zero();
  for (Index gate = 0; gate < 3; ++gate) {
    std::copy_n(params.weight_peephole + gate * H, H, peepholes.data() + gate * ld);
  }
  return peepholes;
}

template <class T>
StepOptions<T> lstm_options(const StackConfig& config, const CellWeights<T>& w, const T* keep_c,
                            Index ld_keep_c) {
  StepOptions<T> options = step_options<T>(config.options);
  if (config.options.peepholes) {
    options.peephole = w.others.data();
    options.ld_peephole = padded_peephole<T>(w.H);
  }
  options.keep_c = keep_c;
  options.ld_keep_c = ld_keep_c;
  return options;
}

template <class T>
class LstmBackward final : public BackwardCell<T> {
 public:
  LstmBackward(const StackConfig& config, const BackwardShape<T>& shape, Room& room)
      : BackwardCell<T>(shape),
        options_(lstm_options(config, shape.weights, shape.keep_c, shape.weights.H)),
        plain_(config.options.plain()) {
    if (config.options.peepholes) room.add(d_peephole_, shape.block_rows, 3 * shape.weights.H);
  }

  void step(const BackwardStep<T>& s) noexcept override {
    const CellWeights<T>& w = this->shape_.weights;
    const auto units = [&](Index from, Index to, const T* memory_prev) {
      CellStepBackward<T> a = backward_arguments(s, w, 4, from, to, memory_prev);
      StepOptions<T> options = options_;
      if (options.keep_c != nullptr) options.keep_c += from * w.H;
      if (!plain_) a.options = &options;
      if (options.peephole != nullptr) {
        a.d_peephole = d_peephole_.data() + (s.in_block + from) * 3 * w.H;
      }
      kernels<T>().lstm_step_backward(a);
    };
    backward_with_one_product(s, this->shape_, s.d_gates, kMostStepRows, units);
  }

  void add_gradients(Index rows, const T* d_gates, const CellParams<T>& d) noexcept override {
    BackwardCell<T>::add_gradients(rows, d_gates, d);
    this->add_sums(rows, 3 * this->shape_.weights.H, d_peephole_.data(), d.weight_peephole);
  }

 private:
  const StepOptions<T> options_;
  const bool plain_;
  Buffer<T> d_peephole_;  // [block rows, 3H] each row's part of the gradient; empty without
};

template <class T>
class Lstm final : public Cell<T> {
 public:
  using Cell<T>::Cell;

  WeightShape<T> weight_shape() const override {
    const Index lanes = kernels<T>().lanes;
    WeightShape<T> shape{PanelLayout::of_gates(4, this->config().hidden_size, lanes), 4};
    if (this->config().options.peepholes) shape.pack_others = pack_peepholes<T>;
    return shape;
  }
  Index saved_gates() const override { return 4; }  // i f g o, or their sums

  std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape, Room&) const override {
    return std::make_unique<OneKernelForward<T>>(
        shape.weights, panel_kernels<T>(this->config().arithmetic).lstm_step_tile,
        lstm_options(this->config(), shape.weights, shape.keep_c, shape.ld_units),
        this->config().options.plain());
  }
  std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape,
                                            Room& room) const override {
    return std::make_unique<LstmBackward<T>>(this->config(), shape, room);
  }
};

}  // namespace

template <class T>
std::unique_ptr<Cell<T>> make_lstm(const StackConfig& config) {
  return std::make_unique<Lstm<T>>(config);
}

template std::unique_ptr<Cell<float>> make_lstm(const StackConfig&);
template std::unique_ptr<Cell<double>> make_lstm(const StackConfig&);

}  // namespace fastlstm

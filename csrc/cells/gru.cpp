// The GRU with its reset gate after the product R_n h'. State: h. Equations: kernels/gru_step.hpp,
// and its gradient's in kernels/gru_step_backward.hpp.
#include "cells/cells.hpp"
#include "cells/steps.hpp"

namespace fastlstm {

namespace {

template <class T>
class GruBackward final : public BackwardCell<T> {
 public:
  GruBackward(const CellOptions& options, const BackwardShape<T>& shape, Room& room)
      : BackwardCell<T>(shape), options_(step_options<T>(options)), plain_(options.plain()) {
    room.add(d_from_h_, shape.block_rows, shape.weights.GH);
  }

  void step(const BackwardStep<T>& s) noexcept override {
    const CellWeights<T>& w = this->shape_.weights;
    T* const d_from_h = d_from_h_.data() + s.in_block * w.GH;
    const auto units = [&](Index from, Index to, const T* memory_prev) {
      CellStepBackward<T> a = backward_arguments(s, w, 4, from, to, memory_prev);
      a.d_from_h = d_from_h + from * w.GH;
      if (!plain_) a.options = &options_;
      kernels<T>().gru_step_backward(a);
    };
    backward_with_one_product(s, this->shape_, d_from_h, kMostStepRows, units);
  }

  const T* d_from_h(const T*) const override { return d_from_h_.data(); }

 private:
  const StepOptions<T> options_;
  const bool plain_;
  Buffer<T> d_from_h_;  // [block rows, 3H] r stands between R_n h and the sum
};

template <class T>
class Gru final : public Cell<T> {
 public:
  using Cell<T>::Cell;

  WeightShape<T> weight_shape() const override {
    const Index lanes = kernels<T>().lanes;
    WeightShape<T> shape{PanelLayout::of_gates(3, this->config().hidden_size, lanes), 3};
    shape.gates_of_bias_h = 1;
    return shape;
  }
  Index saved_gates() const override { return 4; }  // r z n, or their sums, and R_n h' + b_Rn
  bool keeps_h_apart() const override { return true; }

  std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape, Room&) const override {
    const CellOptions& options = this->config().options;
    return std::make_unique<OneKernelForward<T>>(
        shape.weights, panel_kernels<T>(this->config().arithmetic).gru_step_tile,
        step_options<T>(options), options.plain());
  }
  std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape,
                                            Room& room) const override {
    return std::make_unique<GruBackward<T>>(this->config().options, shape, room);
  }
};

}  // namespace

template <class T>
std::unique_ptr<Cell<T>> make_gru(const StackConfig& config) {
  return std::make_unique<Gru<T>>(config);
}

template std::unique_ptr<Cell<float>> make_gru(const StackConfig&);
template std::unique_ptr<Cell<double>> make_gru(const StackConfig&);

}  // namespace fastlstm

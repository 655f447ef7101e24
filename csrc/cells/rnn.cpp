// The simple RNN. State: h. Equations and gradient: kernels/rnn_step.hpp.
#include "cells/cells.hpp"
#include "cells/steps.hpp"

namespace fastlstm {

namespace {

template <class T>
class Rnn final : public Cell<T> {
 public:
  using Cell<T>::Cell;

  WeightShape<T> weight_shape() const override {
    return {PanelLayout::of_matrix(1, this->config().hidden_size, kernels<T>().lanes), 1};
  }
  /// None; or the sum where the function is another, since not every slope follows from h; or h
  /// before zoneout: when nothing is drawn, all units are mixed.
  Index saved_gates() const override {
    const CellOptions& options = this->config().options;
    return options.plain() && options.zoneout_h == 0 ? 0 : 1;
  }
  bool saves_sums() const override { return false; }  // it has no gates to be looked at

  std::unique_ptr<ForwardCell<T>> forward(const ForwardShape<T>& shape, Room&) const override {
    const CellOptions& options = this->config().options;
    const PanelKernels<T> kernels = panel_kernels<T>(this->config().arithmetic);
    return std::make_unique<OneKernelForward<T>>(
        shape.weights, relu() ? kernels.rnn_relu_step_tile : kernels.rnn_tanh_step_tile,
        step_options<T>(options), options.plain());
  }
  std::unique_ptr<BackwardCell<T>> backward(const BackwardShape<T>& shape, Room&) const override {
    const CellOptions& options = this->config().options;
    return std::make_unique<OneKernelBackward<T>>(
        relu() ? kernels<T>().rnn_relu_step_backward : kernels<T>().rnn_tanh_step_backward, 1,
        step_options<T>(options), options.plain(), shape);
  }

 private:
  bool relu() const { return this->config().cell == CellKind::kRnnRelu; }
};

}  // namespace

template <class T>
std::unique_ptr<Cell<T>> make_rnn(const StackConfig& config) {
  return std::make_unique<Rnn<T>>(config);
}

template std::unique_ptr<Cell<float>> make_rnn(const StackConfig&);
template std::unique_ptr<Cell<double>> make_rnn(const StackConfig&);

}  // namespace fastlstm

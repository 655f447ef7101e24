#include "weights/cell_weights.hpp"

#include <algorithm>
#include <utility>

namespace fastlstm {

template <class T>
CellWeights<T>::CellWeights(const StackConfig& config, const WeightShape<T>& weight_shape,
                            Index layer, const CellParams<const T>& params,
                            const SparePanels<T>& spare, const SmallWeights* small)
    : I(config.layer_input_size(layer)),
      H(config.hidden_size),
      P(config.output_size()),
      M(config.memory_size()),
      GH(config.gates() * H),
      projects(config.proj_size > 0),
      shape(weight_shape),
      input(std::make_shared<InputWeights<T>>()),
      bias(GH),
      spare_(spare) {
  if (small != nullptr) {
    input->W = WeightPanel<T>(shape.layout, I, config.arithmetic, small->weight_ih);
    R = WeightPanel<T>(shape.layout, P, config.arithmetic, small->weight_hh);
  } else {
    input->W = WeightPanel<T>(shape.layout, I, params.weight_ih, spare.W);
    R = WeightPanel<T>(shape.layout, P, params.weight_hh, spare.R);
  }
  bias.fill_zero();
  const Index apart = shape.gates_of_bias_h, summed = GH - apart * H;
  if (apart > 0) {
    const Index block_units = shape.layout.block_units;
    bias_h.resize(apart, shape.layout.blocks() * block_units);
    bias_h.fill_zero();
  }
  if (params.bias_ih != nullptr) {
    std::copy_n(params.bias_ih, GH, bias.data());
    for (Index k = 0; k < summed; ++k) bias.data()[k] += params.bias_hh[k];
    for (Index gate = 0; gate < apart; ++gate) {
      std::copy_n(params.bias_hh + summed + gate * H, H,
                  bias_h.data() + gate * (bias_h.size() / apart));
    }
  }
  if (shape.bias_in_products) {
    bias_panel.resize(shape.layout.columns());
    bias_panel.fill_zero();
    for (Index row = 0; row < GH; ++row) {
      bias_panel.data()[shape.layout.column(row)] = bias.data()[row];
    }
  }
  if (projects) {
    const PanelLayout layout = PanelLayout::of_matrix(1, P, kernels<T>().lanes);
    if (small != nullptr) {
      W_hr = WeightPanel<T>(layout, H, config.arithmetic, small->weight_hr);
    } else {
      W_hr = WeightPanel<T>(layout, H, params.weight_hr);
      W_hr_rows.resize(P, H);
      std::copy_n(params.weight_hr, W_hr_rows.size(), W_hr_rows.data());
    }
  }
  if (shape.pack_others != nullptr) others = shape.pack_others(config, params);
}

template <class T>
CellWeights<T>::CellWeights(const CellWeights& other, WeightPanel<T> other_R)
    : I(other.I),
      H(other.H),
      P(other.P),
      M(other.M),
      GH(other.GH),
      projects(other.projects),
      shape(other.shape),
      input(other.input),
      R(std::move(other_R)),
      W_hr(other.W_hr.clone()),
      bias(other.bias.clone()),
      bias_panel(other.bias_panel.clone()),
      bias_h(other.bias_h.clone()),
      W_hr_rows(other.W_hr_rows.clone()),
      others(other.others.clone()),
      // Of one call, which may have a limit: memory that is kept would not count.
      spare_(SparePanels<T>::none()) {}

template <class T>
const std::vector<WeightPanel<T>>& CellWeights<T>::R_backward() const {
  return R_backward_.get([this] {
    std::vector<WeightPanel<T>> panels;
    panels.push_back(R.transposed(0, R_rows_at_once(), spare_.R_backward[0]));
    if (R_rows_at_once() < GH) {
      panels.push_back(R.transposed(R_rows_at_once(), GH, spare_.R_backward[1]));
    }
    return panels;
  });
}

template <class T>
const WeightPanel<T>& CellWeights<T>::W_backward() const {
  return input->W_backward.get([this] { return input->W.transposed(0, GH, spare_.W_backward); });
}

template <class T>
Index bytes_of_R(const StackConfig& config, const WeightShape<T>& shape) {
  const Index P = config.output_size(), H = config.hidden_size;
  const Index rows = shape.layout.columns() * P + backward_columns<T>(P) * config.gates() * H;
  const Index projection = config.proj_size > 0 ? (backward_columns<T>(P) + P) * H : 0;
  return (rows + projection) * static_cast<Index>(sizeof(T));
}

#define FASTLSTM_INSTANTIATE(T)   \
  template struct CellWeights<T>; \
  template Index bytes_of_R(const StackConfig&, const WeightShape<T>&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

#include "rnn/lstm_weights.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

/// panel: [blocks][K][width] out: of input k and column j of a block, at(block, j)[k * ld], or zero
/// where at gives null.
template <class T, class At>
void pack_panel(Index blocks, Index K, Index width, Index ld, At at, T* panel) {
  std::vector<const T*> columns(static_cast<std::size_t>(width));
  for (Index block = 0; block < blocks; ++block) {
    for (Index j = 0; j < width; ++j) columns[static_cast<std::size_t>(j)] = at(block, j);
    for (Index k = 0; k < K; ++k) {
      for (const T* column : columns) *panel++ = column != nullptr ? column[k * ld] : T(0);
    }
  }
}

}  // namespace

template <class T>
LstmWeights<T>::LstmWeights(const LstmConfig& config, Index layer,
                            const LstmParams<const T>& params)
    : I(config.layer_input_size(layer)),
      H(config.hidden_size),
      P(config.output_size()),
      projects(config.proj_size > 0),
      W(4 * H, I),
      R(4 * H, P),
      bias(4 * H) {
  std::copy_n(params.weight_ih, W.size(), W.data());
  std::copy_n(params.weight_hh, R.size(), R.data());
  bias.fill_zero();
  for (const T* b : {params.bias_ih, params.bias_hh}) {
    if (b == nullptr) continue;
    for (Index k = 0; k < 4 * H; ++k) bias.data()[k] += b[k];
  }
  if (projects) {
    W_hr.resize(P, H);
    std::copy_n(params.weight_hr, W_hr.size(), W_hr.data());
  }
  if (active_target().tiles) pack_panels();
}

template <class T>
void LstmWeights<T>::pack_panels() {
  const Index lanes = kernels<T>().lanes, width = 4 * lanes;
  blocks = (H + lanes - 1) / lanes;
  // Column j of a block belongs to gate j / lanes of unit block * lanes + j % lanes.
  const auto gate_row = [&](const T* matrix, Index K) {
    return [=](Index block, Index j) -> const T* {
      const Index unit = block * lanes + j % lanes;
      return unit < H ? matrix + (j / lanes * H + unit) * K : nullptr;
    };
  };
  W_panel.resize(blocks, I * width);
  pack_panel(blocks, I, width, 1, gate_row(W.data(), I), W_panel.data());
  R_panel.resize(blocks, P * width);
  pack_panel(blocks, P, width, 1, gate_row(R.data(), P), R_panel.data());
  bias_panel.resize(blocks, width);
  pack_panel(blocks, 1, width, 1, gate_row(bias.data(), 1), bias_panel.data());
  if (projects) {
    proj_blocks = (P + width - 1) / width;
    W_hr_panel.resize(proj_blocks, H * width);
    const auto row = [&](Index block, Index j) -> const T* {
      const Index column = block * width + j;
      return column < P ? W_hr.data() + column * H : nullptr;
    };
    pack_panel(proj_blocks, H, width, 1, row, W_hr_panel.data());
  }
}

template <class T>
const T* LstmWeights<T>::R_backward_panel() const {
  std::call_once(packed_for_backward_, [this] {
    const Index width = 4 * kernels<T>().lanes;
    const Index blocks_of_P = (P + width - 1) / width;
    Buffer<T> panel(blocks_of_P, 4 * H * width);
    const auto column = [&](Index block, Index j) -> const T* {
      const Index p = block * width + j;
      return p < P ? R.data() + p : nullptr;
    };
    pack_panel(blocks_of_P, 4 * H, width, P, column, panel.data());
    R_backward_panel_ = std::move(panel);
  });
  return R_backward_panel_.data();
}

template struct LstmWeights<float>;
template struct LstmWeights<double>;

}  // namespace fastlstm

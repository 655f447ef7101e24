#include "rnn/cell_weights.hpp"

#include <algorithm>
#include <utility>

#include "runtime/targets.hpp"

namespace fastlstm {

namespace {

/// panel: [blocks][K][width] out: at(block, j)[k] of input k and column j of a block, or zero where
/// at gives null.
template <class T, class At>
void pack_panel(Index blocks, Index K, Index width, At at, T* panel) {
  // A cache line of each column at a time: going down the columns side by side, lines that are
  // powers of two apart drive each other out (8 times slower at H = 1024).
  constexpr Index kLine = 64 / sizeof(T);
  for (Index block = 0; block < blocks; ++block, panel += K * width) {
    for (Index first = 0; first < K; first += kLine) {
      const Index n = std::min(kLine, K - first);
      for (Index j = 0; j < width; ++j) {
        const T* column = at(block, j);
        T* to = panel + first * width + j;
        if (column == nullptr) {
          for (Index k = 0; k < n; ++k) to[k * width] = T(0);
        } else if (n == kLine) {
          for (Index k = 0; k < kLine; ++k) to[k * width] = column[first + k];
        } else {
          for (Index k = 0; k < n; ++k) to[k * width] = column[first + k];
        }
      }
    }
  }
}

/// matrix: [K, columns] in; panel: [blocks of columns][K][4][lanes] out
template <class T>
void pack_backward(const T* matrix, Index K, Index columns, T* panel) {
  const Index width = 4 * kernels<T>().lanes;
  for (Index first = 0; first < columns; first += width) {
    const Index n = std::min(width, columns - first);
    for (Index k = 0; k < K; ++k, panel += width) {
      std::copy_n(matrix + k * columns + first, n, panel);
      std::fill_n(panel + n, width - n, T(0));
    }
  }
}

}  // namespace

template <class T>
CellWeights<T>::CellWeights(const StackConfig& config, Index layer,
                            const CellParams<const T>& params,
                            std::shared_ptr<InputWeights<T>> same_input)
    : I(config.layer_input_size(layer)),
      H(config.hidden_size),
      P(config.output_size()),
      C(config.c_size()),
      GH(config.gates() * H),
      SH(config.saved_gates() * H),
      projects(config.proj_size > 0),
      cell(cell_kernels<T>(config)),
      input(std::move(same_input)),
      R(GH, P),
      bias(GH),
      options{config.options.usual_functions(),
              config.options.gate,
              config.options.candidate,
              config.options.hidden,
              static_cast<T>(config.options.clip),
              config.options.input_forget,
              nullptr,
              0,
              nullptr,
              0},
      plain(config.options.plain()) {
  if (input == nullptr) {
    input = std::make_shared<InputWeights<T>>();
    input->W.resize(GH, I);
    std::copy_n(params.weight_ih, input->W.size(), input->W.data());
  }
  std::copy_n(params.weight_hh, R.size(), R.data());
  bias.fill_zero();
  if (cell.resets) {
    bias_h.resize((H + cell.block_units - 1) / cell.block_units, cell.block_units);
    bias_h.fill_zero();
  }
  if (params.bias_ih != nullptr) {
    const Index summed = cell.resets ? GH - H : GH;
    std::copy_n(params.bias_ih, GH, bias.data());
    for (Index k = 0; k < summed; ++k) bias.data()[k] += params.bias_hh[k];
    std::copy_n(params.bias_hh + summed, GH - summed, bias_h.data());
  }
  if (projects) {
    W_hr.resize(P, H);
    std::copy_n(params.weight_hr, W_hr.size(), W_hr.data());
  }
  if (config.options.peepholes) {
    const Index lanes = kernels<T>().lanes;
    options.ld_peephole = (H + lanes - 1) / lanes * lanes;
    peephole.resize(3, options.ld_peephole);
    peephole.fill_zero();
    for (Index gate = 0; gate < 3; ++gate) {
      std::copy_n(params.weight_peephole + gate * H, H,
                  peephole.data() + gate * options.ld_peephole);
    }
    options.peephole = peephole.data();
  }
  if (cell.normalises) {
    norm_values.resize(10, H);
    T* values = norm_values.data();
    std::copy_n(params.weight_ln_ih, GH, values);
    std::copy_n(params.weight_ln_hh, GH, values + GH);
    std::copy_n(params.weight_ln_c, H, values + 2 * GH);
    copy_or_zero(params.bias_ln_c, H, values + 2 * GH + H);
    norm = {values, values + GH, values + 2 * GH, values + 2 * GH + H};
  }
  if (active_target().tiles) pack_panels();
}

template <class T>
void CellWeights<T>::pack_panels() {
  const Index lanes = kernels<T>().lanes, units = cell.block_units;
  width = cell.vectors * lanes;
  blocks = (H + units - 1) / units;
  parts = cell.in_halves ? 3 : 1;
  // Column j of a block belongs to gate j / units of unit block * units + j % units.
  const auto gate_row = [&](const T* matrix, Index K) {
    return [=, n = blocks](Index block, Index j) -> const T* {
      const Index unit = block % n * units + j % units, gate = block / n + j / units;
      return unit < H ? matrix + (gate * H + unit) * K : nullptr;
    };
  };
  if (input->panel.size() == 0) {
    input->panel.resize(parts * blocks, I * width);
    pack_panel(parts * blocks, I, width, gate_row(input->W.data(), I), input->panel.data());
  }
  R_panel.resize(parts * blocks, P * width);
  pack_panel(parts * blocks, P, width, gate_row(R.data(), P), R_panel.data());
  bias_panel.resize(parts * blocks, width);
  pack_panel(parts * blocks, 1, width, gate_row(bias.data(), 1), bias_panel.data());
  if (projects) {
    const Index columns = 4 * lanes;
    proj_blocks = (P + columns - 1) / columns;
    W_hr_panel.resize(proj_blocks, H * columns);
    const auto row = [&](Index block, Index j) -> const T* {
      const Index column = block * columns + j;
      return column < P ? W_hr.data() + column * H : nullptr;
    };
    pack_panel(proj_blocks, H, columns, row, W_hr_panel.data());
  }
}

template <class T>
const T* CellWeights<T>::R_backward_panel() const {
  return R_backward_panel_.get([this] {
    // In halves: the rows of r and z, then those of n.
    const Index first = cell.in_halves ? 2 * H : GH, columns = backward_columns<T>(P);
    Buffer<T> panel(columns, GH);
    pack_backward(R.data(), first, P, panel.data());
    pack_backward(R.data() + first * P, GH - first, P, panel.data() + first * columns);
    return panel;
  });
}

template <class T>
const T* CellWeights<T>::W_backward_panel() const {
  return input->backward_panel.get([this] {
    Buffer<T> panel(backward_columns<T>(I), GH);
    pack_backward(input->W.data(), GH, I, panel.data());
    return panel;
  });
}

template struct CellWeights<float>;
template struct CellWeights<double>;

}  // namespace fastlstm

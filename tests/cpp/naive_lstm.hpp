// The LSTM as one loop over everything, in double: what the core is compared with. And a problem:
// a stack's configuration, parameters and inputs, filled at random, run on either of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "fastlstm/stack.hpp"
#include "runtime/philox.hpp"

using fastlstm::Index;
using Values = std::vector<double>;

/// The parameters of one layer and direction; absent ones are empty.
struct Cell {
  Values weight_ih, weight_hh, bias_ih, bias_hh, weight_hr;
};

/// What a call returns, and what a tape shows of each cell: all time-major.
struct Results {
  Values output, h_n, c_n;
  std::vector<Values> gates, c, h;  // [L * D]
};

struct Gradients {
  Values x, h_0, c_0;
  std::vector<Cell> cells;
};

struct Problem {
  std::string name;
  fastlstm::StackConfig config;
  Index T = 0, B = 0;
  bool bias = true;
  std::vector<Index> lengths;  // empty: all are T
  fastlstm::Dropout dropout;

  std::vector<Cell> cells;
  Values x, h_0, c_0;             // x: [T, B, I]
  Values d_output, d_h_n, d_c_n;  // the loss is the sum of their products with the results

  Index I() const { return config.input_size; }
  Index H() const { return config.hidden_size; }
  Index P() const { return config.output_size(); }
  Index width() const { return config.directions() * P(); }
  Index length(Index b) const { return lengths.empty() ? T : lengths[static_cast<std::size_t>(b)]; }

  /// Fills all values. What stands past the end of a sequence is NaN: nobody may read it.
  void fill(unsigned seed) {
    Random random(seed);
    const auto values = [&](Index n) { return random.values<double>(n, -1, 1); };
    for (Index k = 0; k < config.cells(); ++k) {
      Cell cell;
      cell.weight_ih = values(4 * H() * config.layer_input_size(k / config.directions()));
      cell.weight_hh = values(4 * H() * P());
      if (bias) cell.bias_ih = values(4 * H());
      if (bias) cell.bias_hh = values(4 * H());
      if (config.proj_size > 0) cell.weight_hr = values(P() * H());
      cells.push_back(cell);
    }
    x = values(T * B * I());
    h_0 = values(config.cells() * B * P());
    c_0 = values(config.cells() * B * H());
    d_output = values(T * B * width());
    d_h_n = values(config.cells() * B * P());
    d_c_n = values(config.cells() * B * H());
    for (Index t = 0; t < T; ++t) {
      for (Index b = 0; b < B; ++b) {
        if (t < length(b)) continue;
        std::fill_n(x.begin() + (t * B + b) * I(), I(), std::nan(""));
        std::fill_n(d_output.begin() + (t * B + b) * width(), width(), std::nan(""));
      }
    }
  }
};

inline double naive_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// What dropout multiplies the output of a layer with at one place.
inline double naive_mask(const Problem& p, Index layer, Index t, Index b, Index column) {
  if (p.dropout.p == 0) return 1;
  std::uint32_t bits[4];
  fastlstm::philox_4x32(p.dropout.seed, static_cast<std::uint64_t>(b * p.T + t),
                        static_cast<std::uint32_t>(column / 4), static_cast<std::uint32_t>(layer),
                        bits);
  return bits[column % 4] < (1 - p.dropout.p) * 4294967296.0 ? 1 / (1 - p.dropout.p) : 0;
}

inline Results naive_forward(const Problem& p) {
  const Index T = p.T, B = p.B, H = p.H(), P = p.P(), D = p.config.directions();
  Results r;
  r.h_n = p.h_0;
  r.c_n = p.c_0;
  Values in = p.x;
  for (Index layer = 0; layer < p.config.num_layers; ++layer) {
    const Index I = p.config.layer_input_size(layer);
    Values out(static_cast<std::size_t>(T * B * D * P), 0.0);
    for (Index d = 0; d < D; ++d) {
      const Index k = layer * D + d;
      const Cell& cell = p.cells[static_cast<std::size_t>(k)];
      Values all_gates(static_cast<std::size_t>(T * B * 4 * H), 0.0);
      Values all_c(static_cast<std::size_t>(T * B * H), 0.0);
      Values all_h(static_cast<std::size_t>(T * B * P), 0.0);
      for (Index b = 0; b < B; ++b) {
        double* h = r.h_n.data() + (k * B + b) * P;
        double* c = r.c_n.data() + (k * B + b) * H;
        for (Index step = 0; step < p.length(b); ++step) {
          const Index t = p.config.runs_backward(d) ? p.length(b) - 1 - step : step;
          const double* x = in.data() + (t * B + b) * I;
          double* gates = all_gates.data() + (t * B + b) * 4 * H;
          for (Index row = 0; row < 4 * H; ++row) {
            double sum = 0;
            if (!cell.bias_ih.empty()) sum += cell.bias_ih.data()[row] + cell.bias_hh.data()[row];
            for (Index j = 0; j < I; ++j) sum += cell.weight_ih.data()[row * I + j] * x[j];
            for (Index j = 0; j < P; ++j) sum += cell.weight_hh.data()[row * P + j] * h[j];
            gates[row] = row / H == 2 ? std::tanh(sum) : naive_sigmoid(sum);
          }
          Values hidden(static_cast<std::size_t>(H));
          for (Index j = 0; j < H; ++j) {
            c[j] = gates[H + j] * c[j] + gates[j] * gates[2 * H + j];
            hidden.data()[j] = gates[3 * H + j] * std::tanh(c[j]);
          }
          for (Index j = 0; j < P; ++j) {
            h[j] = cell.weight_hr.empty() ? hidden.data()[j] : 0;
            for (Index l = 0; l < H && !cell.weight_hr.empty(); ++l) {
              h[j] += cell.weight_hr.data()[j * H + l] * hidden.data()[l];
            }
          }
          std::copy_n(c, H, all_c.data() + (t * B + b) * H);
          std::copy_n(h, P, all_h.data() + (t * B + b) * P);
          std::copy_n(h, P, out.data() + (t * B + b) * D * P + d * P);
        }
      }
      r.gates.push_back(all_gates);
      r.c.push_back(all_c);
      r.h.push_back(all_h);
    }
    r.output = out;
    for (Index at = 0; at < T * B * D * P; ++at) {
      const Index row = at / (D * P);
      out.data()[at] *= naive_mask(p, layer, row / B, row % B, at % (D * P));
    }
    in = out;
  }
  return r;
}

/// The loss whose gradients of the results are d_output, d_h_n, d_c_n.
inline double naive_loss(const Problem& p) {
  const Results r = naive_forward(p);
  double loss = 0;
  for (std::size_t k = 0; k < r.output.size(); ++k) {
    const auto row = static_cast<Index>(k) / p.width();
    if (row / p.B < p.length(row % p.B)) loss += p.d_output[k] * r.output[k];
  }
  for (std::size_t k = 0; k < r.h_n.size(); ++k) loss += p.d_h_n[k] * r.h_n[k];
  for (std::size_t k = 0; k < r.c_n.size(); ++k) loss += p.d_c_n[k] * r.c_n[k];
  return loss;
}

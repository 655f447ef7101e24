// All cells as one loop over everything, in double: what the core is compared with. And a problem:
// a stack's configuration, parameters and inputs, filled at random, run on either of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "fastlstm/stack.hpp"
#include "philox.hpp"

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
  std::vector<Index> lengths;  // empty: all are T
  fastlstm::Regularisation regularisation;

  std::vector<Cell> cells;
  Values x, h_0, c_0;             // x: [T, B, I]
  Values d_output, d_h_n, d_c_n;  // the loss is the sum of their products with the results

  Index I() const { return config.input_size; }
  Index H() const { return config.hidden_size; }
  Index P() const { return config.output_size(); }
  Index C() const { return config.memory_size(); }
  Index GH() const { return config.gates() * H(); }
  Index width() const { return config.directions() * P(); }
  Index length(Index b) const { return lengths.empty() ? T : lengths[static_cast<std::size_t>(b)]; }

  /// Fills all values. What stands past the end of a sequence is NaN: nobody may read it.
  void fill(unsigned seed) {
    Random random(seed);
    const auto values = [&](Index n) { return random.values<double>(n, -1, 1); };
    // An RNN with weights as large would multiply its rounding errors from step to step.
    const double most = config.gates() == 1 ? 1 / std::sqrt(static_cast<double>(H())) : 1;
    const auto weights = [&](Index n) { return random.values<double>(n, -most, most); };
    for (Index k = 0; k < config.cells(); ++k) {
      Cell cell;
      cell.weight_ih = weights(GH() * config.layer_input_size(k / config.directions()));
      cell.weight_hh = weights(GH() * P());
      if (config.bias) cell.bias_ih = values(GH());
      if (config.bias) cell.bias_hh = values(GH());
      if (config.proj_size > 0) cell.weight_hr = values(P() * H());
      cells.push_back(cell);
    }
    x = values(T * B * I());
    h_0 = values(config.cells() * B * P());
    c_0 = values(config.cells() * B * C());
    d_output = values(T * B * width());
    d_h_n = values(config.cells() * B * P());
    d_c_n = values(config.cells() * B * C());
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

/// A number from 0 to 1 for one place. kind, k: as the core's streams of random numbers.
inline double naive_uniform(std::uint64_t seed, std::uint32_t kind, Index k, Index row,
                            Index column) {
  std::uint32_t bits[4];
  philox_4x32(seed, static_cast<std::uint64_t>(row), static_cast<std::uint32_t>(column / 4),
              kind << 30 | static_cast<std::uint32_t>(k), bits);
  return bits[column % 4] / 4294967296.0;
}

/// What dropout with probability p multiplies a value with.
inline double naive_mask(double p, double uniform) { return uniform < 1 - p ? 1 / (1 - p) : 0; }

/// What regularisation multiplies values of cell k with: dropout of the output of layer k, dropout
/// of h and of R, and the part that zoneout keeps.
struct NaiveMasks {
  const Problem& p;

  double output(Index k, Index t, Index b, Index column) const {
    if (p.regularisation.dropout == 0) return 1;
    return naive_mask(p.regularisation.dropout,
                      naive_uniform(p.regularisation.seed, 0, k, b * p.T + t, column));
  }
  double h(Index k, Index b, Index j) const {
    if (p.regularisation.recurrent_dropout == 0) return 1;
    return naive_mask(p.regularisation.recurrent_dropout,
                      naive_uniform(p.regularisation.seed, 1, k, b, j));
  }
  double R(Index k, Index row, Index j) const {
    if (p.regularisation.weight_dropout == 0) return 1;
    return naive_mask(p.regularisation.weight_dropout,
                      naive_uniform(p.regularisation.seed, 2, k, row, j));
  }
  double keep_h(Index k, Index t, Index b, Index j) const {
    return keep(p.config.options.zoneout_h, ~p.regularisation.seed, k, t, b, j);
  }
  double keep_c(Index k, Index t, Index b, Index j) const {
    return keep(p.config.options.zoneout_c, p.regularisation.seed, k, t, b, j);
  }

 private:
  double keep(double probability, std::uint64_t seed, Index k, Index t, Index b, Index j) const {
    if (!p.regularisation.zoneout) return probability;
    return naive_uniform(seed, 3, k, b * p.T + t, j) < probability ? 1 : 0;
  }
};

/// How many gates of a unit a tape shows.
inline Index naive_saved_gates(const fastlstm::StackConfig& config) {
  switch (config.cell) {
    case fastlstm::CellKind::kLstm:
    case fastlstm::CellKind::kGru:
      return 4;
    case fastlstm::CellKind::kGruResetBefore:
      return 3;
    default:  // an RNN's h says it all, but for zoneout
      return config.options.zoneout_h > 0 ? 1 : 0;
  }
}

/// What a step makes of one sequence, before zoneout.
struct NaiveStep {
  Values h, c, saved;  // saved: as the core's tape shows it
};

/// W x + b_W or R h + b_R: matrix: [rows, width].
inline Values naive_sums(const Values& matrix, const Values& bias, Index rows, const double* x,
                         Index width) {
  Values sums(static_cast<std::size_t>(rows));
  for (Index row = 0; row < rows; ++row) {
    double sum = bias.empty() ? 0 : bias.data()[row];
    for (Index j = 0; j < width; ++j) sum += matrix.data()[row * width + j] * x[j];
    sums.data()[row] = sum;
  }
  return sums;
}

/// One step. read_h: what R reads of h, [P]; h and c: the state before, [P] and [C].
inline NaiveStep naive_step(const fastlstm::StackConfig& config, const Cell& cell, const double* x,
                            Index I, const Values& read_h, const double* h, const double* c) {
  using fastlstm::CellKind;
  const Index H = config.hidden_size, P = config.output_size(), GH = config.gates() * H;
  const Values from_x = naive_sums(cell.weight_ih, cell.bias_ih, GH, x, I);
  const Values from_h = naive_sums(cell.weight_hh, cell.bias_hh, GH, read_h.data(), P);
  const auto sum = [&](Index gate, Index j) {
    return from_x.data()[gate * H + j] + from_h.data()[gate * H + j];
  };
  NaiveStep step;
  const auto save = [&](std::initializer_list<Values> gates) {
    for (const Values& gate : gates) {
      step.saved.insert(step.saved.end(), gate.begin(), gate.end());
    }
  };
  const auto units = [H](auto value) {
    Values values;
    for (Index j = 0; j < H; ++j) values.push_back(value(j));
    return values;
  };
  const auto gate = [&](Index k) {
    return units([&](Index j) { return naive_sigmoid(sum(k, j)); });
  };
  switch (config.cell) {
    case CellKind::kLstm: {
      const Values i = gate(0), f = gate(1), o = gate(3);
      const Values g = units([&](Index j) { return std::tanh(sum(2, j)); });
      step.c = units([&](Index j) { return f.data()[j] * c[j] + i.data()[j] * g.data()[j]; });
      step.h = units([&](Index j) { return o.data()[j] * std::tanh(step.c.data()[j]); });
      if (!cell.weight_hr.empty()) step.h = naive_sums(cell.weight_hr, {}, P, step.h.data(), H);
      save({i, f, g, o});
      break;
    }
    case CellKind::kGru:
    case CellKind::kGruResetBefore: {
      const bool before = config.cell == CellKind::kGruResetBefore;
      const Values r = gate(0), z = gate(1);
      Values m(from_h.end() - H, from_h.end());  // R_n h + b_Rn
      if (before) {
        const Values reset_h = units([&](Index j) { return r.data()[j] * read_h.data()[j]; });
        const Values all = naive_sums(cell.weight_hh, cell.bias_hh, GH, reset_h.data(), H);
        m.assign(all.end() - H, all.end());
      }
      const Values n = units([&](Index j) {
        const double from_m = before ? m.data()[j] : r.data()[j] * m.data()[j];
        return std::tanh(from_x.data()[2 * H + j] + from_m);
      });
      step.h = units([&](Index j) { return (1 - z.data()[j]) * n.data()[j] + z.data()[j] * h[j]; });
      save({r, z, n});
      if (!before) save({m});
      break;
    }
    case CellKind::kRnnTanh:
      step.h = units([&](Index j) { return std::tanh(sum(0, j)); });
      break;
    case CellKind::kRnnRelu:
      step.h = units([&](Index j) { return std::max(0.0, sum(0, j)); });
      break;
  }
  if (naive_saved_gates(config) == 1) save({step.h});
  return step;
}

inline Results naive_forward(const Problem& p) {
  const Index T = p.T, B = p.B, P = p.P(), C = p.C(), D = p.config.directions();
  const Index SH = naive_saved_gates(p.config) * p.H();
  const NaiveMasks masks{p};
  Results r;
  r.h_n = p.h_0;
  r.c_n = p.c_0;
  Values in = p.x;
  for (Index layer = 0; layer < p.config.num_layers; ++layer) {
    const Index I = p.config.layer_input_size(layer);
    Values out(static_cast<std::size_t>(T * B * D * P), 0.0);
    for (Index d = 0; d < D; ++d) {
      const Index k = layer * D + d;
      Cell cell = p.cells[static_cast<std::size_t>(k)];
      for (Index at = 0; at < p.GH() * P; ++at) {
        cell.weight_hh.data()[at] *= masks.R(k, at / P, at % P);
      }
      Values all_gates(static_cast<std::size_t>(T * B * SH), 0.0);
      Values all_c(static_cast<std::size_t>(T * B * C), 0.0);
      Values all_h(static_cast<std::size_t>(T * B * P), 0.0);
      for (Index b = 0; b < B; ++b) {
        double* h = r.h_n.data() + (k * B + b) * P;
        double* c = r.c_n.data() + (k * B + b) * C;
        for (Index step = 0; step < p.length(b); ++step) {
          const Index t = p.config.runs_backward(d) ? p.length(b) - 1 - step : step;
          const Index row = t * B + b;
          Values read_h(h, h + P);
          for (Index j = 0; j < P; ++j) read_h.data()[j] *= masks.h(k, b, j);
          const NaiveStep made = naive_step(p.config, cell, in.data() + row * I, I, read_h, h, c);
          for (Index j = 0; j < P; ++j) {
            const double keep = masks.keep_h(k, t, b, j);
            h[j] = keep * h[j] + (1 - keep) * made.h.data()[j];
          }
          for (Index j = 0; j < C; ++j) {
            const double keep = masks.keep_c(k, t, b, j);
            c[j] = keep * c[j] + (1 - keep) * made.c.data()[j];
          }
          std::copy(made.saved.begin(), made.saved.end(), all_gates.data() + row * SH);
          std::copy_n(c, C, all_c.data() + row * C);
          std::copy_n(h, P, all_h.data() + row * P);
          std::copy_n(h, P, out.data() + row * D * P + d * P);
        }
      }
      r.gates.push_back(all_gates);
      r.c.push_back(all_c);
      r.h.push_back(all_h);
    }
    r.output = out;
    for (Index at = 0; at < T * B * D * P; ++at) {
      const Index row = at / (D * P);
      out.data()[at] *= masks.output(layer, row / B, row % B, at % (D * P));
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

// What a stack of recurrent layers computes: its cell, sizes and options.
//
// x is the input of a step, h' and c' are the values of the step before. Gates stand in PyTorch's
// order in all arrays.
//
// LSTM (Gers, Schmidhuber, Cummins 2000), gates i f g o:
//   i = sigmoid(W_i x + b_Wi + R_i h' + b_Ri)      input gate
//   f = sigmoid(W_f x + b_Wf + R_f h' + b_Rf)      forget gate
//   g = tanh   (W_g x + b_Wg + R_g h' + b_Rg)      candidate
//   o = sigmoid(W_o x + b_Wo + R_o h' + b_Ro)      output gate
//   c = f c' + i g                                 cell state
//   h = o tanh(c), or W_hr (o tanh(c)) with a projection (Sak et al. 2014)
// and with layer normalisation (Ba, Kiros, Hinton 2016), where N subtracts from a vector the mean
// of its values and divides by sqrt(variance + 1e-5):
//   the sums of all gates are gain_ih N(W x) + gain_hh N(R h') + b_W + b_R
//   h = o tanh(gain_c N(c) + bias_c)
//
// GRU (Cho et al. 2014; the reset gate after the product, as in PyTorch), gates r z n:
//   r = sigmoid(W_r x + b_Wr + R_r h' + b_Rr)      reset gate
//   z = sigmoid(W_z x + b_Wz + R_z h' + b_Rz)      update gate
//   n = tanh(W_n x + b_Wn + r (R_n h' + b_Rn))     candidate
//   h = (1 - z) n + z h'
// and with the reset gate before the product:
//   n = tanh(W_n x + b_Wn + R_n (r h') + b_Rn)
//
// RNN (Elman 1990):
//   h = tanh(W x + b_W + R h' + b_R), or relu of it
#pragma once

#include <limits>
#include <vector>

#include "fastlstm/activation.hpp"
#include "fastlstm/arithmetic.hpp"
#include "fastlstm/types.hpp"

namespace fastlstm {

enum class CellKind { kLstm, kGru, kGruResetBefore, kRnnTanh, kRnnRelu };

/// What everybody may know of a cell.
struct CellFacts {
  CellKind kind;
  const char* name;
  Index gates;  // G, the rows of W and R for each hidden unit
  /// The parts of its state besides h, its memory: [H] each.
  const char* memory[kMostStateParts - 1];
};

/// In the order of CellKind.
constexpr CellFacts kCells[] = {
    {CellKind::kLstm, "lstm", 4, {"c"}},
    {CellKind::kGru, "gru", 3, {}},
    {CellKind::kGruResetBefore, "gru_reset_before", 3, {}},
    {CellKind::kRnnTanh, "rnn_tanh", 1, {}},
    {CellKind::kRnnRelu, "rnn_relu", 1, {}},
};

constexpr bool cells_are_in_order() {
  int k = 0;
  for (const CellFacts& facts : kCells) {
    if (static_cast<int>(facts.kind) != k++) return false;
  }
  return true;
}
static_assert(cells_are_in_order());

/// What changes a cell's equations. The defaults are the equations above.
struct CellOptions {
  Activation gate{ActivationKind::kSigmoid};              // of i, f, o, or r, z
  Activation candidate{ActivationKind::kTanh};            // of g or n; RNN: of the sum
  Activation hidden{ActivationKind::kTanh};               // of c on its way into h
  double clip = std::numeric_limits<double>::infinity();  // the bound of the gates' sums
  bool input_forget = false;                              // f = 1 - i
  double zoneout_h = 0;     // 0 <= p <= 1: the probability that a unit of h keeps its value
  double zoneout_c = 0;     // the same of c
  bool peepholes = false;   // p_i c', p_f c' and p_o c are added to the sums of i, f and o
  bool layer_norm = false;  // with zoneout alone of the others

  /// Whether the functions are the defaults, of sums without a bound.
  bool usual_functions() const {
    const CellOptions defaults;
    return gate == defaults.gate && candidate == defaults.candidate && hidden == defaults.hidden &&
           clip == defaults.clip;
  }
  /// Whether a step of the cell is that of the equations above.
  bool plain() const {
    return usual_functions() && !input_forget && !peepholes && !layer_norm && zoneout_c == 0;
  }
};

/// How the output is made of those of two directions: side by side, their sum, product or mean.
/// Layers above the first read them side by side.
enum class Merge { kConcat, kSum, kMul, kAve };

/// A part of a cell's state.
struct StatePart {
  const char* name;
  Index width;
};

struct StackConfig {
  Index input_size = 0;
  Index hidden_size = 0;
  Index num_layers = 1;
  Index proj_size = 0;  // LSTM; 0: no projection
  bool bidirectional = false;
  bool reverse = false;  // one direction only, from the end of each sequence to its start
  CellKind cell = CellKind::kLstm;
  CellOptions options{};
  Merge merge = Merge::kConcat;
  bool bias = true;
  Arithmetic arithmetic = Arithmetic::kFull;

  const CellFacts& facts() const { return kCells[static_cast<int>(cell)]; }
  Index gates() const { return facts().gates; }
  Index directions() const { return bidirectional ? 2 : 1; }
  Index cells() const { return num_layers * directions(); }  // pairs of layer and direction
  Index output_size() const { return proj_size ? proj_size : hidden_size; }
  /// The width of the output: D * P, or P where directions are merged.
  Index merged_size() const {
    return merge == Merge::kConcat ? directions() * output_size() : output_size();
  }
  Index layer_input_size(Index layer) const {
    return layer == 0 ? input_size : directions() * output_size();
  }
  /// The most values in a row of any layer's input.
  Index widest_input() const {
    const Index between = num_layers > 1 ? layer_input_size(1) : 0;
    return input_size > between ? input_size : between;
  }
  /// The parts of the state besides h.
  Index memory_parts() const {
    Index n = 0;
    while (n < kMostStateParts - 1 && facts().memory[n] != nullptr) ++n;
    return n;
  }
  /// M, the values of all of them, side by side.
  Index memory_size() const { return memory_parts() * hidden_size; }
  /// h, [P], and the memory.
  std::vector<StatePart> state_parts() const {
    std::vector<StatePart> parts{{"h", output_size()}};
    for (Index k = 0; k < memory_parts(); ++k) parts.push_back({facts().memory[k], hidden_size});
    return parts;
  }
  /// The multiply-adds of one step of one sequence through all layers, forward.
  double products_per_row() const {
    double inputs = 0;
    for (Index layer = 0; layer < num_layers; ++layer) {
      inputs += static_cast<double>(layer_input_size(layer) + output_size());
    }
    return static_cast<double>(directions() * gates() * hidden_size) * inputs;
  }
  /// Whether direction d of a layer runs from the end to the start.
  bool runs_backward(Index d) const { return reverse || d == 1; }
};

/// Throws std::invalid_argument where sizes or options are out of range or do not go together.
void check_config(const StackConfig& config);

}  // namespace fastlstm

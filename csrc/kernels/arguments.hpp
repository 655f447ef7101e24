// What each kernel takes: plain structs, shared by all targets. A kernel's name is its
// specification, its struct the details. Rows are contiguous unless a leading dimension is given.
#pragma once

#include <cstdint>

#include "fastlstm/activation.hpp"
#include "fastlstm/optim.hpp"
#include "fastlstm/types.hpp"
#include "kernels/panel.hpp"

namespace fastlstm {

/// y = function(x), element by element. For exp_values, sigmoid_values and tanh_values.
template <class T>
struct MapValues {
  Index n;
  const T* x;  // [n] in
  T* y;        // [n] out; may be x
};

/// What a cell may do besides its usual equations (for the LSTM kernels/lstm_step.hpp). Rows of
/// units are padded to whole vectors.
template <class T>
struct StepOptions {
  bool usual_functions;                // sigmoid and tanh, and no bound; what follows is not read
  Activation gate, candidate, hidden;  // of i f o or r z, of g or n, of c on its way into h
  T clip;                              // the bound of the sums; infinity: none
  bool input_forget;                   // f = 1 - i
  const T* peephole;                   // [3] of ld_peephole elements, in: of i, f, o; null: none
  Index ld_peephole;
  const T* keep_c;  // [rows] of ld_keep_c elements, in: zoneout, the part of c' in c; null: none
  Index ld_keep_c;
};

/// out = bias + x W, for some rows.
template <class T>
struct ProjectRows {
  Index rows;
  Index first_block, end_block;
  Index V;  // 3 or 4
  Index K;
  const T* const* x;  // [rows] in: pointers to [K]
  Panel<T> panel;     // of K, in
  const T* bias;      // [blocks][V][lanes] in; null: zeros
  T* out;             // [rows] of ld_out elements, out: [blocks][V][lanes] of each
  Index ld_out;
  bool down = false;     // from the last block to the first
  void* room = nullptr;  // [converted_bytes(rows, K)] for the kernel, where it converts inputs
};

/// Rows that a kernel takes at once, where it converts inputs or keeps the sums of a step.
constexpr Index kRowsAtOnce = 48;

/// Bytes of a kernel's room for converted rows of K inputs: 4 for each, in whole vectors, and a
/// cache line, so that rows do not share sets of the L1 cache.
inline Index converted_bytes(Index rows, Index K) {
  return (rows < kRowsAtOnce ? rows : kRowsAtOnce) * ((K + 15) / 16 * 64 + 64);
}
/// What is left of a room after such rows.
inline void* room_after(void* room, Index rows, Index K) {
  return static_cast<char*>(room) + converted_bytes(rows, K);
}

/// out += d_sums^T values: the gradient of some rows and columns of a weight matrix.
template <class T>
struct AddOuterProducts {
  Index n;          // terms of each sum
  Index rows;       // of out
  Index columns;    // of out
  const T* d_sums;  // [n] of ld_d_sums elements, in: [rows] of each
  Index ld_d_sums;
  const T* values;  // [n] of ld_values elements, in: [columns] of each
  Index ld_values;
  T* out;  // [rows] of ld_out elements, in and out: [columns] of each
  Index ld_out;
  T* room;  // [outer_products_room(n, columns, lanes)] for the kernel
};

/// Terms whose values add_outer_products copies at once: a panel of 32 KB with AVX-512.
constexpr Index kOuterTerms = 128;
/// Columns that it takes at once, in vectors; and the most rows of its tiles.
constexpr Index kOuterVectors = 16;
constexpr Index kOuterRows = 12;

/// Values of the room of add_outer_products: panels of values, a copy of gradients, and a tile of
/// out at its edge.
inline Index outer_products_room(Index n, Index columns, Index lanes) {
  const Index terms = n < kOuterTerms ? n : kOuterTerms;
  const Index vectors = (columns + lanes - 1) / lanes;
  const Index panels = vectors < kOuterVectors ? (vectors + 3) / 4 * 4 : kOuterVectors;
  return (panels * terms + kOuterRows * 4) * lanes + kOuterRows * terms;
}

/// Steps whose inputs a tile can project ahead.
constexpr Index kAheadSteps = 4;

/// The input projection of kAheadSteps later steps, done bit by bit within the steps before them.
template <class T>
struct ProjectAhead {
  const T* const* x;  // [kAheadSteps] in: pointers to [I]
  T* out;             // [kAheadSteps] of ld_out elements, out: as project_rows writes them
  Index ld_out;
  bool last_step;  // in: do all that is left
  Index block, k;  // in and out: what comes next, of the step's blocks and the inputs
};

/// Blocks of units whose sums a step keeps until the equations finish them: enough that the CPU
/// overlaps them, and few enough (24 KB with AVX-512) to stay in the L1 cache.
constexpr Index kBlocksAtOnce = kRowsAtOnce;

/// Values of a step's room for these sums, for at most so many rows and blocks.
inline Index step_sums(Index rows, Index blocks, Index width) {
  const Index at_once = rows * blocks < kBlocksAtOnce ? rows * blocks : kBlocksAtOnce;
  return 2 * at_once * width;
}

/// One time step of a cell for some rows and blocks of units, products and gates together.
/// With x == null, `projected` holds the part of the pre-activations that comes from the input.
template <class T>
struct CellStepTile {
  Index rows;
  Index first_block, end_block;
  Index H, I, P;
  const T* const* x;   // [rows] in: pointers to [I], or null
  Panel<T> W;          // of K = I, in; of R's arithmetic
  const T* bias;       // [blocks][V][lanes] in
  const T* bias_h;     // [blocks][lanes] in, GRU: of R_n h'
  const T* projected;  // [rows] of ld_projected elements, in: what project_rows wrote
  Index ld_projected;
  const T* h_prev;    // [rows] of ld_h_prev elements, in: what R reads, [P] of each
  const T* h_past_R;  // the same, in, GRU: the h' that z keeps; whole blocks can be read
  Index ld_h_prev;
  Panel<T> R;  // of K = P, in
  /// The parts of the state besides h (LSTM: c), [rows] of ld_memory elements each, in: of the step
  /// before; out: new; padded to whole blocks.
  T* memory[kMostStateParts - 1];
  Index ld_memory;
  T* h;  // [rows] of ld_h elements, out: before a projection; padded to whole blocks
  Index ld_h;
  T* const* output;  // [rows] out: pointers to [H], h once more; or null
  T* gates;          // [rows] of ld_gates elements, out: what training saves, [H] each; or null
  Index ld_gates;
  T* saved_memory;  // [rows] of ld_saved_memory elements, out: the new memory, [H] of each part
                    // side by side; null where nothing is saved
  Index ld_saved_memory;
  T* sums;  // [step_sums(rows, blocks, V lanes)] for the kernel, aligned to a cache line
  const StepOptions<T>* options = nullptr;  // without the usual functions gates saves the sums
  ProjectAhead<T>* ahead = nullptr;         // for one row, where projects_ahead; or null
  bool down = false;                        // from the last block to the first
  /// [converted_bytes(rows, I) + converted_bytes(rows, P)] for the kernel, where it converts
  /// inputs.
  void* room = nullptr;
};

/// Layer normalisation adds it to the variance.
constexpr double kNormEpsilon = 1e-5;

/// Rows that the kernels of layer normalisation go through together: the moments of each end in a
/// chain of sums, a division and a square root, which the CPU overlaps with the next row's.
constexpr Index kNormRows = 4;

/// Where the sums of an LSTM's gates stand in a row: gate k of unit j at
/// k * gate + j / lanes * vector + j % lanes. {H, lanes}: gate after gate; {lanes, 4 lanes}: as
/// project_rows writes them.
struct GateStrides {
  Index gate, vector;
};

/// sums = gain normalised(sums) + bias, where normalised subtracts from a row of all gates its mean
/// and divides by sqrt(variance + kNormEpsilon).
template <class T>
struct NormaliseSums {
  Index rows;
  Index H;
  GateStrides strides;
  const T* gain;  // [4H] in
  const T* bias;  // [4H] in; null: zeros
  T* sums;        // [rows] of ld elements, in and out
  Index ld;
};

/// The parameters of layer normalisation in an LSTM, less the bias of the gates.
template <class T>
struct LstmNorm {
  const T *gain_x, *gain_h;  // [4H] of W x and of R h'
  const T *gain_c, *bias_c;  // [H] of c on its way into h
};

/// The two halves of a time step of an LSTM with layer normalisation, for some rows and the units
/// first <= j < end, which are whole vectors or reach to H. Between them, c before zoneout must be
/// complete: the second half normalises whole rows of it, as the first does with R h'.
template <class T>
struct LstmNormStep {
  Index rows;
  Index first, end;
  Index H;
  GateStrides strides;
  const LstmNorm<T>* norm;
  const T* from_x;  // [rows] of ld_x elements, in: W x, normalised, with the bias
  Index ld_x;
  const T* from_h;  // [rows] of ld_from_h elements, in: R h'
  Index ld_from_h;
  T* c;      // [rows] of ld_c elements, in: c'; out of the second half: c
  T* new_c;  // [rows] of ld_c elements, out of the first half: c before zoneout; without it, c
  Index ld_c;
  T* h;  // [rows] of ld_h elements, out of the first half: o; of the second: h before a projection
  Index ld_h;
  T* const* output;  // [rows] out of the second half: pointers to [H], h once more; or null
  T* gates;          // [rows] of ld_gates elements, out of the first half: R h', [4H] of each;
                     // null: not saved; may be from_x, of the strides {H, lanes}
  Index ld_gates;
  T* saved_c;  // [rows] of ld_saved_c elements, out of the second half: [H] of each; or null
  Index ld_saved_c;
  const T* keep_c;  // [rows] of ld_keep_c elements, in: zoneout, the part of c' in c; null: none
  Index ld_keep_c;
};

/// The two halves of a time step of a GRU that resets before the product R_n (r h'), which stands
/// between them, for some rows and the units first <= j < end. Gate k of unit j is at k * stride +
/// j.
template <class T>
struct GruHalfStep {
  Index rows;
  Index first, end;
  Index H, stride;
  const T* from_x;  // [rows] of ld_x elements, in: W x with the bias
  Index ld_x;
  T* from_h;  // [rows] of ld_from_h elements, in: R h' of r and z, then R_n (r h'); z stays there
  Index ld_from_h;
  const T* h_prev;  // [rows] of ld_h_prev elements, in: h'
  const T* read_h;  // the same, in: what R reads of it; may be h_prev
  Index ld_h_prev;
  T* reset_h;  // [rows] of ld_h_prev elements, out of the first half: r times what R reads
  T* h;        // [rows] of ld_h elements, out of the second half; may be h_prev
  Index ld_h;
  T* const* output;  // [rows] out of the second half: h once more; or null
  T* gates;          // [rows] of ld_gates elements, out: r, z, n, [H] each; null: not saved
  Index ld_gates;
  const StepOptions<T>* options = nullptr;  // without the usual functions gates saves the sums
};

/// The two halves of its gradient.
template <class T>
struct GruHalfStepBackward {
  Index rows;
  Index H;
  const T* gates;   // [rows, 3H] in: r, z, n, as saved
  const T* h_prev;  // [rows, H] in: h'
  const T* h_mask;  // [rows, H] in: what h' is multiplied with before R reads it; null: ones
  const T* d_h;     // [rows] of ld_d_h elements, in of the first half
  Index ld_d_h;
  T* d_h_past_R;     // [rows, H] in and out: gradient of h that does not come through R
  T* d_gates;        // [rows, 3H] out: of z and n, then of r
  const T* d_reset;  // [rows] of ld_d_h elements, in of the second half: gradient of reset_h
  T* reset_h;        // [rows, H] out of the second half: r times what R reads
  const StepOptions<T>* options = nullptr;  // without the usual functions gates holds the sums
};

/// In and out: gradients to which those of a step's rows are added.
template <class T>
struct LstmNormSums {
  T *bias, *gain_x, *gain_h;  // [4H]
  T *gain_c, *bias_c;         // [H]
};

/// What the gradient of a step with layer normalisation takes besides.
template <class T>
struct LstmNormBackward {
  LstmNorm<T> parameters;
  const T* bias;        // [4H] in
  GateStrides strides;  // of from_x
  const T* from_x;      // [rows] of ld_x elements, in: W x
  Index ld_x;
  T* room;  // [kNormRows][6H] for the kernel
  LstmNormSums<T> sums;
};

/// The gradient of one time step of a cell for some rows.
template <class T>
struct CellStepBackward {
  Index rows;
  Index H;
  const T* gates;   // [rows, saved_gates * H] in, as saved (with layer normalisation R h'); null
                    // where nothing is, of an RNN
  const T* memory;  // [rows, M] in: the parts of the state besides h, side by side (LSTM: c)
  const T* memory_prev;  // [rows, M] in: the same of the step before
  const T* h;            // [rows] of ld_h elements, in: [H] of each; RNN, where gates is null
  Index ld_h;
  const T* h_prev;  // [rows, H] in: h'; GRU
  const T* d_h;     // [rows] of ld_d_h elements, in: gradient of h before a projection, [H] of each
  Index ld_d_h;
  T* d_memory;    // [rows, M] in: gradient of the memory; out: of that of the step before
  T* d_h_past_R;  // [rows, H] in: gradient that reached h past R, GRU; out: of h', the same
  T* d_gates;     // [rows, G H] out: gradient of W x + b; LSTM: may be gates, but not with layer
                  // normalisation
  T* d_from_h;    // [rows, G H] out: gradient of R h' + b where it differs: of a GRU, or with
                  // layer normalisation
  T* hidden = nullptr;                      // [rows, H] out: h before a projection; or null
  const StepOptions<T>* options = nullptr;  // without the usual functions gates holds the sums
  T* d_peephole = nullptr;  // [rows, 3H] out: each row's part of their gradient; null without
  const LstmNormBackward<T>* norm = nullptr;  // of lstm_norm_backward; null of all others
};

/// The gates of an LSTM or a GRU with other functions, from the sums that training saved.
template <class T>
struct ActivateGates {
  Index rows;
  Index G;  // 4: LSTM, 3: GRU
  Index H;
  Index ld_gates;
  T* gates;  // [rows] of ld_gates elements, in: sums; out: i f g o, or r z n, the rest as it is
  const StepOptions<T>* options;
};

/// sums += the column sums of values.
template <class T>
struct AddColumnSums {
  Index rows;
  Index columns;
  const T* values;  // [rows, columns] in
  T* sums;          // [columns] in and out
};

/// Dropout of one row: y = x * mask / (1 - p), the mask drawn from (seed, layer, row, column).
template <class T>
struct DropoutRow {
  Index columns;
  std::uint64_t seed;
  std::uint32_t layer;
  std::uint64_t row;
  double p;    // 0 <= p <= 1: the part that becomes zero
  const T* x;  // [columns] in
  T* y;        // [columns] out; may be x
};

/// Random choices for one row: 1 with probability p, else 0, drawn from (seed, stream, row,
/// column).
template <class T>
struct BernoulliRow {
  Index columns;
  Index first;  // the first column, a multiple of 4
  std::uint64_t seed;
  std::uint32_t stream;
  std::uint64_t row;
  double p;  // 0 <= p <= 1
  T* y;      // [columns] out
};

/// The columns of some rows, as vectors.
template <class T>
struct TransposeRows {
  Index rows;     // at most as many as a vector has lanes
  Index columns;  // of each
  const T* from;  // [rows] of ld_from elements, in: [columns] of each
  Index ld_from;
  T* to;  // [columns] of ld_to elements, out: [lanes] of each, zeros after `rows` of them
  Index ld_to;
};

/// A hash of some bytes and the order in which they stand (kernels/hash_bytes.hpp), the same for
/// all T. It differs from target to target.
template <class T>
struct HashBytes {
  Index n;
  const void* bytes;    // [n] in, any alignment
  std::uint64_t* hash;  // in and out: of what comes before
};

constexpr int kHashVectors = 8;  // accumulators
constexpr int kHashShift = 29;
constexpr std::uint64_t kHashFactor = 0x9E3779B97F4A7C15;  // 2^64 divided by the golden ratio, odd

/// The sum of squares, in float64.
template <class T>
struct SumSquares {
  Index n;
  const T* x;   // [n] in
  double* sum;  // out
};

/// y = x factor, multiplied in float64.
template <class T>
struct ScaleValues {
  Index n;
  double factor;
  const T* x;  // [n] in
  T* y;        // [n] out; not x
};

/// A row of logits: exp(x - most) and their sum, which make softmax, and log softmax.
template <class T>
struct SoftmaxRow {
  Index n;
  const T* x;   // [n] in
  T* y;         // [n] out; may be x
  T* most;      // out: the largest of x; -inf where n is 0
  double* sum;  // out: of y
};

// Rows of tags below have n values and zeros, or what makes zeros, up to width: n rounded up to
// whole vectors.

/// What one step of a linear-chain CRF reads of its transitions, each [n, width] of from and to.
template <class T>
struct CrfTransitions {
  Index n;
  Index width;
  const T* scores;     // [n, width] as they are
  const T* most;       // [width] the largest in each column; 0 where that is -inf
  const T* weights;    // [n, width] exp(scores - most), at most 1; 1 beyond n
  const T* weights_T;  // [n, width] the same, of to and from; 0 beyond n
};

/// One step forward: the sum over all paths, by the tag that they end with.
///   sums_j = sum_i a_i weights_ij
///   alpha_j = log(sums_j) + most_j + emission_j, less the largest of them
/// Where sums_j has too few digits left (all that may come before j is unlikely), alpha_j is
/// computed from logarithms, and sums_j becomes 0 to say so.
template <class T>
struct CrfStep {
  const CrfTransitions<T>* transitions;
  const T* emission;  // [width] in: -1e30 or so beyond n
  const T* alpha;     // [width] in: of the step before, the largest 0
  const T* a;         // [width] in: exp(alpha)
  T* sums;            // [width] out
  T* alpha_next;      // [width] out
  T* a_next;          // [width] out
  T* scale;           // out: what was subtracted
};

/// The same step backward: from the probabilities of tags after it to those before it.
template <class T>
struct CrfStepBackward {
  const CrfTransitions<T>* transitions;
  const T* alpha;   // [width] in: of the step before, as its step has left them
  const T* a;       // [width] in
  const T* sums;    // [width] in
  const T* p_next;  // [width] in: probabilities of the tags after the step
  T* q;             // [width] out: p_next / sums, 0 where sums is
  T* p;             // [width] out: the probabilities before it
  T* counts;  // [n, width] in and out: where sums_j is 0, the probabilities of the transitions
              // to j are added to column j. All others are a_i weights_ij q_j.
};

/// One step of the search for the best path: best_next_j = max_i (best_i + scores_ij) + emission_j,
/// less the largest of them.
template <class T>
struct CrfBestStep {
  const CrfTransitions<T>* transitions;  // scores only
  const T* emission;                     // [width] in
  const T* best;                         // [width] in
  T* best_next;                          // [width] out
  T* scale;                              // out: what was subtracted
};

/// The logarithm of no probability: finite, so that differences of two are.
constexpr float kLogNothing = -1e30f;

/// One frame of CTC's forward recursion over L labels with blanks between. Blank k stands before
/// label k, and the last blank after all: width > L. Logarithms, the largest 0; kLogNothing: none.
///   blank_next_k = logsum(blank_k, label_{k-1}) + log_p_blank
///   label_next_k = logsum(label_k, blank_k, label_{k-1} + skip_k) + log_p_k
/// and the shares of what they come from, which add up to 1.
template <class T>
struct CtcStep {
  Index width;     // whole vectors
  T log_p_blank;   // of this frame
  const T* log_p;  // [width] in: of each label in this frame; kLogNothing beyond L
  const T* skip;   // [width] in: 0 where label k may follow label k-1 at once, or kLogNothing
  const T* blank;  // [width] in
  const T* label;  // [-1 .. width) in; label[-1] is kLogNothing
  T* blank_next;   // [width] out
  T* label_next;   // [width] out
  T* scale;        // out: what was subtracted, the largest; kLogNothing or so: no path is left
  T* blank_blank;  // [width] out: the share of blank k in blank_next k
  T* blank_label;  // [width] out: of label k-1
  T* label_label;  // [width] out: the share of label k in label_next k
  T* label_blank;  // [width] out: of blank k
  T* label_skip;   // [width] out: of label k-1
};

/// The same frame backward: from the probabilities of places after it to those before it.
template <class T>
struct CtcStepBackward {
  Index width;
  const T *blank_blank, *label_label, *label_blank;  // [width] in
  const T *blank_label, *label_skip;                 // [width + 1] in; the last is 0
  const T *p_blank_next, *p_label_next;              // [width + 1] in; the last is 0
  T *p_blank, *p_label;                              // [width] out
};

}  // namespace fastlstm

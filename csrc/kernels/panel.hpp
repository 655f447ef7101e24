// A panel of weights as kernels see it, and how its weights are stored. What a kernel computes with
// and how weights are stored are two things: a kernel asks once, for each call, how they are
// stored, and then loads vectors of them.
//
// Weights are packed so that V vectors of one input stand before those of the next input, all gates
// of the same units together:
//
//   panel: [block][K][V][lanes]
//   bias:  [block][V][lanes]
//
// with zeros for units that do not exist. Block b of an LSTM has the V = 4 gates of the units
// b * lanes ... (b + 1) * lanes - 1, that of a GRU its V = 3 gates. A plain matrix (of a
// projection, or of an RNN) has its columns in blocks of V = 4 vectors. A kernel works on the
// blocks first_block <= b < end_block. weights/weight_panel.hpp packs them.
#pragma once

namespace fastlstm {

/// How the weights of a panel are stored. Another way is a line here, its loads in
/// kernels/stored_weights.hpp, and how it is packed in weights/weight_panel.hpp.
enum class Storage : unsigned char { kFull };  // as what is computed with

template <class T>
struct Panel {
  const void* data = nullptr;
  Storage storage = Storage::kFull;

  Panel() = default;
  Panel(const T* values) : data(values) {}  // NOLINT: values are a panel that is stored in full
};

}  // namespace fastlstm

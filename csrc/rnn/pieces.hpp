// How the work of a pass is divided into pieces, and what its ways over BLAS and tiles share.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels/arguments.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"

namespace fastlstm {

/// A product of many rows is divided into pieces of this many among the threads. They do not depend
/// on the number of threads, and so the bits of the results do not.
constexpr Index kPieceRows = 256;

struct Piece {
  Index first, size;
};

inline Index pieces(Index n, Index size = kPieceRows) { return (n + size - 1) / size; }

inline Piece piece(Index n, Index k, Index size = kPieceRows) {
  return {k * size, std::min(size, n - k * size)};
}

/// The share of one thread in work that several do together.
struct Part {
  int rank = 0;
  int size = 1;
  SpinBarrier* barrier = nullptr;  // of the threads that share; null for one

  void wait() const {
    if (barrier != nullptr) barrier->wait_briefly();
  }
  /// This thread's of n items, in whole groups of grain.
  std::pair<Index, Index> range(Index n, Index grain) const {
    const Index groups = (n + grain - 1) / grain;
    return {std::min(n, groups * rank / size * grain),
            std::min(n, groups * (rank + 1) / size * grain)};
  }
};

/// Whether a step reads panels from the last block to the first: every other step of a few rows,
/// which begins with what the L2 cache still holds of the step before. One Emerald Rapids (2 MB),
/// LSTM, H = 512, GFLOP/s without and with: B = 1 26 and 36, B = 8 115 and 128. With B = 32 the
/// products hide the way from the L3 cache, and nothing was gained (H = 256 lost 2 to 4 %).
inline bool reads_down(Index step, Index rows) { return rows <= 24 && step % 2 != 0; }

/// rows: [n, width] contiguous in; to: n rows of ld elements, out.
template <class T>
void copy_rows(const T* rows, Index n, Index width, T* to, Index ld) {
  if (ld == width) {
    std::copy_n(rows, n * width, to);
    return;
  }
  for (Index k = 0; k < n; ++k) std::copy_n(rows + k * width, width, to + k * ld);
}

/// Where the gates of an LSTM stand in a row of sums that BLAS computes.
template <class T>
GateStrides gate_after_gate(Index H) {
  return {H, kernels<T>().lanes};
}

}  // namespace fastlstm

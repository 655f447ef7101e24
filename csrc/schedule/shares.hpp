// How work is divided: what several threads do together, and products of many rows.
#pragma once

#include <algorithm>
#include <utility>

#include "runtime/spin_barrier.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

/// A run of items that one thread takes. Where the bits of a result depend on it, its size does not
/// depend on the number of threads.
struct Piece {
  Index first, size;
};

inline Index pieces(Index n, Index size = kPieceRows) { return (n + size - 1) / size; }

inline Piece piece(Index n, Index k, Index size = kPieceRows) {
  return {k * size, std::min(size, n - k * size)};
}

/// What one thread has of work that several do together, step by step.
struct Share {
  int rank = 0;
  int size = 1;
  SpinBarrier* barrier = nullptr;  // of the threads that share; null for one

  void wait() const {
    if (barrier != nullptr) barrier->wait_briefly(rank);
  }
  /// This thread's of n items, in whole groups of grain.
  std::pair<Index, Index> range(Index n, Index grain) const {
    const Index groups = (n + grain - 1) / grain;
    return {std::min(n, groups * rank / size * grain),
            std::min(n, groups * (rank + 1) / size * grain)};
  }
};

/// Whether a step reads panels from the last block to the first.
inline bool reads_down(Index step, Index rows) {
  return rows <= static_cast<Index>(tuning().rows_down) && step % 2 != 0;
}

}  // namespace fastlstm

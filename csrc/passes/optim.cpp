#include "fastlstm/optim.hpp"

#include <algorithm>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

/// Calls body(k, first, size) for each piece k of n elements.
template <class Body>
void for_each_piece(Index n, const Body& body) {
  const FlushDenormals flush_denormals;  // as in workers: bits do not depend on who takes a piece
  const Index per_thread = static_cast<Index>(tuning().pieces_per_thread);
  const Index pieces = (n + kPieceValues - 1) / kPieceValues;
  TeamLease team(static_cast<int>(std::clamp<Index>(pieces / per_thread, 1, num_threads())));
  // 4 million values at once, which take some 50 ms where the pages of a new array come with them.
  constexpr Index kTogether = 256;
  for (Index first = 0; first < pieces; first += kTogether) {
    check_interrupt();
    team.run_tasks(std::min(kTogether, pieces - first), [&](Index task, int) noexcept {
      const Index k = first + task;
      body(k, k * kPieceValues, std::min(kPieceValues, n - k * kPieceValues));
    });
  }
}

}  // namespace

template <class T>
double sum_of_squares(Index n, const T* x) {
  std::vector<double> sums(static_cast<std::size_t>((n + kPieceValues - 1) / kPieceValues));
  for_each_piece(n, [&](Index k, Index first, Index size) {
    kernels<T>().sum_squares({size, x + first, &sums[static_cast<std::size_t>(k)]});
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

template <class T>
void scale(Index n, const T* x, double factor, T* y) {
  for_each_piece(n, [&](Index, Index first, Index size) {
    kernels<T>().scale_values({size, factor, x + first, y + first});
  });
}

template <class T>
void adam(const AdamStep<T>& step) {
  for_each_piece(step.n, [&](Index, Index first, Index size) {
    AdamStep<T> part = step;
    part.n = size;
    part.p += first;
    part.g += first;
    part.m += first;
    part.v += first;
    part.p_new += first;
    kernels<T>().adam_step(part);
  });
}

#define FASTLSTM_INSTANTIATE(T)                        \
  template double sum_of_squares<T>(Index, const T*);  \
  template void scale<T>(Index, const T*, double, T*); \
  template void adam<T>(const AdamStep<T>&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm

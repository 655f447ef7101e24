// Connectionist temporal classification (Graves et al. 2006), for C++ callers: the loss of logits
// whose softmax says for each frame which label it is, or none (the blank). The probability of a
// target is the sum over all paths that give it: repeats merged, then blanks left out.
//
// Rows are independent of each other.
#pragma once

#include "fastlstm/types.hpp"

namespace fastlstm {

template <class T>
struct CtcCall {
  Index steps;  // T
  Index B;
  Index V;                       // classes, the blank among them
  Index S;                       // columns of targets
  Index blank;                   // 0 <= blank < V
  const Index* lengths;          // [B] 0 <= length <= steps; null: all are of all steps
  SequenceView<const T> logits;  // features: V
  const Index* targets;          // [B, S] 0 <= label < V, not the blank
  const Index* target_lengths;   // [B] 0 <= length <= S; labels beyond are not read
  const double* scales;          // [B] of each row's loss, for its gradient
  SequenceView<T> d_logits;      // features: V, out: gradient of the sum of scale * loss; zero
                                 // past an end, and of rows whose loss is infinite. Not the logits
  double* losses;                // [B] out: -log p; infinity where no path gives the target
};

template <class T>
void ctc(const CtcCall<T>& call);

}  // namespace fastlstm

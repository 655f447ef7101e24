// Row-major matrix products on the BLAS that was handed to the core.
#pragma once

#include "fastlstm/runtime.hpp"
#include "fastlstm/types.hpp"

namespace fastlstm {

/// A row-major matrix as an operand: op(A) is A or its transpose.
template <class T>
struct Operand {
  const T* data;
  Index ld;  // elements from one row to the next
  bool transposed = false;
};

/// C = op(A) op(B) + beta C, with C: [m, n] and k the inner size. C must not overlap A or B.
/// m, n, k and the leading dimensions must fit in an int.
template <class T>
void gemm(Index m, Index n, Index k, Operand<T> a, Operand<T> b, T beta, T* c, Index ldc);

/// Limits the BLAS library's own threads to num_threads() while it lives.
class BlasThreads {
 public:
  BlasThreads();
  ~BlasThreads();
  BlasThreads(const BlasThreads&) = delete;
  BlasThreads& operator=(const BlasThreads&) = delete;

 private:
  int before_ = 0;  // 0: nothing to restore
};

}  // namespace fastlstm

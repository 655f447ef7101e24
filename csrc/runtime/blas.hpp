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

/// Throws std::logic_error before set_blas.
void require_blas();

/// C = op(A) op(B) + beta C, with C: [m, n] and k the inner size. C must not overlap A or B.
/// m, n, k and the leading dimensions must fit in an int. After require_blas.
template <class T>
void gemm(Index m, Index n, Index k, Operand<T> a, Operand<T> b, T beta, T* c, Index ldc) noexcept;

/// Keeps the BLAS library to the calling thread while any of these lives: fastlstm's own threads
/// divide the work, in pieces that do not depend on their number, so that the bits do not either.
class SingleThreadedBlas {
 public:
  SingleThreadedBlas();
  ~SingleThreadedBlas();
  SingleThreadedBlas(const SingleThreadedBlas&) = delete;
  SingleThreadedBlas& operator=(const SingleThreadedBlas&) = delete;
};

}  // namespace fastlstm

#include "runtime/blas.hpp"

#include <cassert>
#include <limits>
#include <stdexcept>

namespace fastlstm {

namespace {

BlasTable g_blas;

auto gemm_function(float) { return g_blas.sgemm; }
auto gemm_function(double) { return g_blas.dgemm; }

int blas_int(Index n) {
  assert(0 <= n && n <= std::numeric_limits<int>::max());
  return static_cast<int>(n);
}

}  // namespace

void set_blas(const BlasTable& table) { g_blas = table; }

bool has_blas() { return g_blas.sgemm != nullptr && g_blas.dgemm != nullptr; }

template <class T>
void gemm(Index m, Index n, Index k, Operand<T> a, Operand<T> b, T beta, T* c, Index ldc) {
  if (m == 0 || n == 0) return;
  auto* function = gemm_function(T());
  if (function == nullptr) throw std::logic_error("no BLAS: call set_blas first");
  // Fortran's matrices are column-major, so what it sees is C^T = op(B)^T op(A)^T.
  char transa = b.transposed ? 'T' : 'N';
  char transb = a.transposed ? 'T' : 'N';
  int rows = blas_int(n), columns = blas_int(m), inner = blas_int(k);
  int lda = blas_int(b.ld), ldb = blas_int(a.ld), ldc_int = blas_int(ldc);
  T alpha = 1;
  // BLAS reads A and B only; its C declaration just has no const.
  function(&transa, &transb, &rows, &columns, &inner, &alpha, const_cast<T*>(b.data), &lda,
           const_cast<T*>(a.data), &ldb, &beta, c, &ldc_int);
}

template void gemm(Index, Index, Index, Operand<float>, Operand<float>, float, float*, Index);
template void gemm(Index, Index, Index, Operand<double>, Operand<double>, double, double*, Index);

BlasThreads::BlasThreads() {
  if (g_blas.get_num_threads == nullptr || g_blas.set_num_threads == nullptr) return;
  const int before = g_blas.get_num_threads();
  const int wanted = num_threads();
  if (before == wanted) return;
  g_blas.set_num_threads(wanted);
  before_ = before;
}

BlasThreads::~BlasThreads() {
  if (before_ != 0) g_blas.set_num_threads(before_);
}

}  // namespace fastlstm

#include "runtime/blas.hpp"

#include <atomic>
#include <cassert>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "runtime/system.hpp"

namespace fastlstm {

namespace {

BlasTable g_blas;
std::atomic<bool> g_has_blas{false};  // once all of the table is there

auto gemm_function(float) { return g_blas.sgemm; }
auto gemm_function(double) { return g_blas.dgemm; }

int blas_int(Index n) {
  assert(0 <= n && n <= std::numeric_limits<int>::max());
  return static_cast<int>(n);
}

}  // namespace

void set_blas(const BlasTable& table) {
  g_blas = table;
  g_has_blas.store(table.sgemm != nullptr && table.dgemm != nullptr, std::memory_order_release);
}

bool has_blas() { return g_has_blas.load(std::memory_order_acquire); }

void require_blas() {
  if (!has_blas()) throw std::logic_error("no BLAS: call set_blas first");
}

template <class T>
void gemm(Index m, Index n, Index k, Operand<T> a, Operand<T> b, T beta, T* c, Index ldc) noexcept {
  if (m == 0 || n == 0) return;
  // Fortran's matrices are column-major, so what it sees is C^T = op(B)^T op(A)^T.
  char transa = b.transposed ? 'T' : 'N';
  char transb = a.transposed ? 'T' : 'N';
  int rows = blas_int(n), columns = blas_int(m), inner = blas_int(k);
  int lda = blas_int(b.ld), ldb = blas_int(a.ld), ldc_int = blas_int(ldc);
  T alpha = 1;
  // BLAS reads A and B only; its C declaration just has no const.
  gemm_function(T())(&transa, &transb, &rows, &columns, &inner, &alpha, const_cast<T*>(b.data),
                     &lda, const_cast<T*>(a.data), &ldb, &beta, c, &ldc_int);
}

template void gemm(Index, Index, Index, Operand<float>, Operand<float>, float, float*,
                   Index) noexcept;
template void gemm(Index, Index, Index, Operand<double>, Operand<double>, double, double*,
                   Index) noexcept;

namespace {

// The library's setting is one for the process, and calls may overlap: the first sets it, the last
// sets it back.
std::mutex g_single_mutex;
int g_single_users = 0;
thread_local int t_single_users = 0;  // those of this thread
int g_threads_before = 1;
bool g_left_single = false;  // by calls of the parent process, of which a fork has left no thread

// A fork waits for the lock, so that the child does not find it taken by a thread that it lacks.
void before_fork() { g_single_mutex.lock(); }
void after_fork_in_parent() { g_single_mutex.unlock(); }
void after_fork_in_child() {
  g_left_single = g_left_single || g_single_users > 0;
  g_single_users = t_single_users;
  g_single_mutex.unlock();
}
const int g_fork_handlers = at_fork(before_fork, after_fork_in_parent, after_fork_in_child);

bool threads_can_be_set() {
  return g_blas.get_num_threads != nullptr && g_blas.set_num_threads != nullptr;
}

}  // namespace

SingleThreadedBlas::SingleThreadedBlas() {
  if (!threads_can_be_set()) return;
  const std::lock_guard<std::mutex> lock(g_single_mutex);
  ++t_single_users;
  if (g_single_users++ > 0) return;
  const int threads = g_blas.get_num_threads();
  if (!g_left_single || threads != 1) g_threads_before = threads;
  if (g_threads_before != 1) g_blas.set_num_threads(1);
}

SingleThreadedBlas::~SingleThreadedBlas() {
  if (!threads_can_be_set()) return;
  const std::lock_guard<std::mutex> lock(g_single_mutex);
  --t_single_users;
  if (--g_single_users > 0) return;
  g_left_single = false;
  if (g_threads_before != 1) g_blas.set_num_threads(g_threads_before);
}

}  // namespace fastlstm

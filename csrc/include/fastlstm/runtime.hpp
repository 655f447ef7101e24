// The process-wide settings: instruction set, threads, and the BLAS to use.
#pragma once

#include <string>
#include <vector>

namespace fastlstm {

// --- instruction sets -------------------------------------------------------------------------

/// The instruction sets that this build has kernels for and this CPU can run, best first.
std::vector<std::string> available_isas();
/// The active one: the best, or what FASTLSTM_ISA asks for.
/// Throws std::invalid_argument when FASTLSTM_ISA names none of available_isas().
std::string isa();

// --- threads ----------------------------------------------------------------------------------

/// The CPUs that this process may use: its affinity mask, limited by the cgroup's CPU quota
/// (rounded up).
int usable_cpus();
/// The same of physical cores, where the system tells them from CPUs: the default number of
/// threads. Two threads of a core share what a product needs.
int usable_cores();
/// How many threads a call from the calling thread may use.
/// Throws std::invalid_argument when FASTLSTM_NUM_THREADS is not an integer from 1 to 4096.
int num_threads();
/// Sets the number for the whole process. 1 <= n <= 4096.
void set_num_threads(int n);
/// Sets the number for calls from the calling thread alone; 0 ends that. Returns the old value.
int set_thread_local_num_threads(int n);

/// The functions of an OpenMP runtime by which GCC's code, and Clang's libomp for it, runs regions.
struct OpenMp {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
};

/// The runtime that another library of the process computes with. Its threads spin for milliseconds
/// after each region, on the CPUs that threads of our own would need: PyTorch's took half of a
/// call's second thread (LSTM training 100,32,128 on two cores: 40 ms beside them, 24 on them).
void set_openmp(const OpenMp& openmp);
/// Whether calls from the calling thread run on its threads. Returns the old value.
bool set_thread_local_openmp(bool on);

// --- interruption -----------------------------------------------------------------------------

/// A function that long calls call now and then on the caller's thread, also in the middle of long
/// steps; it may throw, which ends the call: states, outputs and gradients are then unspecified,
/// layers are as they were. It may make other calls, but not use the same stream. Null: none.
void set_interrupt_check(void (*check)());

// --- BLAS -------------------------------------------------------------------------------------

/// The Fortran BLAS functions that the core uses, with 32-bit integers.
struct BlasTable {
  using Sgemm = void (*)(char* transa, char* transb, int* m, int* n, int* k, float* alpha, float* a,
                         int* lda, float* b, int* ldb, float* beta, float* c, int* ldc);
  using Dgemm = void (*)(char* transa, char* transb, int* m, int* n, int* k, double* alpha,
                         double* a, int* lda, double* b, int* ldb, double* beta, double* c,
                         int* ldc);
  Sgemm sgemm = nullptr;
  Dgemm dgemm = nullptr;
  int (*get_num_threads)() = nullptr;  // null: the library's threads cannot be controlled
  void (*set_num_threads)(int) = nullptr;
};

/// Hands the core its BLAS; the core links none. To be called before the first computation that
/// needs it: every backward pass. Without it that throws std::logic_error.
void set_blas(const BlasTable& table);
bool has_blas();

}  // namespace fastlstm

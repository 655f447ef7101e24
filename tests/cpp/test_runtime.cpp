// Settings of the process: targets, threads, the BLAS.
#if defined(__linux__)
#include <sched.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "check.hpp"
#include "core_stack.hpp"
#include "fastlstm/runtime.hpp"
#include "naive_blas.hpp"
#include "runtime/cpu.hpp"

using namespace fastlstm;

namespace {

std::string message_of(void (*call)()) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

/// In the environment; null: not there.
void set_variable(const char* name, const char* value) {
#if defined(_WIN32)
  _putenv_s(name, value != nullptr ? value : "");
#else
  value != nullptr ? setenv(name, value, 1) : unsetenv(name);
#endif
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

#if defined(__linux__) && defined(__x86_64__)
// Linux lists what the CPU has and the system saves.
TEST(the_cpu_has_what_the_system_lists) {
  std::string line;
  for (std::ifstream file("/proc/cpuinfo"); std::getline(file, line) && line.rfind("flags", 0);) {
  }
  const auto lists = [&](const char* flag) {
    return contains(line + " ", std::string(" ") + flag + " ");
  };
  const bool avx2 = lists("avx2") && lists("fma");
  const bool avx512 =
      avx2 && lists("avx512f") && lists("avx512dq") && lists("avx512bw") && lists("avx512vl");
  CHECK_EQUAL(cpu_has_avx2(), avx2);
  CHECK_EQUAL(cpu_has_avx2_vnni(), avx2 && lists("avx_vnni"));
  CHECK_EQUAL(cpu_has_avx512(), avx512);
  CHECK_EQUAL(cpu_has_avx512_vnni(), avx512 && lists("avx512_vnni"));
  CHECK_EQUAL(cpu_has_avx512_bf16(), avx512 && lists("avx512_vnni") && lists("avx512_bf16"));
}
#endif

// The target and the default number of threads are chosen once, so wrong wishes come first.
TEST(an_unknown_isa_is_an_error_that_lists_the_valid_ones) {
  set_variable("FASTLSTM_ISA", "abacus");
  const std::string message = message_of([] { isa(); });
  set_variable("FASTLSTM_ISA", nullptr);
  CHECK(contains(message, "FASTLSTM_ISA") && contains(message, "'abacus'"));
  for (const std::string& name : available_isas()) CHECK(contains(message, "'" + name + "'"));
  CHECK_EQUAL(isa(), available_isas().front());
  CHECK_EQUAL(available_isas().back(), std::string("generic"));
}

TEST(a_wrong_number_of_threads_is_an_error) {
  for (const char* text : {"0", "-1", "two", "2x", "1.5", "5000", "99999999999999999999"}) {
    NOTE(text);
    set_variable("FASTLSTM_NUM_THREADS", text);
    const std::string message = message_of([] { num_threads(); });
    set_variable("FASTLSTM_NUM_THREADS", nullptr);
    CHECK(contains(message, "FASTLSTM_NUM_THREADS") && contains(message, text));
  }
  for (const int n : {0, -1, 5000}) {
    CHECK_THROWS(set_num_threads(n), std::invalid_argument);
  }
  for (const int n : {-1, 5000}) {
    CHECK_THROWS(set_thread_local_num_threads(n), std::invalid_argument);
  }
}

TEST(the_default_number_of_threads) {
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cores() >= 1);
  CHECK(usable_cores() <= usable_cpus());
  CHECK_EQUAL(num_threads(), usable_cores());
}

#if defined(__linux__)
TEST(affinity_limits_the_cpus) {
  cpu_set_t all, one;
  CHECK_EQUAL(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  CHECK_EQUAL(sched_setaffinity(0, sizeof one, &one), 0);
  const int cpus = usable_cpus();
  sched_setaffinity(0, sizeof all, &all);
  CHECK_EQUAL(cpus, 1);
}
#elif defined(_WIN32)
TEST(affinity_limits_the_cpus) {
  DWORD_PTR all = 0, system = 0;
  CHECK(GetProcessAffinityMask(GetCurrentProcess(), &all, &system) != 0);
  CHECK(SetProcessAffinityMask(GetCurrentProcess(), all & (~all + 1)) != 0);
  const int cpus = usable_cpus();
  SetProcessAffinityMask(GetCurrentProcess(), all);
  CHECK_EQUAL(cpus, 1);
}
#endif

TEST(threads_of_the_process_and_of_one_thread) {
  set_num_threads(3);
  CHECK_EQUAL(num_threads(), 3);
  CHECK_EQUAL(set_thread_local_num_threads(5), 0);
  CHECK_EQUAL(num_threads(), 5);
  int elsewhere = 0;
  std::thread([&] { elsewhere = num_threads(); }).join();
  CHECK_EQUAL(elsewhere, 3);
  CHECK_EQUAL(set_thread_local_num_threads(0), 5);
  CHECK_EQUAL(num_threads(), 3);
}

namespace {

int g_blas_threads = 7;
int g_blas_threads_in_gemm = 0;

void noting_gemm(char* transa, char* transb, int* m, int* n, int* k, float* alpha, float* a,
                 int* lda, float* b, int* ldb, float* beta, float* c, int* ldc) {
  g_blas_threads_in_gemm = g_blas_threads;
  naive_gemm<float>(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace

TEST(a_backward_pass_needs_a_blas_and_limits_its_threads) {
  Problem p;
  p.config = {2, 3, 1, 2};  // projections are products on BLAS
  p.T = 2;
  p.B = 2;
  p.fill(1);
  const Stack<float> lstm = CoreProblem<float>::stack(p);
  CoreProblem<float> core(p);
  CHECK(!has_blas());
  lstm.forward(core.call());  // which needs none
  const Tape<float> tape = lstm.forward_train(core.call(), {});
  CHECK_THROWS(core.backward(tape), std::logic_error);
  BlasTable table = naive_blas();
  table.sgemm = noting_gemm;
  table.get_num_threads = [] { return g_blas_threads; };
  table.set_num_threads = [](int n) { g_blas_threads = n; };
  set_blas(table);
  CHECK(has_blas());
  set_num_threads(2);
  core.backward(tape);
  CHECK_EQUAL(g_blas_threads_in_gemm, 1);
  CHECK_EQUAL(g_blas_threads, 7);
}

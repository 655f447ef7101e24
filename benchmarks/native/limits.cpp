// What this machine can do at most: floating-point operations and bytes read per second.
//
// A C interface for ctypes, no dependency but the C++ runtime:
//   g++ -std=c++17 -O3 -shared -fPIC -pthread limits.cpp -o _limits.so
// Built without -march: each loop is compiled for several instruction sets and chosen at run time.
//
// The numbers are upper bounds that code can reach, not data sheet values: independent chains of
// fused multiply-adds on registers, and plain sums over a buffer that each thread owns and has
// touched.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#if !defined(__GNUC__)
#error "limits.cpp uses the vector extensions of GCC and Clang"
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// 12 chains hide the latency of every FMA pipe built so far (4 cycles x 2 pipes = 8 at least), and
// with the two operands fit in the 16 registers of AVX2. 8 do for adds, which are no slower.
constexpr int kFmaChains = 12;
constexpr int kSumChains = 8;
constexpr long kFmaRounds = 20000;

volatile double g_sink;  // Keeps results alive, so that no loop is dropped.

// The bodies of the loops. Always inlined into a function of each target, whose registers they then
// use; the vector type is a template argument, because an attribute cannot be.
template <typename V>
__attribute__((always_inline)) inline double fma_body(double seed) {
  using T = typename std::remove_reference<decltype(std::declval<V&>()[0])>::type;
  // x -> x*a + b has the fixed point b/(1-a) = 1: no overflow, no denormals, whatever the rounds.
  const V a = V{} + static_cast<T>(1.0 - seed);
  const V b = V{} + static_cast<T>(seed);
  V acc[kFmaChains];
#pragma GCC unroll 12
  for (int i = 0; i < kFmaChains; ++i) acc[i] = V{} + static_cast<T>(i);
  for (long round = 0; round < kFmaRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) acc[i] = acc[i] * a + b;
  }
  for (int i = 1; i < kFmaChains; ++i) acc[0] += acc[i];
  return static_cast<double>(acc[0][0]);
}

// Reads a buffer `repeats` times. data: [count] floats, aligned to V; in. count: a multiple of
// kSumChains vectors. The sums stay in registers from one reading to the next: a call for each cost
// a fifth of L1's bandwidth.
template <typename V>
__attribute__((always_inline)) inline double sum_body(const float* data, std::size_t count,
                                                      long repeats) {
  const V* vectors = reinterpret_cast<const V*>(data);
  const std::size_t n = count / (sizeof(V) / sizeof(float));
  V acc[kSumChains] = {};
  for (long repeat = 0; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < n; i += kSumChains) {
#pragma GCC unroll 8
      for (int j = 0; j < kSumChains; ++j) acc[j] += vectors[i + static_cast<std::size_t>(j)];
    }
  }
  for (int j = 1; j < kSumChains; ++j) acc[0] += acc[j];
  return static_cast<double>(acc[0][0]);
}

// may_alias: sum_body reads floats that were written one by one.
typedef float Float4 __attribute__((vector_size(16), may_alias));
typedef double Double2 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32), may_alias));
typedef double Double4 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64), may_alias));
typedef double Double8 __attribute__((vector_size(64)));

struct Isa {
  const char* name;
  double (*fma_float)(double seed);
  double (*fma_double)(double seed);
  double (*sum)(const float* data, std::size_t count, long repeats);
  int vector_bytes;
};

double fma_float_base(double seed) { return fma_body<Float4>(seed); }
double fma_double_base(double seed) { return fma_body<Double2>(seed); }
double sum_base(const float* data, std::size_t count, long repeats) {
  return sum_body<Float4>(data, count, repeats);
}

#if defined(__x86_64__)
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,prefer-vector-width=512")))
TARGET_AVX2 double fma_float_avx2(double seed) { return fma_body<Float8>(seed); }
TARGET_AVX2 double fma_double_avx2(double seed) { return fma_body<Double4>(seed); }
TARGET_AVX2 double sum_avx2(const float* data, std::size_t count, long repeats) {
  return sum_body<Float8>(data, count, repeats);
}
TARGET_AVX512 double fma_float_avx512(double seed) { return fma_body<Float16>(seed); }
TARGET_AVX512 double fma_double_avx512(double seed) { return fma_body<Double8>(seed); }
TARGET_AVX512 double sum_avx512(const float* data, std::size_t count, long repeats) {
  return sum_body<Float16>(data, count, repeats);
}
#endif

const Isa& best_isa() {
  static const Isa kBase = {"baseline", fma_float_base, fma_double_base, sum_base, 16};
#if defined(__x86_64__)
  static const Isa kAvx2 = {"avx2", fma_float_avx2, fma_double_avx2, sum_avx2, 32};
  static const Isa kAvx512 = {"avx512", fma_float_avx512, fma_double_avx512, sum_avx512, 64};
  // The builtin asks XGETBV too: the operating system must save the registers.
  if (__builtin_cpu_supports("avx512f")) return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kBase;
}

// Each thread on a CPU of its own, of those that the process may use: two on one would halve the
// limit. A thread does it itself: once it has ended, its handle would name the one that asks.
void pin_this_thread(int index) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || index-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
#else
  (void)index;
#endif
}

// Runs `work` again and again on `threads` threads for about `seconds`; the sum of the threads'
// speeds in units of work per second. prepare() makes each thread's private data on that thread.
template <typename Prepare>
double total_speed(int threads, double seconds, Prepare prepare) {
  std::atomic<int> waiting{threads};
  std::vector<double> speeds(static_cast<std::size_t>(threads), 0.0);
  std::vector<std::thread> team;
  for (int index = 0; index < threads; ++index) {
    team.emplace_back([&, index] {
      pin_this_thread(index);
      auto work = prepare();
      double sum = work();  // Touches memory, warms caches, raises the clock.
      waiting.fetch_sub(1);
      while (waiting.load() > 0) {
      }
      const auto start = Clock::now();
      double elapsed = 0.0;
      long rounds = 0;
      while (elapsed < seconds) {
        sum += work();
        ++rounds;
        elapsed = seconds_since(start);
      }
      speeds[static_cast<std::size_t>(index)] = static_cast<double>(rounds) / elapsed;
      g_sink = sum;
    });
  }
  for (auto& thread : team) thread.join();
  double total = 0.0;
  for (double speed : speeds) total += speed;
  return total;
}

struct Aligned {
  explicit Aligned(std::size_t n)
      : data(static_cast<float*>(std::aligned_alloc(4096, n * sizeof(float)))), count(n) {
    // Written, or every page would be the one page of zeros; 1, or the sums would be of denormals.
    if (data != nullptr) std::fill(data, data + n, 1.0f);
  }
  Aligned(Aligned&& other) noexcept : data(other.data), count(other.count) { other.data = nullptr; }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { std::free(data); }
  float* data;
  std::size_t count;
};

}  // namespace

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT
#endif

extern "C" {

// Name of the instruction set that the two functions below use.
EXPORT const char* fastlstm_limits_isa() { return best_isa().name; }

// Operations per second of fused multiply-adds (two operations each), all threads together.
EXPORT double fastlstm_limits_flops(int is_double, int threads, double seconds) {
  const Isa& isa = best_isa();
  const auto body = is_double ? isa.fma_double : isa.fma_float;
  const double lanes = isa.vector_bytes / (is_double ? 8.0 : 4.0);
  const double speed = total_speed(threads, seconds, [body] {
    volatile double seed = 0x1p-10;  // Not a constant to the compiler.
    return [body, value = seed] { return body(value); };
  });
  return speed * static_cast<double>(kFmaRounds) * kFmaChains * lanes * 2.0;
}

// Bytes read per second, all threads together; each thread reads its own buffer of
// bytes_per_thread, rounded to 4 KiB, from start to end. 0: no memory.
EXPORT double fastlstm_limits_bandwidth(std::size_t bytes_per_thread, int threads, double seconds) {
  const auto body = best_isa().sum;
  const std::size_t bytes = std::max<std::size_t>(4096, bytes_per_thread / 4096 * 4096);
  const std::size_t count = bytes / sizeof(float);
  // Small buffers are read several times in one unit of work, so that the clock costs nothing.
  const long repeats = std::max<long>(1, static_cast<long>((std::size_t{1} << 20) / bytes));
  std::atomic<bool> failed{false};
  const double speed = total_speed(threads, seconds, [&] {
    return [buffer = Aligned(count), body, repeats, &failed] {
      if (buffer.data == nullptr) {
        failed = true;
        return 0.0;
      }
      return body(buffer.data, buffer.count, repeats);
    };
  });
  return failed ? 0.0 : speed * static_cast<double>(bytes) * static_cast<double>(repeats);
}

}  // extern "C"

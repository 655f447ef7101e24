// How fast every kernel of every instruction set of this machine is, by itself, on one thread.
//
//   kernel_benchmark [SECONDS]     of each measurement, default 0.02; prints JSON
//
// The kernels come from the list: each one's arguments need a set_up below, or this does not
// compile. "ns" is the time of one call, the shortest of several measurements; a matrix product has
// "gflops" beside it, others "ns_per_value". The exit status is 1 where a kernel made of ordinary
// numbers something else than such.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <vector>

#include "kernels/list.hpp"
#include "runtime/buffer.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/targets.hpp"

namespace {

using namespace fastlstm;

/// B rows of H units with G gates; inputs are H wide, too.
struct Size {
  Index B, H, G = 4;
};

// A stream's step out of the L1 cache, one whose weights fit in L2 only, and a batch.
constexpr Size kSizes[] = {{1, 64}, {1, 256}, {32, 256}};

/// What one call does: floating-point operations of a product, or values that it makes.
struct Work {
  bool is_product;
  double amount;
};

/// Memory for the arguments of one kernel.
template <class T>
class Arrays {
 public:
  T* operator()(Index n, double from, double to) {
    Buffer<T>& buffer = buffers_.emplace_back(n);
    for (Index k = 0; k < n; ++k) {
      const double unit = static_cast<double>(engine_()) / 4294967296.0;
      buffer.data()[k] = static_cast<T>(from + (to - from) * unit);
    }
    return buffer.data();
  }

  /// Pointers to rows of `width` values, one after another.
  T** rows(Index n, Index width) {
    T* const values = (*this)(n * width, -1, 1);
    std::vector<T*>& pointers = pointers_.emplace_back();
    for (Index row = 0; row < n; ++row) pointers.push_back(values + row * width);
    return pointers.data();
  }

  /// A structure that the arguments point to.
  LstmNorm<T>* keep(const LstmNorm<T>& norm) { return &norms_.emplace_back(norm); }
  LstmNormBackward<T>* keep(const LstmNormBackward<T>& norm) {
    return &norms_backward_.emplace_back(norm);
  }
  CrfTransitions<T>* keep(const CrfTransitions<T>& transitions) {
    return &transitions_.emplace_back(transitions);
  }

  bool all_finite() const {
    return std::all_of(buffers_.begin(), buffers_.end(), [](const Buffer<T>& buffer) {
      return std::all_of(buffer.data(), buffer.data() + buffer.size(),
                         [](T value) { return std::isfinite(value); });
    });
  }

 private:
  std::mt19937 engine_{1};
  std::deque<Buffer<T>> buffers_;
  std::deque<std::vector<T*>> pointers_;
  std::deque<LstmNorm<T>> norms_;
  std::deque<LstmNormBackward<T>> norms_backward_;
  std::deque<CrfTransitions<T>> transitions_;
};

// The ranges are those of real calls: gates 0 to 1, small weights, so that nothing grows from call
// to call.

template <class T>
Work set_up(MapValues<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.B * 4 * size.H;
  a = {n, arrays(n, 0.1, 4), arrays(n, 0, 0)};  // above zero, for log
  return {false, static_cast<double>(n)};
}

// Of weights [H, H]: a vector's rows.
template <class T>
Work set_up(TransposeRows<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index rows = table.lanes, H = size.H;
  a = {rows, H, arrays(rows * H, -1, 1), H, arrays(H * 4 * rows, 0, 0), 4 * rows};
  return {false, static_cast<double>(rows * H)};
}

template <class T>
Work set_up(HashBytes<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  static std::uint64_t hash;
  const Index n = size.B * 4 * size.H;
  a = {n * static_cast<Index>(sizeof(T)), arrays(n, -1, 1), &hash};
  return {false, static_cast<double>(n)};
}

// Of H tags, labels or classes.
template <class T>
Work set_up(SoftmaxRow<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  static double sum;
  a = {size.H, arrays(size.H, -4, 4), arrays(size.H, 0, 0), arrays(1, 0, 0), &sum};
  return {false, static_cast<double>(size.H)};
}

template <class T>
const CrfTransitions<T>* crf_transitions(Index n, Arrays<T>& arrays) {
  return arrays.keep(CrfTransitions<T>{n, n, arrays(n * n, -1, 0), arrays(n, 0, 0),
                                       arrays(n * n, 0.3, 1), arrays(n * n, 0.3, 1)});
}

template <class T>
Work set_up(CrfStep<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.H;
  a = {crf_transitions(n, arrays),
       arrays(n, -1, 1),
       arrays(n, -1, 0),
       arrays(n, 0.3, 1),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(1, 0, 0)};
  return {true, 2.0 * static_cast<double>(n * n)};
}

template <class T>
Work set_up(CrfStepBackward<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.H;
  a = {crf_transitions(n, arrays),
       arrays(n, -1, 0),
       arrays(n, 0.3, 1),
       arrays(n, 0.3, 1),
       arrays(n, 0, 1),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n * n, 0, 0)};
  return {true, 2.0 * static_cast<double>(n * n)};
}

template <class T>
Work set_up(CrfBestStep<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.H;
  a = {crf_transitions(n, arrays), arrays(n, -1, 1), arrays(n, -1, 0), arrays(n, 0, 0),
       arrays(1, 0, 0)};
  return {true, 2.0 * static_cast<double>(n * n)};
}

template <class T>
Work set_up(CtcStep<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.H;
  a = {n,
       T(-1),
       arrays(n, -4, 0),
       arrays(n, 0, 0),
       arrays(n, -4, 0),
       arrays(n + 1, -4, 0) + 1,
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(1, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0)};
  return {false, 2.0 * static_cast<double>(n)};
}

template <class T>
Work set_up(CtcStepBackward<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.H;
  a = {n,
       arrays(n, 0, 1),
       arrays(n, 0, 1),
       arrays(n, 0, 1),
       arrays(n + 1, 0, 1),
       arrays(n + 1, 0, 1),
       arrays(n + 1, 0, 1),
       arrays(n + 1, 0, 1),
       arrays(n, 0, 0),
       arrays(n, 0, 0)};
  return {false, 2.0 * static_cast<double>(n)};
}

template <class T>
Work set_up(ProjectRows<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  const Index width = 4 * table.lanes, blocks = 4 * H / width;
  a = {B,
       0,
       blocks,
       4,
       H,
       arrays.rows(B, H),
       arrays(blocks * H * width, -0.1, 0.1),
       arrays(blocks * width, -0.1, 0.1),
       arrays(B * blocks * width, 0, 0),
       blocks * width};
  return {true, 2.0 * static_cast<double>(B * H * blocks * width)};
}

// As many terms as a block of steps in the backward pass has.
template <class T>
Work set_up(AddOuterProducts<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index n = size.B == 1 ? 100 : 512, H = size.H;
  a = {n,     4 * H,
       H,     arrays(n * 4 * H, -1, 1),
       4 * H, arrays(n * H, -1, 1),
       H,     arrays(4 * H * H, 0, 0),
       H,     arrays(outer_products_room(n, H, table.lanes), 0, 0)};
  return {true, 2.0 * static_cast<double>(n * 4 * H * H)};
}

template <class T>
Work set_up(CellStepTile<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const auto [B, H, G] = size;
  const Index blocks = G == 1 ? H / (4 * table.lanes) : H / table.lanes;
  a = {};
  a.rows = B;
  a.end_block = blocks;
  a.H = a.I = a.P = H;
  a.x = arrays.rows(B, H);
  a.W = arrays(4 * H * H, -0.1, 0.1);
  a.bias = arrays(4 * H, -0.1, 0.1);
  a.bias_h = arrays(H, -0.1, 0.1);
  a.h_prev = a.h_past_R = arrays(B * H, -1, 1);
  a.R = arrays(4 * H * H, -0.1, 0.1);
  a.memory[0] = arrays(B * H, -1, 1);
  a.h = arrays(B * H, 0, 0);
  a.output = arrays.rows(B, H);
  a.gates = G == 1 ? nullptr : arrays(B * 4 * H, 0, 0);
  a.saved_memory = arrays(B * H, 0, 0);
  a.sums = arrays(step_sums(B, blocks, 4 * table.lanes), 0, 0);
  a.ld_h_prev = a.ld_memory = a.ld_h = a.ld_saved_memory = H;
  a.ld_gates = 4 * H;
  return {true, 2.0 * static_cast<double>(B * G * H * 2 * H)};
}

template <class T>
LstmNorm<T> norm_parameters(Index H, Arrays<T>& arrays) {
  return {arrays(4 * H, 0.5, 1.5), arrays(4 * H, 0.5, 1.5), arrays(H, 0.5, 1.5), arrays(H, -1, 1)};
}

template <class T>
Work set_up(CellStepBackward<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {};
  a.rows = B;
  a.H = a.ld_h = a.ld_d_h = H;
  a.gates = arrays(B * 4 * H, 0, 1);
  a.memory = arrays(B * H, -1, 1);
  a.memory_prev = arrays(B * H, -1, 1);
  a.h = arrays(B * H, -1, 1);
  a.h_prev = arrays(B * H, -1, 1);
  a.d_h = arrays(B * H, -1, 1);
  a.d_memory = arrays(B * H, -1, 1);
  a.d_h_past_R = arrays(B * H, -1, 1);
  a.d_gates = arrays(B * 4 * H, 0, 0);
  a.d_from_h = arrays(B * 4 * H, 0, 0);
  a.norm =
      arrays.keep(LstmNormBackward<T>{norm_parameters(H, arrays),
                                      arrays(4 * H, -1, 1),
                                      {table.lanes, 4 * table.lanes},
                                      arrays(B * 4 * H, -1, 1),
                                      4 * H,
                                      arrays(kNormRows * 6 * H, 0, 0),
                                      {arrays(4 * H, 0, 0), arrays(4 * H, 0, 0),
                                       arrays(4 * H, 0, 0), arrays(H, 0, 0), arrays(H, 0, 0)}});
  return {false, static_cast<double>(B * H)};
}

template <class T>
Work set_up(NormaliseSums<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {B,
       H,
       {table.lanes, 4 * table.lanes},
       arrays(4 * H, 0.5, 1.5),
       arrays(4 * H, -1, 1),
       arrays(B * 4 * H, -1, 1),
       4 * H};
  return {false, static_cast<double>(B * 4 * H)};
}

template <class T>
Work set_up(LstmNormStep<T>& a, const KernelTable<T>& table, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {};
  a.rows = B;
  a.end = a.H = a.ld_c = a.ld_h = a.ld_saved_c = H;
  a.strides = {table.lanes, 4 * table.lanes};
  a.norm = arrays.keep(norm_parameters(H, arrays));
  a.ld_x = a.ld_from_h = a.ld_gates = 4 * H;
  a.from_x = arrays(B * 4 * H, -1, 1);
  a.from_h = arrays(B * 4 * H, -1, 1);
  a.c = a.new_c = arrays(B * H, -1, 1);
  a.h = arrays(B * H, 0, 1);
  a.output = arrays.rows(B, H);
  a.gates = arrays(B * 4 * H, 0, 0);
  a.saved_c = arrays(B * H, 0, 0);
  return {false, static_cast<double>(B * H)};
}

template <class T>
Work set_up(GruHalfStep<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {};
  a.rows = B;
  a.end = a.H = a.stride = a.ld_h_prev = a.ld_h = H;
  a.ld_x = a.ld_from_h = a.ld_gates = 3 * H;
  a.from_x = arrays(B * 3 * H, -1, 1);
  a.from_h = arrays(B * 3 * H, 0, 1);
  a.read_h = a.h_prev = arrays(B * H, -1, 1);
  a.reset_h = arrays(B * H, 0, 0);
  a.h = arrays(B * H, 0, 0);
  a.gates = arrays(B * 3 * H, 0, 0);
  return {false, static_cast<double>(B * H)};
}

template <class T>
Work set_up(GruHalfStepBackward<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {B,
       H,
       arrays(B * 3 * H, 0, 0.5),
       arrays(B * H, -1, 1),
       nullptr,
       arrays(B * H, 0, 0),
       H,
       arrays(B * H, 0, 0),
       arrays(B * 3 * H, 0, 0),
       arrays(B * H, 0, 0),
       arrays(B * H, 0, 0)};
  return {false, static_cast<double>(B * H)};
}

template <class T>
Work set_up(ActivateGates<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  static const Activation sigmoid{ActivationKind::kSigmoid}, tanh{ActivationKind::kTanh};
  static const StepOptions<T> options{false, sigmoid, tanh, tanh, 3, false, nullptr, 0, nullptr, 0};
  const Index B = size.B, H = size.H;
  a = {B, 4, H, 4 * H, arrays(B * 4 * H, -4, 4), &options};
  return {false, static_cast<double>(B * H)};
}

template <class T>
Work set_up(AddColumnSums<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index B = size.B, H = size.H;
  a = {B, 4 * H, arrays(B * 4 * H, -1, 1), arrays(4 * H, 0, 0)};
  return {false, static_cast<double>(B * 4 * H)};
}

template <class T>
Work set_up(BernoulliRow<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.B * size.H;
  a = {n, 0, 1, 0, 0, 0.5, arrays(n, 0, 0)};
  return {false, static_cast<double>(n)};
}

template <class T>
Work set_up(DropoutRow<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.B * size.H;
  a = {n, 1, 0, 0, 0.5, arrays(n, -1, 1), arrays(n, 0, 0)};
  return {false, static_cast<double>(n)};
}

template <class T>
Work set_up(SumSquares<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  static double sum;
  const Index n = size.B * size.H;
  a = {n, arrays(n, -1, 1), &sum};
  return {false, static_cast<double>(n)};
}

template <class T>
Work set_up(ScaleValues<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.B * size.H;
  a = {n, 0.5, arrays(n, -1, 1), arrays(n, 0, 0)};
  return {false, static_cast<double>(n)};
}

template <class T>
Work set_up(AdamStep<T>& a, const KernelTable<T>&, Size size, Arrays<T>& arrays) {
  const Index n = size.B * size.H;
  a = {n,
       0.9,
       0.999,
       1e-8,
       0,
       1,
       0.1,
       1e-3,
       arrays(n, -1, 1),
       arrays(n, -1, 1),
       arrays(n, 0, 0),
       arrays(n, 0, 0),
       arrays(n, 0, 0)};
  return {false, static_cast<double>(n)};
}

/// Nanoseconds of one call: the shortest of five measurements, of `seconds` together.
template <class Call>
double shortest_time(double seconds, Call call) {
  using Clock = std::chrono::steady_clock;
  constexpr int kMeasurements = 5;
  const auto time = [&](long calls) {
    const auto start = Clock::now();
    for (long k = 0; k < calls; ++k) call();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  long calls = 1;
  while (time(calls) < seconds / kMeasurements && calls < 1l << 40) calls *= 2;
  double shortest = std::numeric_limits<double>::infinity();
  for (int k = 0; k < kMeasurements; ++k) shortest = std::min(shortest, time(calls));
  return 1e9 * shortest / static_cast<double>(calls);
}

struct Report {
  double seconds;
  bool right = true;
  const char* separator = "\n ";

  template <class Arguments, class T>
  void measure(const char* isa, const char* name, void (*kernel)(const Arguments&) noexcept,
               const KernelTable<T>& table) {
    for (Size size : kSizes) {
      size.G = std::strncmp(name, "rnn", 3) == 0 ? 1 : std::strncmp(name, "gru", 3) == 0 ? 3 : 4;
      Arrays<T> arrays;
      Arguments arguments;
      const Work work = set_up(arguments, table, size, arrays);
      const double ns = shortest_time(seconds, [&] { kernel(arguments); });
      std::printf("%s{\"isa\": \"%s\", \"kernel\": \"%s\", \"dtype\": \"%s\", ", separator, isa,
                  name, sizeof(T) == 4 ? "float32" : "float64");
      std::printf("\"B\": %d, \"H\": %d, \"ns\": %.6g, ", static_cast<int>(size.B),
                  static_cast<int>(size.H), ns);
      if (work.is_product) {
        std::printf("\"gflops\": %.6g}", work.amount / ns);
      } else {
        std::printf("\"ns_per_value\": %.6g}", ns / work.amount);
      }
      separator = ",\n ";
      if (!arrays.all_finite()) {
        std::fprintf(stderr, "%s of %s made something that is not finite\n", name, isa);
        right = false;
      }
    }
  }

  template <class T>
  void measure_all(const char* isa, const KernelTable<T>& table) {
#define FASTLSTM_MEASURE(name, Arguments) measure(isa, #name, table.name, table);
    FASTLSTM_KERNELS(FASTLSTM_MEASURE)
#undef FASTLSTM_MEASURE
  }
};

}  // namespace

int main(int argc, char** argv) {
  Report report{argc > 1 ? std::atof(argv[1]) : 0.02};
  if (argc > 2 || !(report.seconds > 0)) {
    std::fprintf(stderr, "usage: %s [SECONDS]\n", argv[0]);
    return 2;
  }
  const FlushDenormals flush_denormals;  // as inside every call
  std::printf("[");
  for (const Target& target : supported_targets()) {
    report.measure_all(target.name, *target.float32);
    report.measure_all(target.name, *target.float64);
  }
  std::printf("\n]\n");
  return report.right ? 0 : 1;
}

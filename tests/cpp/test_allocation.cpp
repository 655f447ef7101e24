// Every allocation of a call fails in turn: the call throws std::bad_alloc or does without, and
// the next one is right.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "check.hpp"
#include "core_stack.hpp"
#include "fastlstm/borrowed.hpp"
#include "fastlstm/runtime.hpp"
#include "naive_blas.hpp"

namespace {

/// Allocations until the one that fails; negative: none does.
std::atomic<long> allocations_left{-1};

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) == 0) throw std::bad_alloc();
  const std::size_t whole = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment;
  void* memory = std::aligned_alloc(alignment, whole * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
// std::stable_sort's, which does without.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
// Not inlined: the compiler would take new and free for a mismatch.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

// Sanitizers are slow: one allocation in so many.
#if defined(__SANITIZE_THREAD__)
constexpr long kStride = 31;
#elif defined(__SANITIZE_ADDRESS__)
constexpr long kStride = 7;
#else
constexpr long kStride = 1;
#endif

/// Calls body again and again, with the first allocation failing, the second, ... until all of them
/// are made; after each time, `right` must hold.
template <class Body, class Right>
void with_failing_allocations(Body body, Right right) {
  int thrown = 0;
  for (long n = 0;; n += kStride) {
    NOTE("allocation " << n);
    bool failed = false;
    allocations_left = n;
    try {
      body();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    const bool reached = allocations_left.exchange(-1) < 0;
    if (failed) ++thrown;
    CHECK(right());
    if (!reached) break;
  }
  CHECK(thrown > 0);
}

std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const CellKind cell :
       {CellKind::kLstm, CellKind::kGru, CellKind::kGruResetBefore, CellKind::kRnnTanh}) {
    Problem p;
    p.config = {9, 20, 2, cell == CellKind::kLstm ? 12 : 0, true};
    p.config.cell = cell;
    p.config.options.zoneout_h = 0.1;
    p.T = 50;  // several blocks of the backward pass, and enough work for two threads
    p.B = 7;
    p.lengths = {20, 0, 7, 50, 13, 50, 50};
    p.regularisation = {0.3, 11, 0.2, 0.2, true};
    p.fill(5);
    all.push_back(std::move(p));
  }
  return all;
}

bool same(const Results& a, const Results& b) {
  return a.output == b.output && a.h_n == b.h_n && a.c_n == b.c_n;
}

bool same(const Gradients& a, const Gradients& b) {
  bool all = a.x == b.x && a.h_0 == b.h_0 && a.c_0 == b.c_0;
  for (std::size_t k = 0; k < a.cells.size(); ++k) {
    all = all && a.cells[k].weight_ih == b.cells[k].weight_ih &&
          a.cells[k].weight_hh == b.cells[k].weight_hh;
  }
  return all;
}

}  // namespace

TEST(inference) {
  set_num_threads(2);
  for (const Problem& p : problems()) {
    NOTE("cell " << static_cast<int>(p.config.cell));
    const Stack<double> stack = CoreProblem<double>::stack(p);
    CoreProblem<double> core(p);
    stack.forward(core.call());
    const Results want = core.results();
    with_failing_allocations([&] { stack.forward(core.call()); },
                             [&] {
                               stack.forward(core.call());
                               return same(core.results(), want);
                             });
  }
}

TEST(training) {
  set_num_threads(2);
  for (const Problem& p : problems()) {
    for (const bool limited : {false, true}) {
      NOTE("cell " << static_cast<int>(p.config.cell) << ", limited " << limited);
      const Stack<double> stack = CoreProblem<double>::stack(p);
      const Index whole =
          stack.training_memory(p.T, p.B, p.lengths.data(), false, p.regularisation, 0).bytes;
      const Index limit = limited ? whole - 1 : 0;
      CoreProblem<double> core(p);
      const ForwardCall<double> call = core.call();
      const Tape<double> tape = stack.forward_train(call, p.regularisation, limit);
      const Results want = core.results();
      const Gradients gradients = core.backward(tape);
      with_failing_allocations(
          [&] { static_cast<void>(stack.forward_train(call, p.regularisation, limit)); },
          [&] {
            static_cast<void>(stack.forward_train(call, p.regularisation, limit));
            return same(core.results(), want);
          });
      // With weight dropout each call packs weights of its own for its first backward pass.
      const auto train = [&] {
        return std::make_unique<const Tape<double>>(
            stack.forward_train(call, p.regularisation, limit));
      };
      auto fresh = train();
      with_failing_allocations([&] { core.backward(*fresh); },
                               [&] {
                                 const bool right = same(core.backward(*fresh), gradients);
                                 fresh = train();
                                 return right;
                               });
    }
  }
}

TEST(borrowed_parameters) {
  for (const Problem& p : problems()) {
    NOTE("cell " << static_cast<int>(p.config.cell));
    std::vector<Cell> cells = p.cells;
    BorrowedParams<double> borrowed(p.config);
    CoreProblem<double> core(p);
    std::int64_t version = 0;
    const auto run = [&](std::int64_t of_version) {
      borrowed.stack(CoreProblem<double>::params(cells).data(), of_version).forward(core.call());
      return core.results();
    };
    const Results want = run(version), other = [&] {
      cells[0].weight_hh[0] += 1;
      return run(++version);
    }();
    CHECK(!same(want, other));
    const auto params = CoreProblem<double>::params(cells);
    // New values each time, packed or, of a version that is known, found by their hash.
    for (const bool counted : {true, false}) {
      with_failing_allocations(
          [&] {
            cells[0].weight_hh[0] = p.cells[0].weight_hh[0];
            static_cast<void>(borrowed.stack(params.data(), counted ? ++version : version));
          },
          [&] {
            const bool right = same(run(version), want);
            cells[0].weight_hh[0] += 1;
            return right && same(run(counted ? ++version : version), other);
          });
    }
  }
}

TEST(stacks_and_streams) {
  for (Problem p : problems()) {
    NOTE("cell " << static_cast<int>(p.config.cell));
    p.config.bidirectional = false;
    p.lengths.clear();
    p.cells.clear();
    p.fill(6);
    const auto run = [&] {
      Stream<double> stream(CoreProblem<double>::stack(p), p.B);
      Values out(static_cast<std::size_t>(p.B * p.P()));
      for (Index t = 0; t < 3; ++t) stream.step(p.x.data() + t * p.B * p.I(), out.data());
      return out;
    };
    const Values want = run();
    with_failing_allocations(run, [&] { return run() == want; });
  }
}

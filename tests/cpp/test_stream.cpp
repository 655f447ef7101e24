// Streams: the same bits as a call over the whole sequence, and no allocations.
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "check.hpp"
#include "core_stack.hpp"
#include "fastlstm/runtime.hpp"
#include "naive_blas.hpp"
#include "naive_cells.hpp"
#include "schedule/thread_plan.hpp"

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

long g_allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) {
  ++g_allocations;
  const std::size_t rounded = (size + alignment) / alignment * alignment;  // never 0
#if defined(_WIN32)
  void* p = _aligned_malloc(rounded, alignment);
#else
  void* p = std::aligned_alloc(alignment, rounded);
#endif
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void release(void* p) noexcept {
#if defined(_WIN32)
  _aligned_free(p);
#else
  std::free(p);
#endif
}

}  // namespace

// Every allocation of this program goes through these.
void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }

namespace {

Problem problem(StackConfig config, Index T, Index B) {
  Problem p;
  p.config = config;
  p.T = T;
  p.B = B;
  p.fill(7);
  return p;
}

std::vector<Problem> problems() {
  std::vector<Problem> all = {
      problem({1, 1}, 3, 1), problem({3, 5}, 12, 1), problem({3, 5, 3}, 12, 4),
      problem({5, 19, 2, 3}, 12, 7),
      problem({40, 160, 2}, 4, 16)};  // enough work in a step for several threads
  // One row, whose steps are planned: around vectors of all widths, within the L1 cache and beyond,
  // and more steps than a run takes one by one.
  for (const CellKind cell : {CellKind::kLstm, CellKind::kGru, CellKind::kRnnRelu}) {
    for (StackConfig config : {StackConfig{1, 8}, StackConfig{1, 20, 2}, StackConfig{2, 33, 3},
                               StackConfig{1, 80}, StackConfig{30, 31, 2}}) {
      config.cell = cell;
      all.push_back(problem(config, 5, 1));
    }
    StackConfig config{1, 24};
    config.cell = cell;
    all.push_back(problem(config, 1000, 1));
  }
  StackConfig with_options{3, 19, 2};
  with_options.options.zoneout_c = 0.3;
  all.push_back(problem(with_options, 6, 2));
  for (const CellKind cell : {CellKind::kGru, CellKind::kGruResetBefore, CellKind::kRnnTanh}) {
    for (StackConfig config : {StackConfig{3, 5, 3}, StackConfig{70, 350, 2}}) {
      config.cell = cell;
      config.options.zoneout_h = 0.2;
      all.push_back(problem(config, 4, 16));
    }
  }
  return all;
}

/// A problem's inputs in T, its expected results, and a stream with its initial state.
template <class T>
struct Fixture {
  explicit Fixture(const Problem& p_)
      : p(p_),
        lstm(CoreProblem<T>::stack(p)),
        stream(lstm, p.B),
        whole(p),
        x(p.x.begin(), p.x.end()),
        output(x.size() / static_cast<std::size_t>(p.I()) * static_cast<std::size_t>(p.width())) {
    lstm.forward(whole.call());
    const std::vector<T> h(p.h_0.begin(), p.h_0.end()), c(p.c_0.begin(), p.c_0.end());
    const T* const state[] = {h.data(), c.data()};
    stream.set_state(state);
  }

  void step(Index t) {
    stream.step(x.data() + t * p.B * p.I(), output.data() + t * p.B * p.width());
  }
  void steps(Index t, Index n) {
    stream.step(x.data() + t * p.B * p.I(), output.data() + t * p.B * p.width(), n);
  }
  void run(Index t, Index steps) {
    stream.run(steps, {x.data() + t * p.B * p.I(), p.B * p.I(), p.I()},
               {output.data() + t * p.B * p.width(), p.B * p.width(), p.width()});
  }
  void check() {
    CHECK(std::equal(output.begin(), output.end(), whole.output.data()));
    Guarded<T> h(static_cast<Index>(whole.h_n.size())), c(static_cast<Index>(whole.c_n.size()));
    T* const state[] = {h.data(), c.data()};
    stream.get_state(state);
    h.check_guards();
    c.check_guards();
    CHECK(std::equal(h.data(), h.data() + h.size(), whole.h_n.data()));
    CHECK(std::equal(c.data(), c.data() + c.size(), whole.c_n.data()));
  }

  Problem p;
  Stack<T> lstm;
  Stream<T> stream;
  CoreProblem<T> whole;
  std::vector<T> x, output;
};

template <class T>
void check_steps_and_chunks(Index most_steps) {
  for (const Problem& p : problems()) {
    if (p.T > most_steps) continue;
    NOTE("H = " << p.H() << ", L = " << p.config.num_layers << ", B = " << p.B);
    Fixture<T> steps(p);
    for (Index t = 0; t < p.T; ++t) steps.step(t);
    steps.check();
    Fixture<T> block(p);
    block.steps(0, 2);
    block.steps(2, p.T - 2);
    block.check();
    Fixture<T> once(p);
    once.run(0, p.T);
    once.check();
    Fixture<T> mixed(p);
    mixed.run(0, 1);
    mixed.step(1);
    mixed.run(2, p.T - 2);
    mixed.check();
  }
}

template <class T>
void check_steps_and_chunks() {
  set_num_threads(3);
  check_steps_and_chunks<T>(1000);
  // Whatever a step is worth. A thousand meetings are slow where there are fewer CPUs.
  const ThreadPlan plan{1, 1, 1, 3};
  force_plan(&plan);
  check_steps_and_chunks<T>(12);
  force_plan(nullptr);
}

}  // namespace

TEST(steps_and_chunks_float32) { check_steps_and_chunks<float>(); }

TEST(steps_and_chunks_float64) { check_steps_and_chunks<double>(); }

TEST(a_new_stream_starts_at_zero) {
  const Problem p = problem({3, 5, 2, 2}, 1, 3);
  const Stream<double> stream(CoreProblem<double>::stack(p), p.B);
  CHECK_EQUAL(stream.batch_size(), p.B);
  CHECK_EQUAL(stream.config().hidden_size, p.H());
  Values h(p.h_0.size(), 7.0), c(p.c_0.size(), 7.0);
  double* const state[] = {h.data(), c.data()};
  stream.get_state(state);
  CHECK(h == Values(h.size(), 0.0));
  CHECK(c == Values(c.size(), 0.0));
}

TEST(a_step_allocates_nothing) {
  for (const Problem& p : problems()) {
    Fixture<float> fixture(p);
    fixture.step(0);
    const long before = g_allocations;
    fixture.step(1);
    fixture.steps(2, p.T - 2);
    CHECK_EQUAL(g_allocations, before);
  }
}

TEST(the_time_loop_allocates_nothing) {
  set_num_threads(1);  // long sequences may take more threads, which need memory of their own
  const auto allocations = [](Index T) {
    const Problem p = problem({3, 5, 2, 2, true}, T, 2);
    const Stack<float> lstm = CoreProblem<float>::stack(p);
    CoreProblem<float> core(p);
    const ForwardCall<float> call = core.call();
    const long before = g_allocations;
    lstm.forward(call);
    const long forward = g_allocations - before;
    const Tape<float> tape = lstm.forward_train(call, {});
    return std::make_pair(forward, g_allocations - before - forward);
  };
  const auto few = allocations(2), many = allocations(2000);
  CHECK_EQUAL(few.first, many.first);
  CHECK_EQUAL(few.second, many.second);
}

TEST(wrong_streams_are_refused) {
  const auto make = [](StackConfig config, Index B) {
    return Stream<float>(CoreProblem<float>::stack(problem(config, 1, 1)), B);
  };
  CHECK_THROWS(make({1, 1, 1, 0, true}, 1), std::invalid_argument);
  CHECK_THROWS(make({1, 1, 1, 0, false, true}, 1), std::invalid_argument);
  CHECK_THROWS(make({1, 1}, 0), std::invalid_argument);
}

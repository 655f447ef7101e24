// One Stack called from several threads at once. ThreadSanitizer looks for races; here the results
// must have the bits of a lonely call.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "check.hpp"
#include "core_stack.hpp"
#include "naive_blas.hpp"
#include "schedule/thread_plan.hpp"

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

Problem problem() {
  Problem p;
  p.config = {20, 40, 2, 0, true};  // enough work for several threads
  p.T = 20;
  p.B = 5;
  p.lengths = {20, 0, 7, 20, 13};
  p.regularisation = {0.3, 11};
  p.fill(5);
  return p;
}

/// body(k, round) on threads k = 0, 1, ..., several rounds each; they start together.
template <class Body>
void on_threads(Body body) {
  constexpr int kThreads = 4, kRounds = 8;
  std::vector<std::thread> threads;
  for (int k = 0; k < kThreads; ++k) {
    threads.emplace_back([=] {
      for (int round = 0; round < kRounds; ++round) body(k, round);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// Set by any thread that finds a difference; checks themselves belong to the main thread.
class Flag {
 public:
  void raise_if(bool condition) {
    if (condition) raised_.store(true);
  }
  bool raised() const { return raised_.load(); }

 private:
  std::atomic<bool> raised_{false};
};

/// Calls at once give what one gave alone.
void check_calls_at_once(const Problem& p, const Stack<float>& lstm,
                         const CoreProblem<float>& alone) {
  Flag wrong;
  on_threads([&](int, int) {
    CoreProblem<float> core(p);
    lstm.forward(core.call());
    wrong.raise_if(!std::equal(core.output.data(), core.output.data() + core.output.size(),
                               alone.output.data()));
  });
  CHECK(!wrong.raised());
}

}  // namespace

// First: it leaves a number of threads behind that makes callers compete for the team.
TEST(settings) {
  Flag wrong;
  on_threads([&](int k, int) {
    set_num_threads(k + 1);
    const int before = set_thread_local_num_threads(k + 2);
    wrong.raise_if(num_threads() != k + 2);
    set_thread_local_num_threads(before);
    wrong.raise_if(num_threads() < 1);
  });
  CHECK(!wrong.raised());
  set_num_threads(3);
}

// Some of the following calls get the team, for two groups of rows or three that share units.
TEST(calls_divided_in_several_ways) {
  const Problem p = problem();
  const Stack<float> lstm = CoreProblem<float>::stack(p);
  CoreProblem<float> alone(p);
  lstm.forward(alone.call());
  for (const ThreadPlan plan : {ThreadPlan{2, 1, 1, 1}, ThreadPlan{1, 1, 1, 3}}) {
    force_plan(&plan);
    check_calls_at_once(p, lstm, alone);
  }  // and the last of them for what follows
}

TEST(inference) {
  const Problem p = problem();
  const Stack<float> lstm = CoreProblem<float>::stack(p);
  CoreProblem<float> alone(p);
  lstm.forward(alone.call());
  check_calls_at_once(p, lstm, alone);
}

TEST(training) {
  const Problem p = problem();
  const Stack<double> lstm = CoreProblem<double>::stack(p);
  CoreProblem<double> alone(p);
  const Tape<double> shared = lstm.forward_train(alone.call(), p.regularisation);
  const Gradients want = alone.backward(shared);
  Flag wrong;
  on_threads([&](int, int round) {
    CoreProblem<double> core(p);
    const Tape<double> own = lstm.forward_train(core.call(), p.regularisation);
    // A tape may serve several threads too.
    const Gradients got = core.backward(round % 2 == 0 ? own : shared);
    wrong.raise_if(got.x != want.x || got.h_0 != want.h_0 ||
                   got.cells[1].weight_hh != want.cells[1].weight_hh);
  });
  CHECK(!wrong.raised());
}

TEST(replacing_parameters) {
  const Problem p = problem();
  const Stack<double> lstm = CoreProblem<double>::stack(p);
  on_threads([&](int k, int) {
    const Cell& cell = p.cells[static_cast<std::size_t>(k)];
    CellParams<const double> params;
    params.weight_ih = cell.weight_ih.data();
    params.weight_hh = cell.weight_hh.data();
    params.bias_ih = cell.bias_ih.data();
    params.bias_hh = cell.bias_hh.data();
    const Stack<double> other = lstm.with_params(k, params);
    CoreProblem<double> core(p);
    other.forward(core.call());
  });
}

TEST(streams) {
  Problem p = problem();
  p.config.bidirectional = false;
  p.cells.clear();
  p.lengths.clear();
  p.fill(6);
  const Stack<float> lstm = CoreProblem<float>::stack(p);
  const std::vector<float> x(p.x.begin(), p.x.end());
  const auto run = [&] {
    Stream<float> stream(lstm, p.B);
    std::vector<float> out(static_cast<std::size_t>(p.B * p.P()));
    for (Index t = 0; t < p.T; ++t) stream.step(x.data() + t * p.B * p.I(), out.data());
    return out;
  };
  const std::vector<float> want = run();
  Flag wrong;
  on_threads([&](int, int) { wrong.raise_if(run() != want); });
  CHECK(!wrong.raised());
}

TEST(a_stream_in_turns) {
  Problem p = problem();
  p.config.bidirectional = false;
  p.cells.clear();
  p.lengths.clear();
  p.fill(6);
  const Stack<float> lstm = CoreProblem<float>::stack(p);
  const std::vector<float> x(p.x.begin(), p.x.end());
  const auto step = [&](Stream<float>& stream, Index t) {
    std::vector<float> out(static_cast<std::size_t>(p.B * p.P()));
    stream.step(x.data() + t * p.B * p.I(), out.data());
    return out;
  };
  Stream<float> alone(lstm, p.B), shared(lstm, p.B);
  std::vector<std::vector<float>> want;
  for (Index t = 0; t < p.T; ++t) want.push_back(step(alone, t));
  std::mutex mutex;
  Index next = 0;
  Flag wrong;
  on_threads([&](int, int) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (next == p.T) return;
    wrong.raise_if(step(shared, next) != want[static_cast<std::size_t>(next)]);
    ++next;
  });
  CHECK_EQUAL(next, p.T);
  CHECK(!wrong.raised());
}

// Calls go on with the values that they started with, or those that have replaced them.
TEST(updates_between_calls) {
  const Problem p = problem();
  std::shared_ptr<const Stack<double>> current =
      std::make_shared<const Stack<double>>(CoreProblem<double>::stack(p));
  CoreProblem<double> alone(p);
  current->forward(alone.call());
  Flag wrong;
  on_threads([&](int k, int) {
    const std::shared_ptr<const Stack<double>> stack = std::atomic_load(&current);
    CoreProblem<double> core(p);
    const Tape<double> tape = stack->forward_train(core.call(), p.regularisation);
    core.backward(tape);
    stack->forward(core.call());
    wrong.raise_if(!std::equal(core.output.data(), core.output.data() + core.output.size(),
                               alone.output.data()));
    const Cell& cell = p.cells[static_cast<std::size_t>(k)];
    CellParams<const double> params;
    params.weight_ih = cell.weight_ih.data();
    params.weight_hh = cell.weight_hh.data();
    params.bias_ih = cell.bias_ih.data();
    params.bias_hh = cell.bias_hh.data();
    std::atomic_store(&current,
                      std::make_shared<const Stack<double>>(stack->with_params(k, params)));
  });
  CHECK(!wrong.raised());
}

// Stacks of parameters that are changed where they lie.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "core_stack.hpp"
#include "fastlstm/borrowed.hpp"
#include "fastlstm/runtime.hpp"
#include "naive_blas.hpp"

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

Problem problem(StackConfig config) {
  Problem p;
  p.config = config;
  p.T = 3;
  p.B = 2;
  p.fill(3);
  return p;
}

bool same_bits(const Results& a, const Results& b) {
  return a.output == b.output && a.h_n == b.h_n && a.c_n == b.c_n;
}

Results results(const Problem& p, const Stack<double>& stack) {
  CoreProblem<double> core(p);
  stack.forward(core.call());
  return core.results();
}

/// A problem's parameters, borrowed.
struct Lent {
  explicit Lent(const Problem& p_) : p(p_), borrowed(p.config), params(address()) {}

  std::vector<CellParams<const double>> address() const {
    return CoreProblem<double>::params(p.cells);
  }
  Stack<double> stack(std::int64_t version) { return borrowed.stack(params.data(), version); }
  /// What a stack made of the values of this moment gives.
  Results want() const { return results(p, CoreProblem<double>::stack(p)); }
  bool right(std::int64_t version) { return same_bits(results(p, stack(version)), want()); }

  Problem p;
  BorrowedParams<double> borrowed;
  std::vector<CellParams<const double>> params;
};

template <class Body>
void for_each_array(Problem* p, Body body) {
  for (Cell& c : p->cells) {
    for (Values* v : {&c.weight_ih, &c.weight_hh, &c.bias_ih, &c.bias_hh, &c.weight_hr}) {
      if (!v->empty()) body(*v);
    }
  }
}

}  // namespace

TEST(every_change_is_found) {
  for (const StackConfig& config :
       {StackConfig{3, 5}, StackConfig{3, 5, 2, 0, true}, StackConfig{3, 6, 2, 4}}) {
    for (const std::int64_t version : {std::int64_t{7}, std::int64_t{-1}}) {
      NOTE("version " << version);
      Lent lent(problem(config));
      for (int k = 0; k < 4; ++k) CHECK(lent.right(version));
      for_each_array(&lent.p, [&](Values& values) {
        for (std::size_t k = 0; k < values.size(); k += 7) {
          NOTE("element " << k << " of " << values.size());
          values[k] = -values[k];
          CHECK(lent.right(version));
        }
        std::swap(values.front(), values.back());
        CHECK(lent.right(version));
        CHECK(lent.right(version));
      });
    }
  }
}

TEST(other_memory_is_read) {
  Lent lent(problem({3, 5, 2}));
  CHECK(lent.right(0));
  Problem other = problem({3, 5, 2});
  for_each_array(&other, [](Values& values) { std::reverse(values.begin(), values.end()); });
  lent.borrowed.set_frozen(true);
  for (std::size_t k = 0; k < lent.p.cells.size(); ++k) {
    std::swap(lent.p.cells[k].weight_hh, other.cells[k].weight_hh);  // and their addresses
    lent.params = lent.address();
    CHECK(lent.right(0));
  }
}

TEST(frozen_parameters_are_not_looked_at) {
  Lent lent(problem({3, 5}));
  CHECK(!lent.borrowed.frozen());
  const Results before = lent.want();
  lent.borrowed.set_frozen(true);
  CHECK(lent.borrowed.frozen());
  CHECK(lent.right(2));
  lent.p.cells[0].weight_hh[3] += 1;
  CHECK(same_bits(results(lent.p, lent.stack(2)), before));
  lent.borrowed.set_frozen(false);
  CHECK(lent.right(2));
  lent.borrowed.set_frozen(true);
  lent.p.cells[0].weight_hh[3] -= 1;
  CHECK(lent.right(3));  // another version
}

TEST(frozen_parameters_without_a_version_are_looked_at) {
  Lent lent(problem({3, 5}));
  lent.borrowed.set_frozen(true);
  CHECK(lent.right(-1));
  lent.p.cells[0].weight_hh[3] += 1;
  CHECK(lent.right(-1));
}

TEST(stacks_that_were_given_out_stay) {
  Lent lent(problem({3, 5, 2, 0, true}));
  std::vector<std::pair<Stack<double>, Results>> given;
  std::vector<std::pair<std::unique_ptr<Tape<double>>, Gradients>> tapes;
  CoreProblem<double> core(lent.p);
  for (int k = 0; k < 5; ++k) {
    const Stack<double> stack = lent.stack(k);
    given.emplace_back(stack, results(lent.p, stack));
    // Backward panels of the one are made, of the other not before the parameters change.
    auto tape = std::make_unique<Tape<double>>(stack.forward_train(core.call(), {}));
    const Tape<double> same = CoreProblem<double>::stack(lent.p).forward_train(core.call(), {});
    tapes.emplace_back(std::move(tape), core.backward(same));
    for_each_array(&lent.p, [](Values& values) { values[0] += 0.25; });
    if (k % 2 == 0) continue;
    given.erase(given.begin());  // what nobody holds leaves its memory to the next
    tapes.erase(tapes.begin());
  }
  for (const auto& [stack, want] : given) CHECK(same_bits(results(lent.p, stack), want));
  for (const auto& [tape, want] : tapes) {
    const Gradients got = core.backward(*tape);
    CHECK(got.x == want.x && got.h_0 == want.h_0);
    CHECK(got.cells[0].weight_ih == want.cells[0].weight_ih);
  }
}

TEST(missing_parameters_are_refused_and_nothing_is_lost) {
  Lent lent(problem({3, 5}));
  CHECK(lent.right(0));
  std::vector<CellParams<const double>> none(1);
  CHECK_THROWS(lent.borrowed.stack(none.data(), 0), std::invalid_argument);
  CHECK(lent.right(0));
  CHECK_THROWS(BorrowedParams<double>(StackConfig{0, 5}), std::invalid_argument);
}

// Several threads, on a team and with large weights, some of them counting.
TEST(threads) {
  for (const bool counted : {false, true}) {
    Lent lent(problem({300, 210}));
    set_num_threads(2);
    const Results want = lent.want();
    std::atomic<bool> wrong{false};
    std::vector<std::thread> threads;
    for (int k = 0; k < 4; ++k) {
      threads.emplace_back([&, k] {
        for (int round = 0; round < 6; ++round) {
          const std::int64_t version = counted ? 10 * k + round : -1;
          if (!same_bits(results(lent.p, lent.stack(version)), want)) wrong = true;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(!wrong);
    lent.p.cells[0].weight_hh.back() += 1;
    CHECK(lent.right(-1));
    set_num_threads(1);
  }
}

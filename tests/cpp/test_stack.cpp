// Forward and backward passes against the naive loop and its finite differences, for the target
// that FASTLSTM_ISA names.
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include <array>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <thread>

#include "check.hpp"
#include "core_stack.hpp"
#include "fastlstm/runtime.hpp"
#include "naive_blas.hpp"
#include "naive_cells.hpp"
#include "runtime/targets.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

using namespace fastlstm;

namespace {

/// Multiply-adds of the products in float64 since it was last set to zero.
std::atomic<Index> products{0};

BlasTable counting_blas() {
  BlasTable table = naive_blas();
  table.dgemm = [](char* transa, char* transb, int* m, int* n, int* k, double* alpha, double* a,
                   int* lda, double* b, int* ldb, double* beta, double* c, int* ldc) {
    products += Index{*m} * *n * *k;
    naive_gemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  };
  return table;
}

const bool blas_given = (set_blas(counting_blas()), true);

Problem problem(const char* name, StackConfig config, Index T, Index B,
                std::vector<Index> lengths = {}, bool bias = true,
                Regularisation regularisation = {}) {
  Problem p;
  p.name = name;
  p.config = config;
  p.T = T;
  p.B = B;
  p.lengths = std::move(lengths);
  p.config.bias = bias;
  p.regularisation = regularisation;
  p.fill(static_cast<unsigned>(T * 100 + B));
  return p;
}

/// All of it, in training and, as zoneout has it, in inference.
Problem regularised(Problem p) {
  p.name += ", regularised";
  p.regularisation = {0.4, 0x123456789a, 0.3, 0.25, true};
  p.config.options.zoneout_h = 0.2;
  if (p.C() > 0) p.config.options.zoneout_c = 0.3;
  return p;
}

/// As traces run: nothing is drawn, and every unit keeps a part of its value.
Problem with_mean_zoneout(Problem p) {
  p = regularised(p);
  p.name += " as in inference";
  p.regularisation = {};
  return p;
}

bool drops(const Regularisation& r) {
  return r.dropout > 0 || r.recurrent_dropout > 0 || r.weight_dropout > 0 || r.zoneout;
}

/// The same problems, which are the LSTM's, with every cell; only the LSTM has projections.
std::vector<Problem> with_every_cell(const std::vector<Problem>& problems) {
  std::vector<Problem> all = problems;
  const std::pair<CellKind, const char*> others[] = {{CellKind::kGru, "GRU"},
                                                     {CellKind::kGruResetBefore, "GRU before"},
                                                     {CellKind::kRnnTanh, "RNN tanh"},
                                                     {CellKind::kRnnRelu, "RNN relu"}};
  for (const auto& [cell, name] : others) {
    for (const Problem& p : problems) {
      StackConfig config = p.config;
      config.cell = cell;
      config.proj_size = 0;
      config.options.zoneout_c = 0;
      Problem other = problem("", config, p.T, p.B, p.lengths, p.config.bias, p.regularisation);
      other.name = name + (", " + p.name);
      all.push_back(other);
    }
  }
  return all;
}

/// config: I, H, L, projection, bidirectional, reverse.
std::vector<Problem> small_problems() {
  const Regularisation dropout{0.4, 0x123456789a};
  return with_every_cell({
      problem("one unit, one step", {1, 1}, 1, 1),
      problem("one layer", {3, 5}, 4, 3),
      problem("no bias", {3, 5}, 4, 3, {}, false),
      problem("wide", {17, 19}, 2, 5),
      problem("ragged", {3, 5}, 6, 5, {2, 6, 0, 5, 2}),
      problem("none full", {3, 5}, 6, 3, {2, 4, 3}),
      problem("all empty", {3, 5}, 2, 2, {0, 0}),
      problem("reverse", {3, 5, 1, 0, false, true}, 4, 3),
      problem("reverse, ragged", {3, 5, 1, 0, false, true}, 6, 5, {2, 6, 0, 5, 2}),
      problem("projection", {3, 5, 1, 2}, 4, 3),
      problem("three layers, dropout", {3, 5, 3}, 4, 3, {}, true, dropout),
      problem("dropout of everything", {3, 5, 2}, 4, 3, {}, true, {1.0, 5}),
      problem("two directions, ragged", {3, 5, 2, 0, true}, 5, 4, {5, 0, 2, 4}),
      problem("everything", {3, 6, 2, 4, true}, 5, 4, {3, 5, 0, 3}, true, dropout),
      regularised(problem("one layer", {3, 5}, 4, 3)),
      with_mean_zoneout(problem("one layer", {3, 5}, 4, 3)),
      regularised(problem("no bias, reverse", {3, 5, 1, 0, false, true}, 4, 3, {}, false)),
      regularised(problem("two directions, ragged", {3, 5, 2, 0, true}, 5, 4, {5, 0, 2, 4})),
  });
}

/// More rows than one block of steps has.
std::vector<Problem> long_problems() {
  return with_every_cell({
      problem("long", {2, 3}, 700, 3),
      problem("long, ragged", {2, 3, 1, 0, true}, 800, 4, {800, 30, 790, 333}),
  });
}

void check_values(const char* what, const Values& got, const Values& want, double tolerance) {
  NOTE(what);
  CHECK_EQUAL(got.size(), want.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    NOTE("element " << k);
    CHECK_CLOSE(got[k], want[k], tolerance);
  }
}

void check_cells(const char* what, const std::vector<Values>& got, const std::vector<Values>& want,
                 double tolerance) {
  CHECK_EQUAL(got.size(), want.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    NOTE("cell " << k);
    check_values(what, got[k], want[k], tolerance);
  }
}

void check_results(const Results& got, const Results& want, double tolerance) {
  check_values("output", got.output, want.output, tolerance);
  check_values("h_n", got.h_n, want.h_n, tolerance);
  check_values("c_n", got.c_n, want.c_n, tolerance);
}

bool same_bits(const Results& a, const Results& b) {
  return a.output == b.output && a.h_n == b.h_n && a.c_n == b.c_n;
}

template <class T>
void check_forward(double tolerance) {
  std::vector<Problem> problems = small_problems();
  for (const Problem& p : long_problems()) problems.push_back(p);
  for (Problem& p : problems) {
    for (const Order order : kOrders) {
      NOTE(p.name << ", order " << static_cast<int>(order));
      const Stack<T> lstm = CoreProblem<T>::stack(p);
      // Training, with dropout.
      CoreProblem<T> training(p, order);
      const Tape<T> tape = lstm.forward_train(training.call(), p.regularisation);
      Results got = training.results();
      training.trace(tape, &got);
      const Results want = naive_forward(p);
      check_results(got, want, tolerance);
      check_cells("gates", got.gates, want.gates, tolerance);
      check_cells("c", got.c, want.c, tolerance);
      check_cells("h", got.h, want.h, tolerance);
      // Inference, without.
      Problem calm = p;
      calm.regularisation = {};
      CoreProblem<T> inference(calm, order);
      lstm.forward(inference.call());
      check_results(inference.results(), naive_forward(calm), tolerance);
      if (!drops(p.regularisation)) CHECK(same_bits(inference.results(), training.results()));
    }
  }
}

// Sanitizers and emulators slow the naive loop down to minutes, and learn nothing from it.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(FASTLSTM_EMULATED)
constexpr std::size_t kMostChecked = 5;
#else
constexpr std::size_t kMostChecked = 150;
#endif

/// Checks at most so many elements of an array's gradient, evenly spread.
void check_gradient(const char* what, Problem* p, Values* array, const Values& got,
                    std::size_t most = kMostChecked) {
  NOTE(what);
  CHECK_EQUAL(got.size(), array->size());
  const std::size_t stride = array->size() / most + 1;
  for (std::size_t k = 0; k < array->size(); k += stride) {
    NOTE("element " << k);
    double& value = (*array)[k];
    if (std::isnan(value)) {  // past the end of a sequence
      CHECK_EQUAL(got[k], 0.0);
      continue;
    }
    constexpr double kStep = 1e-5;
    const double before = value;
    value = before + kStep;
    const double above = naive_loss(*p);
    value = before - kStep;
    const double below = naive_loss(*p);
    value = before;
    CHECK_CLOSE(got[k], (above - below) / (2 * kStep), 2e-8 * (1 + std::abs(got[k])));
  }
}

template <class Array>
void for_each_param(Array each) {
  each("weight_ih", &Cell::weight_ih);
  each("weight_hh", &Cell::weight_hh);
  each("bias_ih", &Cell::bias_ih);
  each("bias_hh", &Cell::bias_hh);
  each("weight_hr", &Cell::weight_hr);
}

template <class T>
Gradients core_gradients(const Problem& p, double start = 0, bool adds = true,
                         Order order = Order::kTimeFirst) {
  CoreProblem<T> core(p, order);
  const Tape<T> tape = CoreProblem<T>::stack(p).forward_train(core.call(), p.regularisation);
  return core.backward(tape, start, adds);
}

bool same_bits(const Gradients& a, const Gradients& b) {
  bool same = a.x == b.x && a.h_0 == b.h_0 && a.c_0 == b.c_0 && a.cells.size() == b.cells.size();
  for (std::size_t k = 0; same && k < a.cells.size(); ++k) {
    for_each_param([&](const char*, Values Cell::* param) {
      same = same && a.cells[k].*param == b.cells[k].*param;
    });
  }
  return same;
}

}  // namespace

TEST(forced_target_is_active) {
  const char* forced = std::getenv("FASTLSTM_ISA");
  CHECK_EQUAL(isa(), forced != nullptr ? std::string(forced) : available_isas().front());
}

TEST(forward_float64) { check_forward<double>(1e-12); }

TEST(forward_float32) { check_forward<float>(5e-6); }

TEST(backward_float64) {
  for (Problem& p : small_problems()) {
    NOTE(p.name);
    const Gradients g = core_gradients<double>(p);
    check_gradient("x", &p, &p.x, g.x);
    check_gradient("h_0", &p, &p.h_0, g.h_0);
    check_gradient("c_0", &p, &p.c_0, g.c_0);
    for (std::size_t k = 0; k < p.cells.size(); ++k) {
      NOTE("cell " << k);
      for_each_param([&](const char* name, Values Cell::* param) {
        check_gradient(name, &p, &(p.cells[k].*param), g.cells[k].*param);
      });
    }
  }
}

TEST(backward_float64_over_blocks) {
  for (Problem& p : long_problems()) {
    NOTE(p.name);
    const Gradients g = core_gradients<double>(p);
    check_gradient("x", &p, &p.x, g.x, kMostChecked / 3);
    check_gradient("h_0", &p, &p.h_0, g.h_0);
    check_gradient("c_0", &p, &p.c_0, g.c_0);
    for (std::size_t k = 0; k < p.cells.size(); ++k) {
      NOTE("cell " << k);
      for_each_param([&](const char* name, Values Cell::* param) {
        check_gradient(name, &p, &(p.cells[k].*param), g.cells[k].*param, kMostChecked / 5);
      });
    }
  }
}

TEST(backward_float32) {
  for (const Problem& p : small_problems()) {
    NOTE(p.name);
    const Gradients got = core_gradients<float>(p), want = core_gradients<double>(p);
    constexpr double kTolerance = 5e-5;
    check_values("x", got.x, want.x, kTolerance);
    check_values("h_0", got.h_0, want.h_0, kTolerance);
    check_values("c_0", got.c_0, want.c_0, kTolerance);
    for (std::size_t k = 0; k < p.cells.size(); ++k) {
      NOTE("cell " << k);
      for_each_param([&](const char* name, Values Cell::* param) {
        check_values(name, got.cells[k].*param, want.cells[k].*param, kTolerance);
      });
    }
  }
}

TEST(backward_adds_to_parameters) {
  for (const Problem& p : small_problems()) {
    NOTE(p.name);
    const Gradients zero = core_gradients<double>(p), one = core_gradients<double>(p, 1.0);
    CHECK(zero.x == one.x);  // not added to, and the same bits again
    for (std::size_t k = 0; k < p.cells.size(); ++k) {
      for_each_param([&](const char* name, Values Cell::* param) {
        Values want = zero.cells[k].*param;
        for (double& value : want) value += 1;
        check_values(name, one.cells[k].*param, want, 1e-12);
      });
    }
  }
}

TEST(backward_writes_to_parameters) {
  for (const Problem& p : small_problems()) {
    NOTE(p.name);
    CHECK(same_bits(core_gradients<double>(p, std::nan(""), false), core_gradients<double>(p)));
  }
}

TEST(gradients_have_the_same_bits_in_any_order_of_rows) {
  std::vector<Problem> problems = small_problems();
  for (const Problem& p : long_problems()) problems.push_back(p);
  for (const Problem& p : problems) {
    NOTE(p.name);
    const Gradients want = core_gradients<double>(p);
    for (const Order order : {Order::kBatchFirst, Order::kPacked}) {
      CHECK(same_bits(core_gradients<double>(p, 0, true, order), want));
    }
  }
}

TEST(backward_without_some_gradients) {
  Problem p = problem("", {3, 5, 2, 0, true}, 4, 3);
  CoreProblem<double> core(p);
  const Tape<double> tape = CoreProblem<double>::stack(p).forward_train(core.call(), {});
  for (Values* zeros : {&p.d_output, &p.d_h_n, &p.d_c_n})
    std::fill(zeros->begin(), zeros->end(), 0);
  const Gradients want = core.backward(tape);
  // The same with null pointers, and no gradient of x.
  std::vector<Cell> kept = p.cells;
  std::vector<CellParams<double>> d_params;
  for (Cell& c : kept) {
    for_each_param([&](const char*, Values Cell::* param) {
      std::fill((c.*param).begin(), (c.*param).end(), 0.0);
    });
    CellParams<double>& d = d_params.emplace_back();
    d.weight_ih = c.weight_ih.data();
    d.weight_hh = c.weight_hh.data();
    d.bias_ih = c.bias_ih.data();
    d.bias_hh = c.bias_hh.data();
  }
  Values d_h_0(p.h_0.size(), 7.0), d_c_0(p.c_0.size(), 7.0);
  BackwardCall<double> call;
  call.d_state_0[0] = d_h_0.data();
  call.d_state_0[1] = d_c_0.data();
  call.d_params = d_params.data();
  tape.backward(call);
  CHECK(d_h_0 == want.h_0);
  CHECK(d_c_0 == want.c_0);
  CHECK(kept[0].weight_ih == want.cells[0].weight_ih);
}

namespace {

/// One sequence of a problem, by itself and without padding.
Problem alone(const Problem& p, Index b) {
  Problem one = p;
  one.T = p.length(b);
  one.B = 1;
  one.lengths.clear();
  const auto rows = [](const Values& from, Index n, Index stride, Index first, Index width) {
    Values to;
    for (Index k = 0; k < n; ++k) {
      const auto row = from.begin() + (k * stride + first) * width;
      to.insert(to.end(), row, row + width);
    }
    return to;
  };
  one.x = rows(p.x, one.T, p.B, b, p.I());
  one.h_0 = rows(p.h_0, p.config.cells(), p.B, b, p.P());
  one.c_0 = rows(p.c_0, p.config.cells(), p.B, b, p.C());
  return one;
}

/// Threads by rows, by units, by directions, by layers, and by several of them.
constexpr ThreadPlan kPlans[] = {{3, 1, 1, 1}, {1, 1, 1, 2}, {1, 2, 1, 1}, {1, 1, 4, 1},
                                 {2, 1, 1, 2}, {1, 2, 1, 2}, {1, 1, 2, 2}};

/// Where CPUs are busy, each meeting of more threads than two takes milliseconds: plans that meet
/// at each step have one try.
bool is_slow(const ThreadPlan& plan) { return plan.units > 1 && plan.threads() > 2; }

template <class T>
void check_promise_on_bits() {
  // Large enough for several threads: by rows, by units, by directions, by layers.
  const std::vector<Problem> problems = with_every_cell({
      problem("rows", {16, 32}, 10, 100),
      problem("units", {64, 96}, 6, 8),
      problem("directions", {33, 47, 2, 0, true}, 30, 4, {30, 17, 0, 29}),
      problem("projection", {40, 70, 2, 35}, 30, 5, {3, 30, 29, 30, 8}),
      problem("layers", {20, 40, 3}, 100, 2),
      problem("owners of layers", {20, 40, 4}, 130, 3, {130, 0, 70}),
      problem("owners of reversed layers", {20, 24, 2, 0, false, true}, 200, 2, {200, 90}),
      problem("reverse", {20, 40, 2, 0, false, true}, 60, 5, {3, 60, 29, 60, 8}),
  });
  for (const Problem& p : problems) {
    NOTE(p.name);
    const Stack<T> lstm = CoreProblem<T>::stack(p);
    set_num_threads(1);
    CoreProblem<T> core(p);
    lstm.forward(core.call());
    const Results want = core.results();
    for (const ThreadPlan& plan : kPlans) {
      NOTE("plan = " << plan.rows << " x " << plan.directions << " x " << plan.layers << " x "
                     << plan.units);
      force_plan(&plan);
      for (const Order order : kOrders) {
        CoreProblem<T> other(p, order);
        lstm.forward(other.call());
        CHECK(same_bits(other.results(), want));
        if (is_slow(plan)) break;
      }
      if (is_slow(plan)) continue;
      CoreProblem<T> training(p);
      lstm.forward_train(training.call(), {});
      CHECK(same_bits(training.results(), want));
    }
    force_plan(nullptr);
    for (Index b = 0; b < p.B; b += 1 + p.B / 7) {
      if (p.length(b) == 0) continue;
      NOTE("b = " << b);
      const Problem one = alone(p, b);
      CoreProblem<T> row(one);
      lstm.forward(row.call());
      const Results got = row.results();
      for (Index t = 0; t < one.T; ++t) {
        const auto output = want.output.begin() + (t * p.B + b) * p.width();
        CHECK(std::equal(output, output + p.width(), got.output.begin() + t * p.width()));
      }
    }
  }
  set_num_threads(1);
}

template <class T>
void check_gradients_have_the_same_bits(const std::vector<Problem>& problems,
                                        std::initializer_list<int> numbers_of_threads) {
  for (const Problem& p : problems) {
    NOTE(p.name);
    set_num_threads(1);
    const Gradients want = core_gradients<T>(p);
    for (const int threads : numbers_of_threads) {
      for (const ThreadPlan plan : {ThreadPlan{threads, 1, 1, 1}, ThreadPlan{1, 1, 1, threads},
                                    ThreadPlan{2, 1, 1, threads}}) {
        if (is_slow(plan) && (threads != 2 || sizeof(T) != sizeof(float))) continue;
        NOTE("plan = " << plan.rows << " x " << plan.units);
        force_plan(&plan);
        const Gradients got = core_gradients<T>(p);
        CHECK(same_bits(got, want));
      }
    }
    force_plan(nullptr);
  }
  set_num_threads(1);
}

}  // namespace

// Counted where products are BLAS's: of a projection at each step, and of gradients of weights with
// many columns on targets with short vectors. What is asked for is decided before.
TEST(products_that_are_not_asked_for_are_not_computed) {
  set_num_threads(1);  // all gradients go to the same place
  const Index T = 3, B = 2, I = kOuterColumns + 2, H = kOuterColumns + 6, P = kOuterColumns + 4;
  const Index GH = 4 * H, rows = T * B;
  const Problem p = problem("", {I, H, 2, P}, T, B);
  CoreProblem<double> core(p);
  const Tape<double> tape = CoreProblem<double>::stack(p).forward_train(core.call(), {});
  Values d_x(static_cast<std::size_t>(rows * I)), d_h_0(p.h_0.size()), d_c_0(p.c_0.size());
  Values d_weight(static_cast<std::size_t>(GH * H));
  enum Asked { kX, kStates, kW0, kR0, kProjection0, kW1, kR1, kProjection1 };
  const auto count = [&](std::initializer_list<Asked> all_asked) {
    std::array<CellParams<double>, 2> d_params{};
    BackwardCall<double> call;
    call.d_params = d_params.data();
    for (const Asked asked : all_asked) {
      CellParams<double>& d = d_params[asked < kW1 ? 0 : 1];
      switch (asked) {
        case kX:
          call.d_x = {d_x.data(), B * I, I};
          break;
        case kStates:
          call.d_state_0[0] = d_h_0.data();
          call.d_state_0[1] = d_c_0.data();
          break;
        case kW0:
        case kW1:
          d.weight_ih = d_weight.data();
          break;
        case kR0:
        case kR1:
          d.weight_hh = d_weight.data();
          break;
        case kProjection0:
        case kProjection1:
          d.weight_hr = d_weight.data();
          break;
      }
    }
    products = 0;
    tape.backward(call);
    return products.load();
  };
  const KernelTable<double>& table = kernels<double>();
  const Index on_blas = table.lanes * static_cast<Index>(sizeof(double)) < 64 ? 1 : 0;
  const Index steps = rows * H * P, weight_hr = rows * H * P;  // of a layer
  const Index W0 = on_blas * rows * GH * I, W1 = on_blas * rows * GH * P, R = W1;
  CHECK_EQUAL(count({}), 0);
  CHECK_EQUAL(count({kStates}), 2 * steps);
  CHECK_EQUAL(count({kX}), 2 * steps);
  CHECK_EQUAL(count({kW0}), 2 * steps + W0);
  CHECK_EQUAL(count({kR0}), 2 * steps + R);
  CHECK_EQUAL(count({kProjection0}), 2 * steps + weight_hr);
  // Of the upper layer alone.
  CHECK_EQUAL(count({kW1}), steps + W1);
  CHECK_EQUAL(count({kR1}), steps + R);
  CHECK_EQUAL(count({kProjection1}), steps + weight_hr);
  CHECK_EQUAL(count({kX, kStates, kW0, kR0, kProjection0, kW1, kR1, kProjection1}),
              2 * (steps + weight_hr + R) + W0 + W1);
}

TEST(promise_on_bits_float32) { check_promise_on_bits<float>(); }

TEST(promise_on_bits_float64) { check_promise_on_bits<double>(); }

TEST(gradients_have_the_same_bits_for_any_number_of_threads) {
  const std::vector<Problem> problems = with_every_cell({
      problem("one direction", {20, 40, 2}, 30, 20),
      regularised(problem("two", {33, 47, 2, 0, true}, 30, 4, {30, 17, 0, 29})),
  });
  check_gradients_have_the_same_bits<float>(problems, {2, 3, 4});
  check_gradients_have_the_same_bits<double>(problems, {2, 3, 4});
}

// More threads than rows would share columns, but there are more rows than go through a step
// together.
TEST(gradients_of_many_rows_have_the_same_bits_for_many_threads) {
  const Problem p = problem("many rows", {32, 64, 1}, 30, 40);
  check_gradients_have_the_same_bits<float>({p}, {20, 40});
}

TEST(null_states_are_zeros) {
  Problem p = problem("", {3, 5, 2, 2, true}, 4, 3, {4, 0, 2});
  const Stack<double> lstm = CoreProblem<double>::stack(p);
  CoreProblem<double> given(p);
  ForwardCall<double> call = given.call();
  call.state_0[0] = call.state_0[1] = nullptr;
  lstm.forward(call);
  std::fill(p.h_0.begin(), p.h_0.end(), 0);
  std::fill(p.c_0.begin(), p.c_0.end(), 0);
  check_results(given.results(), naive_forward(p), 1e-12);
}

TEST(parameters_are_fixed) {
  const Problem p = problem("", {3, 5, 2}, 4, 3);
  const Stack<double> lstm = CoreProblem<double>::stack(p);
  CoreProblem<double> core(p);
  const Tape<double> tape = lstm.forward_train(core.call(), {});
  const Gradients before = core.backward(tape);
  const Results results = core.results();

  Problem changed = p;
  for (double& w : changed.cells[1].weight_ih) w = -w;
  const Cell& cell = changed.cells[1];
  CellParams<const double> params;
  params.weight_ih = cell.weight_ih.data();
  params.weight_hh = cell.weight_hh.data();
  params.bias_ih = cell.bias_ih.data();
  params.bias_hh = cell.bias_hh.data();
  const Stack<double> other = lstm.with_params(1, params);
  other.forward(core.call());
  check_results(core.results(), naive_forward(changed), 1e-12);
  CHECK(!same_bits(core.results(), results));
  // The first layer and the tape hold what they had.
  lstm.forward(core.call());
  CHECK(same_bits(core.results(), results));
  CHECK(core.backward(tape).x == before.x);
}

TEST(nan_stays_in_its_sequence) {
  for (Problem& p : with_every_cell({problem("LSTM", {3, 5, 2, 0, true}, 6, 4)})) {
    NOTE(p.name);
    p.x[static_cast<std::size_t>((2 * p.B + 1) * p.I())] = std::nan("");  // t = 2, b = 1
    CoreProblem<double> core(p);
    CoreProblem<double>::stack(p).forward(core.call());
    const Results got = core.results();
    for (std::size_t k = 0; k < got.output.size(); ++k) {
      const Index b = static_cast<Index>(k) / p.width() % p.B;
      CHECK_EQUAL(std::isnan(got.output[k]), b == 1);
    }
  }
}

TEST(infinite_inputs_saturate) {
  Problem p = problem("", {1, 4}, 3, 1);
  for (double& x : p.x) x = std::numeric_limits<double>::infinity();
  CoreProblem<double> core(p);
  CoreProblem<double>::stack(p).forward(core.call());
  check_results(core.results(), naive_forward(p), 1e-12);
}

TEST(floating_point_mode_is_restored) {
  const Problem p = problem("", {20, 40, 2}, 30, 7);
  const Stack<float> stack = CoreProblem<float>::stack(p);
  CoreProblem<float> core(p);
  set_num_threads(2);
  const auto train = [&] { return stack.forward_train(core.call(), {}); };
  const Tape<float> tape = train();
  const Results want = core.results();
  // Another mode neither is changed nor changes what is computed.
  std::fesetround(FE_UPWARD);
#if defined(__SSE2__)
  const unsigned mode = _mm_getcsr();
#endif
  stack.forward(core.call());
  const Results inference = core.results();
  train();
  const Results training = core.results();
  core.backward(tape);
#if defined(__SSE2__)
  const unsigned after = _mm_getcsr();
#endif
  const int rounding = std::fegetround();
  std::fesetround(FE_TONEAREST);
  set_num_threads(1);
  CHECK_EQUAL(rounding, FE_UPWARD);
#if defined(__SSE2__)
  constexpr unsigned kFlags = 0x3f;  // what has happened; conversions of the test itself set them
  CHECK_EQUAL(after | kFlags, mode | kFlags);
#endif
  CHECK(same_bits(inference, want));
  CHECK(same_bits(training, want));
  volatile float smallest = std::numeric_limits<float>::min();
  CHECK(smallest / 2 > 0);  // a denormal
}

TEST(a_memory_limit_changes_no_bit_and_leaves_no_gates) {
  std::vector<Problem> problems = long_problems();
  for (Problem& p : with_every_cell({problem("regularised", {3, 5, 3, 0, true}, 300, 5)})) {
    problems.push_back(regularised(p));
  }
  for (const Problem& p : problems) {
    NOTE(p.name);
    const Stack<double> stack = CoreProblem<double>::stack(p);
    const Index* lengths = p.lengths.empty() ? nullptr : p.lengths.data();
    // What an RNN keeps is the least already, unless the caller's arrays are copied.
    const Order order = naive_saved_gates(p.config) == 0 ? Order::kBatchFirst : Order::kTimeFirst;
    const bool batch_first = order == Order::kBatchFirst;
    const Index whole =
        stack.training_memory(p.T, p.B, lengths, batch_first, p.regularisation, 0).bytes;
    CoreProblem<double> core(p, order), limited(p, order);
    const Gradients want = core.backward(stack.forward_train(core.call(), p.regularisation));
    const Tape<double> tape = stack.forward_train(limited.call(), p.regularisation, whole - 1);
    const Gradients got = limited.backward(tape);
    // On BLAS the bits of a product may depend on its height, but not on the tests' one.
    CHECK(same_bits(limited.results(), core.results()));
    CHECK(same_bits(got, want));
    if (p.config.gates() > 1) {  // the same of packed sequences
      CoreProblem<double> packed(p, Order::kPacked);
      const Index limit = whole * 9 / 10;
      const Gradients again =
          packed.backward(stack.forward_train(packed.call(), p.regularisation, limit));
      CHECK(same_bits(packed.results(), core.results()));
      CHECK(same_bits(again, want));
    }
    Values values;
    CHECK_THROWS(tape.copy_gates(0, values.data()), std::logic_error);
    CHECK_THROWS(tape.copy_state(0, 1, values.data()), std::logic_error);
  }
}

TEST(calls_can_be_interrupted) {
  struct Interrupt {};
  const Problem p = problem("", {3, 5}, 4, 3);
  const Stack<double> lstm = CoreProblem<double>::stack(p);
  CoreProblem<double> core(p);
  const Tape<double> tape = lstm.forward_train(core.call(), {});
  const Results results = core.results();
  const Gradients gradients = core.backward(tape);
  set_interrupt_check([] { throw Interrupt(); });
  const auto pause = [] {  // between two checks
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
  };
  pause();
  CHECK_THROWS(lstm.forward(core.call()), Interrupt);
  pause();
  CHECK_THROWS(lstm.forward_train(core.call(), {}), Interrupt);
  pause();
  CHECK_THROWS(core.backward(tape), Interrupt);
  set_interrupt_check(nullptr);
  // The layer and the tape are as they were.
  lstm.forward(core.call());
  CHECK(same_bits(core.results(), results));
  CHECK(core.backward(tape).x == gradients.x);
}

namespace {

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST(wrong_configurations_are_refused) {
  const auto refused = [](const StackConfig& config) {
    const CellParams<const float> none;  // which would be refused later
    return contains(message_of([&] { Stack<float>(config, &none); }), "StackConfig");
  };
  constexpr Index kHuge = std::numeric_limits<Index>::max();
  for (const StackConfig& config :
       {StackConfig{0, 1}, StackConfig{1, 0}, StackConfig{1, -1}, StackConfig{1, 1, 0},
        StackConfig{1, 2, 1, -1}, StackConfig{1, 2, 1, 2}, StackConfig{1, 2, 1, 3},
        StackConfig{1, 1, 1, 0, true, true}, StackConfig{kHuge, 1}, StackConfig{1, kHuge}}) {
    NOTE("I H L P = " << config.input_size << " " << config.hidden_size << " " << config.num_layers
                      << " " << config.proj_size);
    CHECK(refused(config));
  }
  // What the other cells do not have.
  for (const CellKind cell : {CellKind::kGru, CellKind::kGruResetBefore, CellKind::kRnnTanh}) {
    StackConfig projects{1, 2, 1, 1}, coupled{1, 2}, peepholes{1, 2}, zones_c{1, 2};
    coupled.options.input_forget = true;
    peepholes.options.peepholes = true;
    zones_c.options.zoneout_c = 0.1;
    for (StackConfig config : {projects, coupled, peepholes, zones_c}) {
      config.cell = cell;
      CHECK(refused(config));
    }
  }
}

TEST(missing_parameters_are_refused) {
  StackConfig projected{3, 5, 2, 2}, peepholes{3, 5}, normalised{3, 5, 1, 0, true}, without{3, 5};
  peepholes.options.peepholes = true;
  normalised.options.layer_norm = true;
  without.bias = false;
  for (const StackConfig& config : {projected, peepholes, normalised, without}) {
    const std::vector<float> values(1000);
    std::vector<CellParams<const float>> params(static_cast<std::size_t>(config.cells()));
    const auto list = [&](Index k) {
      return parameters_of<const float>(config, k / config.directions());
    };
    for (Index k = 0; k < config.cells(); ++k) {
      for (const auto& parameter : list(k)) params.data()[k].*parameter.field = values.data();
    }
    const Stack<float> stack(config, params.data());
    for (Index k = 0; k < config.cells(); ++k) {
      for (const auto& parameter : list(k)) {
        NOTE("cell " << k << ", " << parameter.name);
        auto some = params;
        some.data()[k].*parameter.field = nullptr;
        for (const std::string& message :
             {message_of([&] { Stack<float>(config, some.data()); }),
              message_of([&] { stack.with_params(k, some.data()[k]); })}) {
          CHECK(contains(message, parameter.name));
        }
      }
    }
  }
}

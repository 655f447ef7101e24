// What calls take of their thread's stack: all of the core, on threads with stacks of 64 KB. musl's
// threads have 128 KB, and the caller's own functions need some of it.
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "fastlstm/optim.hpp"
#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "naive_blas.hpp"

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

constexpr std::size_t kStack = std::size_t{64} << 10;
/// What may be used of it, the C library's part at its top included.
constexpr std::size_t kMostUsed = std::size_t{24} << 10;

/// Runs body on a thread with a stack of kStack, below which nothing may be touched, and returns
/// how many bytes of it were.
std::size_t stack_used(const std::function<void()>& body) {
  constexpr std::size_t kGuard = std::size_t{64} << 10;  // whole pages, whatever their size
  constexpr unsigned char kPaint = 0xA5;
  void* const memory = std::aligned_alloc(kGuard, kGuard + kStack);
  auto* const stack = static_cast<unsigned char*>(memory) + kGuard;
  std::memset(stack, kPaint, kStack);
  CHECK(mprotect(memory, kGuard, PROT_NONE) == 0);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStack);
  pthread_t thread;
  const auto start = [](void* given) -> void* {
    (*static_cast<const std::function<void()>*>(given))();
    return nullptr;
  };
  const int error =
      pthread_create(&thread, &attributes, start, const_cast<std::function<void()>*>(&body));
  pthread_attr_destroy(&attributes);
  CHECK_EQUAL(error, 0);
  pthread_join(thread, nullptr);
  const auto* const touched =
      std::find_if(stack, stack + kStack, [](unsigned char byte) { return byte != kPaint; });
  CHECK(mprotect(memory, kGuard, PROT_READ | PROT_WRITE) == 0);
  const auto used = static_cast<std::size_t>(stack + kStack - touched);
  std::free(memory);
  return used;
}

struct Case {
  std::string name;
  StackConfig config;
  Regularisation regularisation;
};

std::vector<Case> cases() {
  const StackConfig two{35, 70, 2};
  std::vector<Case> all;
  const auto add = [&](const char* name, StackConfig config, auto change) {
    Regularisation regularisation;
    change(config, regularisation);
    all.push_back({name, config, regularisation});
  };
  for (const CellFacts& facts : kCells) {
    StackConfig of_cell = two;
    of_cell.cell = facts.kind;
    add(facts.name, of_cell, [](StackConfig&, Regularisation&) {});
    add(facts.name, of_cell, [](StackConfig& c, Regularisation& r) {  // in both directions, drawn
      c.bidirectional = true;
      c.merge = Merge::kMul;
      c.options.zoneout_h = 0.2;
      if (c.memory_parts() > 0) c.options.zoneout_c = 0.3;
      r = {0.4, 7, 0.3, 0.25, true};
    });
    add(facts.name, of_cell, [](StackConfig& c, Regularisation&) {
      if (c.cell == CellKind::kRnnRelu) c.cell = CellKind::kRnnTanh;
      c.options.gate = {ActivationKind::kHardSigmoid, 0.2, 0.5};
      c.options.candidate = {ActivationKind::kSoftplus};
      c.options.hidden = {ActivationKind::kElu, 1};
      if (c.cell != CellKind::kLstm) c.options.hidden = CellOptions().hidden;
      if (c.gates() == 1) c.options.gate = CellOptions().gate;
      c.options.clip = 3;
    });
  }
  add("peepholes", two,
      [](StackConfig& c, Regularisation&) { c.options.peepholes = c.options.input_forget = true; });
  add("projection", two, [](StackConfig& c, Regularisation&) { c.proj_size = 20; });
  add("layer normalisation", two,
      [](StackConfig& c, Regularisation&) { c.options.layer_norm = true; });
  add("layer normalisation, all", two, [](StackConfig& c, Regularisation& r) {
    c.bidirectional = c.options.layer_norm = true;
    c.proj_size = 20;
    c.options.zoneout_c = 0.2;
    r = {0.4, 7, 0.3, 0.25, true};
  });
  return all;
}

/// All that a stack does, each on a small stack. report(name, bytes) gets what each took.
template <class T, class Report>
void run_all(const Case& c, Index B, Index steps, Report report) {
  const StackConfig& config = c.config;
  Random random(3);
  std::vector<std::vector<std::vector<T>>> values, d_values;
  std::vector<CellParams<const T>> params;
  std::vector<CellParams<T>> d_params;
  for (Index k = 0; k < config.cells(); ++k) {
    values.emplace_back();
    d_values.emplace_back();
    CellParams<const T>& of_cell = params.emplace_back();
    CellParams<T>& d_cell = d_params.emplace_back();
    const auto layer = k / config.directions();
    const auto named = parameters_of<const T>(config, layer);
    const auto d_named = parameters_of<T>(config, layer);
    for (std::size_t j = 0; j < named.size(); ++j) {
      values.back().push_back(random.values<T>(named[j].size(), -0.3, 0.3));
      d_values.back().emplace_back(values.back().back().size());
    }
    for (std::size_t j = 0; j < named.size(); ++j) {
      of_cell.*named[j].field = values.back()[j].data();
      d_cell.*d_named[j].field = d_values.back()[j].data();
    }
  }
  const Index I = config.input_size, W = config.merged_size();
  const std::vector<T> x = random.values<T>(steps * B * I, -1, 1);
  std::vector<T> output(static_cast<std::size_t>(steps * B * W)), d_x(x.size());
  std::vector<std::vector<T>> state;
  ForwardCall<T> call;
  call.steps = steps;
  call.B = B;
  call.x = {x.data(), B * I, I};
  call.output = {output.data(), B * W, W};
  for (const StatePart& part : config.state_parts()) {
    const std::size_t k = state.size();
    state.emplace_back(static_cast<std::size_t>(config.cells() * B * part.width));
    call.state_n[k] = state[k].data();
  }
  BackwardCall<T> back;
  back.d_output = {output.data(), B * W, W};
  back.d_x = {d_x.data(), B * I, I};
  back.d_params = d_params.data();

  std::deque<Stack<T>> stacks;
  report("packing", stack_used([&] { stacks.emplace_back(config, params.data()); }));
  const Stack<T>& stack = stacks.front();
  report("update", stack_used([&] { stacks.push_back(stack.with_params(0, params[0])); }));
  report("forward", stack_used([&] { stack.forward(call); }));
  const Index whole = stack.training_memory(steps, B, nullptr, false, c.regularisation, 0).bytes;
  for (const Index limit : {Index{0}, whole * 9 / 10}) {
    std::vector<Tape<T>> tapes;
    report("training", stack_used([&] {
             try {
               tapes.push_back(stack.forward_train(call, c.regularisation, limit));
             } catch (const std::invalid_argument&) {  // it can do with no less
               tapes.push_back(stack.forward_train(call, c.regularisation));
             }
           }));
    report("backward", stack_used([&] { tapes.front().backward(back); }));
  }
  report("prediction", stack_used([&] {
           stack.training_memory(steps, B, nullptr, false, c.regularisation, whole);
         }));
  if (config.bidirectional) return;
  std::vector<Stream<T>> streams;
  report("stream", stack_used([&] { streams.emplace_back(stack, B); }));
  report("step", stack_used([&] { streams.front().step(x.data(), output.data()); }));
  report("run", stack_used([&] { streams.front().run(steps, call.x, call.output); }));
}

template <class T>
void run_optimisers(std::size_t* most) {
  constexpr Index n = 100'000;
  std::vector<T> p(n, T(0.5)), g(n, T(0.1)), m(n), v(n);
  *most = std::max(*most, stack_used([&] {
    scale<T>(n, g.data(), 1 / (1 + sum_of_squares(n, g.data())), m.data());
    adam<T>(
        {n, 0.9, 0.999, 1e-8, 0.01, 1, 1, 0.1, p.data(), g.data(), m.data(), v.data(), p.data()});
  }));
}

}  // namespace

TEST(calls_take_little_of_a_stack) {
  std::vector<std::pair<std::string, std::size_t>> most;
  const auto note = [&](const std::string& name, std::size_t used) {
    const auto known =
        std::find_if(most.begin(), most.end(), [&](const auto& m) { return m.first == name; });
    if (known == most.end()) {
      most.emplace_back(name, used);
    } else {
      known->second = std::max(known->second, used);
    }
    CHECK(used <= kMostUsed);
  };
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    for (const Case& c : cases()) {
      for (const Index B : {1, 5, 40}) {
        NOTE(c.name << ", cell " << static_cast<int>(c.config.cell) << ", B = " << B << ", "
                    << threads << " threads");
        run_all<float>(c, B, 30, note);
        run_all<double>(c, B, 30, note);
      }
    }
  }
  std::size_t of_optimisers = 0;
  run_optimisers<float>(&of_optimisers);
  run_optimisers<double>(&of_optimisers);
  note("optimisers", of_optimisers);
  note("nothing", stack_used([] {}));
  for (const auto& [name, used] : most) std::cout << name << ": " << used << " bytes\n";
}

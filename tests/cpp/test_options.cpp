// Whole stacks with what the naive loop does not know: layer normalisation, peepholes, other
// functions, merged directions. Gradients are compared with differences of the core's own outputs
// (whose equations the Python tests compare with the references), without and within a limit of
// memory.
#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "naive_blas.hpp"

using namespace fastlstm;

namespace {

const bool blas_given = (set_blas(naive_blas()), true);

using Values = std::vector<double>;

// ThreadSanitizer and emulators are slow, and learn nothing from more.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || !defined(__x86_64__)
constexpr std::size_t kMostChecked = 3;
#else
constexpr std::size_t kMostChecked = 10;
#endif

struct Case {
  std::string name;
  StackConfig config;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](const char* name, StackConfig config, auto change) {
    change(config);
    all.push_back({name, config});
  };
  const StackConfig two{3, 5, 2, 0, true}, projected{3, 6, 2, 4, false, true};
  add("layer normalisation", two, [](StackConfig& c) { c.options.layer_norm = true; });
  add("layer normalisation, projection", projected,
      [](StackConfig& c) { c.options.layer_norm = true; });
  add("peepholes", two, [](StackConfig& c) { c.options.peepholes = true; });
  add("peepholes, one gate, projection", projected,
      [](StackConfig& c) { c.options.peepholes = c.options.input_forget = true; });
  for (const CellKind cell : {CellKind::kLstm, CellKind::kGru, CellKind::kGruResetBefore}) {
    add("functions", two, [cell](StackConfig& c) {
      c.cell = cell;
      c.options.gate = {ActivationKind::kSigmoid};
      c.options.candidate = {ActivationKind::kSoftsign};
      c.options.hidden = {ActivationKind::kScaledTanh, 1.2, 0.7};
      c.options.clip = 2;
    });
  }
  for (const Merge merge : {Merge::kSum, Merge::kMul, Merge::kAve}) {
    for (const CellKind cell : {CellKind::kLstm, CellKind::kGru, CellKind::kRnnTanh}) {
      add("merged", two, [=](StackConfig& c) {
        c.cell = cell;
        c.merge = merge;
      });
    }
  }
  return all;
}

/// What a call reads, or the gradients of that.
struct Arrays {
  Values x, h_0, c_0;
  std::vector<std::vector<Values>> cells;  // in the order of parameters_of

  /// Every array of both, side by side.
  template <class Body>
  static void for_each(Arrays& a, Arrays& b, Body body) {
    body("x", a.x, b.x);
    body("h_0", a.h_0, b.h_0);
    body("c_0", a.c_0, b.c_0);
    for (std::size_t k = 0; k < a.cells.size(); ++k) {
      for (std::size_t j = 0; j < a.cells[k].size(); ++j) {
        const std::string name = "cell " + std::to_string(k) + ", array " + std::to_string(j);
        body(name, a.cells[k][j], b.cells[k][j]);
      }
    }
  }
  /// Pointers to the cells' arrays. T: double or const double.
  template <class T>
  std::vector<CellParams<T>> params(const StackConfig& config) {
    std::vector<CellParams<T>> all;
    for (std::size_t k = 0; k < cells.size(); ++k) {
      CellParams<T>& of_cell = all.emplace_back();
      std::size_t j = 0;
      for (const auto& parameter :
           parameters_of<T>(config, static_cast<Index>(k) / config.directions())) {
        of_cell.*parameter.field = cells[k][j++].data();
      }
    }
    return all;
  }
};

class Problem {
 public:
  Problem(const StackConfig& config, Index steps)
      : c_(config), T(steps), lengths_{T, 0, T / 2, T, T - 20} {
    Random random(7);
    const auto draw = [&](Index n) { return random.values<double>(n, -0.8, 0.8); };
    in.x = draw(T * B * c_.input_size);
    in.h_0 = draw(c_.cells() * B * c_.output_size());
    in.c_0 = draw(c_.cells() * B * c_.memory_size());
    for (Index k = 0; k < c_.cells(); ++k) {
      in.cells.emplace_back();
      for (const auto& parameter : parameters_of<double>(c_, k / c_.directions())) {
        in.cells.back().push_back(draw(parameter.size()));
      }
    }
    d_output_ = draw(T * B * c_.merged_size());
    d_h_n_ = draw(static_cast<Index>(in.h_0.size()));
    d_c_n_ = draw(static_cast<Index>(in.c_0.size()));
    output_.resize(d_output_.size());
    h_n_.resize(in.h_0.size());
    c_n_.resize(in.c_0.size());
  }

  Stack<double> stack() { return Stack<double>(c_, in.params<const double>(c_).data()); }

  double loss() {
    stack().forward(call());
    double sum = 0;
    const auto add = [&sum](const Values& a, const Values& b) {
      for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    };
    add(output_, d_output_);
    add(h_n_, d_h_n_);
    add(c_n_, d_c_n_);
    return sum;
  }

  Arrays gradients(Index memory_limit) {
    Arrays d = in;
    for (auto& cell : d.cells) {
      for (Values& array : cell) std::fill(array.begin(), array.end(), 0.0);
    }
    const std::vector<CellParams<double>> params = d.params<double>(c_);
    const Index W = c_.merged_size(), I = c_.input_size;
    BackwardCall<double> back;
    back.d_output = {d_output_.data(), B * W, W};
    back.d_state_n[0] = d_h_n_.data();
    back.d_state_n[1] = d_c_n_.data();
    back.d_x = {d.x.data(), B * I, I};
    back.d_state_0[0] = d.h_0.data();
    back.d_state_0[1] = d.c_0.data();
    back.d_params = params.data();
    stack().forward_train(call(), {}, memory_limit).backward(back);
    return d;
  }

  Index whole() { return stack().training_memory(T, B, lengths_.data(), false, {}, 0).bytes; }

  Arrays in;

 private:
  ForwardCall<double> call() {
    const Index W = c_.merged_size(), I = c_.input_size;
    ForwardCall<double> call;
    call.steps = T;
    call.B = B;
    call.lengths = lengths_.data();
    call.x = {in.x.data(), B * I, I};
    call.state_0[0] = in.h_0.data();
    call.state_0[1] = in.c_0.data();
    call.output = {output_.data(), B * W, W};
    call.state_n[0] = h_n_.data();
    call.state_n[1] = c_n_.data();
    return call;
  }

  StackConfig c_;
  const Index T, B = 5;
  std::vector<Index> lengths_;
  Values d_output_, d_h_n_, d_c_n_, output_, h_n_, c_n_;
};

}  // namespace

TEST(gradients_are_those_of_differences) {
  for (const Case& c : cases()) {
    NOTE(c.name << ", cell " << static_cast<int>(c.config.cell));
    Problem p(c.config, 110);  // two blocks of the backward pass
    Arrays got = p.gradients(0);
    Arrays::for_each(p.in, got, [&](const std::string& name, Values& values, const Values& d) {
      NOTE(name);
      for (std::size_t k = 0; k < values.size(); k += values.size() / kMostChecked + 1) {
        NOTE("element " << k);
        constexpr double kStep = 1e-5;
        const double before = values[k];
        values[k] = before + kStep;
        const double above = p.loss();
        values[k] = before - kStep;
        const double below = p.loss();
        values[k] = before;
        CHECK_CLOSE(d[k], (above - below) / (2 * kStep), 1e-6 * (1 + std::abs(d[k])));
      }
    });
  }
}

TEST(a_memory_limit_changes_no_bit) {
  for (const Case& c : cases()) {
    NOTE(c.name << ", cell " << static_cast<int>(c.config.cell));
    Problem p(c.config, 1000);  // enough of them that segments take less memory
    Arrays want = p.gradients(0), got = p.gradients(p.whole() - 1);
    Arrays::for_each(want, got, [](const std::string& name, const Values& a, const Values& b) {
      NOTE(name);
      CHECK(a == b);
    });
  }
}

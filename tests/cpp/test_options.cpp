// Whole stacks with what the naive loop does not know: layer normalisation, peepholes, other
// functions, merged directions. Gradients are compared with differences of the core's own outputs
// (whose equations the Python tests compare with the references), without and within a limit of
// memory.
#include <algorithm>
#include <array>
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

constexpr std::size_t kArrays = 10;

template <class T>
CellParams<T> pointers(std::array<Values, kArrays>& arrays) {
  std::array<double*, kArrays> p{};
  for (std::size_t k = 0; k < kArrays; ++k) p[k] = arrays[k].empty() ? nullptr : arrays[k].data();
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]};
}

/// What a call reads, or the gradients of that.
struct Arrays {
  Values x, h_0, c_0;
  std::vector<std::array<Values, kArrays>> cells;

  /// Every array of both, side by side.
  template <class Body>
  static void for_each(Arrays& a, Arrays& b, Body body) {
    body("x", a.x, b.x);
    body("h_0", a.h_0, b.h_0);
    body("c_0", a.c_0, b.c_0);
    for (std::size_t k = 0; k < a.cells.size(); ++k) {
      for (std::size_t j = 0; j < kArrays; ++j) {
        const std::string name = "cell " + std::to_string(k) + ", array " + std::to_string(j);
        body(name, a.cells[k][j], b.cells[k][j]);
      }
    }
  }
};

class Problem {
 public:
  Problem(const StackConfig& config, Index steps)
      : c_(config), T(steps), lengths_{T, 0, T / 2, T, T - 20} {
    Random random(7);
    const auto draw = [&](Index n) { return random.values<double>(n, -0.8, 0.8); };
    const Index D = c_.directions(), H = c_.hidden_size, P = c_.output_size(), G = c_.gates();
    in.x = draw(T * B * c_.input_size);
    in.h_0 = draw(c_.cells() * B * P);
    in.c_0 = draw(c_.cells() * B * c_.c_size());
    for (Index k = 0; k < c_.cells(); ++k) {
      const Index ln = c_.options.layer_norm ? H : 0;
      in.cells.push_back({draw(G * H * c_.layer_input_size(k / D)), draw(G * H * P), draw(G * H),
                          draw(G * H), draw(c_.proj_size * H),
                          draw(c_.options.peepholes ? 3 * H : 0), draw(4 * ln), draw(4 * ln),
                          draw(ln), draw(ln)});
    }
    d_output_ = draw(T * B * c_.merged_size());
    d_h_n_ = draw(static_cast<Index>(in.h_0.size()));
    d_c_n_ = draw(static_cast<Index>(in.c_0.size()));
    output_.resize(d_output_.size());
    h_n_.resize(in.h_0.size());
    c_n_.resize(in.c_0.size());
  }

  Stack<double> stack() {
    std::vector<CellParams<const double>> params;
    for (auto& cell : in.cells) {
      const CellParams<double> p = pointers<double>(cell);
      params.push_back({p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, p.weight_hr,
                        p.weight_peephole, p.weight_ln_ih, p.weight_ln_hh, p.weight_ln_c,
                        p.bias_ln_c});
    }
    return Stack<double>(c_, params.data());
  }

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
    std::vector<CellParams<double>> params;
    for (auto& cell : d.cells) params.push_back(pointers<double>(cell));
    const Index W = c_.merged_size(), I = c_.input_size;
    stack()
        .forward_train(call(), {}, memory_limit)
        .backward({{d_output_.data(), B * W, W},
                   d_h_n_.data(),
                   d_c_n_.data(),
                   {d.x.data(), B * I, I},
                   d.h_0.data(),
                   d.c_0.data(),
                   params.data()});
    return d;
  }

  Index whole() { return stack().training_memory(T, B, lengths_.data(), false, {}, 0).bytes; }

  Arrays in;

 private:
  ForwardCall<double> call() {
    const Index W = c_.merged_size(), I = c_.input_size;
    return {T,
            B,
            lengths_.data(),
            {in.x.data(), B * I, I},
            in.h_0.data(),
            in.c_0.data(),
            {output_.data(), B * W, W},
            h_n_.data(),
            c_n_.data()};
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

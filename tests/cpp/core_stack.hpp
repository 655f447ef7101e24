// The core's stacks on a problem: values go in and come out as doubles.
#pragma once

#include <utility>
#include <vector>

#include "fastlstm/stack.hpp"
#include "naive_cells.hpp"

/// A problem's arrays in the core's type, and the room for its results.
template <class T>
class CoreProblem {
 public:
  explicit CoreProblem(const Problem& p, bool batch_first = false)
      : problem_(p),
        batch_first_(batch_first),
        x_(sequence(p.x, p.I())),
        h_0_(converted(p.h_0)),
        c_0_(converted(p.c_0)),
        output(p.T * p.B * p.width()),
        h_n(static_cast<Index>(p.h_0.size())),
        c_n(static_cast<Index>(p.c_0.size())) {}

  static fastlstm::Stack<T> stack(const Problem& p) {
    std::vector<std::vector<T>> kept;
    std::vector<fastlstm::CellParams<const T>> params;
    const auto keep = [&](const Values& v) -> const T* {
      if (v.empty()) return nullptr;
      kept.push_back(converted(v));
      return kept.back().data();
    };
    for (const Cell& c : p.cells) {
      fastlstm::CellParams<const T>& of_cell = params.emplace_back();
      of_cell.weight_ih = keep(c.weight_ih);
      of_cell.weight_hh = keep(c.weight_hh);
      of_cell.bias_ih = keep(c.bias_ih);
      of_cell.bias_hh = keep(c.bias_hh);
      of_cell.weight_hr = keep(c.weight_hr);
    }
    return fastlstm::Stack<T>(p.config, params.data());
  }

  fastlstm::ForwardCall<T> call() {
    const Problem& p = problem_;
    fastlstm::ForwardCall<T> call;
    call.steps = p.T;
    call.B = p.B;
    call.lengths = p.lengths.empty() ? nullptr : p.lengths.data();
    call.x = view<const T>(x_.data(), p.I());
    call.state_0[0] = h_0_.data();
    call.state_0[1] = c_0_.data();
    call.output = view<T>(output.data(), p.width());
    call.state_n[0] = h_n.data();
    call.state_n[1] = c_n.data();
    return call;
  }

  /// The results as doubles, time-major; without the cells' values.
  Results results() const {
    output.check_guards();
    h_n.check_guards();
    c_n.check_guards();
    return {time_major(output, problem_.width()), doubles(h_n), doubles(c_n), {}, {}, {}};
  }

  void trace(const fastlstm::Tape<T>& tape, Results* r) const {
    const Problem& p = problem_;
    const Index rows = p.T * p.B;
    for (Index k = 0; k < p.config.cells(); ++k) {
      Guarded<T> gates(rows * tape.gates_width()), c(rows * p.C()), h(rows * p.P());
      tape.copy_gates(k, gates.data());
      tape.copy_state(k, 0, h.data());
      if (p.C() > 0) tape.copy_state(k, 1, c.data());
      gates.check_guards();
      c.check_guards();
      h.check_guards();
      r->gates.push_back(doubles(gates));
      r->c.push_back(doubles(c));
      r->h.push_back(doubles(h));
    }
  }

  /// start: what stands in the parameters' gradients before the call, which adds to them.
  Gradients backward(const fastlstm::Tape<T>& tape, double start = 0) const {
    const Problem& p = problem_;
    const std::vector<T> d_output = sequence(p.d_output, p.width());
    const std::vector<T> d_h_n = converted(p.d_h_n), d_c_n = converted(p.d_c_n);
    Guarded<T> d_x(p.T * p.B * p.I());
    Guarded<T> d_h_0(static_cast<Index>(p.h_0.size())), d_c_0(static_cast<Index>(p.c_0.size()));
    std::vector<std::vector<Guarded<T>>> d_cells;
    std::vector<fastlstm::CellParams<T>> d_params;
    for (const Cell& c : p.cells) {
      d_cells.emplace_back();
      for (const Values* v : {&c.weight_ih, &c.weight_hh, &c.bias_ih, &c.bias_hh, &c.weight_hr}) {
        d_cells.back().emplace_back(std::vector<T>(v->size(), static_cast<T>(start)));
      }
      std::vector<Guarded<T>>& d = d_cells.back();
      const auto given = [&d](std::size_t k) { return d[k].size() > 0 ? d[k].data() : nullptr; };
      fastlstm::CellParams<T>& of_cell = d_params.emplace_back();
      of_cell.weight_ih = given(0);
      of_cell.weight_hh = given(1);
      of_cell.bias_ih = given(2);
      of_cell.bias_hh = given(3);
      of_cell.weight_hr = given(4);
    }
    fastlstm::BackwardCall<T> call;
    call.d_output = view<const T>(d_output.data(), p.width());
    call.d_state_n[0] = d_h_n.data();
    call.d_state_n[1] = d_c_n.data();
    call.d_x = view<T>(d_x.data(), p.I());
    call.d_state_0[0] = d_h_0.data();
    call.d_state_0[1] = d_c_0.data();
    call.d_params = d_params.data();
    tape.backward(call);
    d_x.check_guards();
    d_h_0.check_guards();
    d_c_0.check_guards();
    Gradients g{time_major(d_x, p.I()), doubles(d_h_0), doubles(d_c_0), {}};
    for (const auto& d : d_cells) {
      for (const Guarded<T>& array : d) array.check_guards();
      g.cells.push_back(
          {doubles(d[0]), doubles(d[1]), doubles(d[2]), doubles(d[3]), doubles(d[4])});
    }
    return g;
  }

 private:
  static std::vector<T> converted(const Values& v) {
    std::vector<T> to;
    for (const double value : v) to.push_back(static_cast<T>(value));
    return to;
  }
  static Values doubles(const Guarded<T>& v) { return Values(v.data(), v.data() + v.size()); }

  template <class V>
  fastlstm::SequenceView<V> view(V* data, Index width) const {
    if (batch_first_) return {data, width, problem_.T * width};
    return {data, problem_.B * width, width};
  }
  /// A time-major sequence in the call's layout.
  std::vector<T> sequence(const Values& from, Index width) const {
    std::vector<T> to(from.size());
    const auto rows = view<T>(to.data(), width);
    for (Index t = 0; t < problem_.T; ++t) {
      for (Index b = 0; b < problem_.B; ++b) {
        const double* row = from.data() + (t * problem_.B + b) * width;
        for (Index k = 0; k < width; ++k) rows.row(t, b)[k] = static_cast<T>(row[k]);
      }
    }
    return to;
  }
  Values time_major(const Guarded<T>& from, Index width) const {
    Values to;
    const auto rows = view<const T>(from.data(), width);
    for (Index t = 0; t < problem_.T; ++t) {
      for (Index b = 0; b < problem_.B; ++b) {
        to.insert(to.end(), rows.row(t, b), rows.row(t, b) + width);
      }
    }
    return to;
  }

  const Problem& problem_;
  bool batch_first_;
  std::vector<T> x_, h_0_, c_0_;

 public:
  Guarded<T> output, h_n, c_n;
};

// The core's stacks on a problem: values go in and come out as doubles.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "fastlstm/stack.hpp"
#include "naive_cells.hpp"

/// How the rows of a call's sequences are ordered.
enum class Order { kTimeFirst, kBatchFirst, kPacked };
inline const Order kOrders[] = {Order::kTimeFirst, Order::kBatchFirst, Order::kPacked};

/// A problem's arrays in the core's type, and the room for its results.
template <class T>
class CoreProblem {
 public:
  explicit CoreProblem(const Problem& p, Order order = Order::kTimeFirst)
      : problem_(p),
        order_(order),
        x_(sequence(p.x, p.I())),
        h_0_(converted(p.h_0)),
        c_0_(converted(p.c_0)),
        output(rows() * p.width()),
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

  /// Pointers to these values, of which T is the type.
  static std::vector<fastlstm::CellParams<const T>> params(const std::vector<Cell>& cells) {
    static_assert(std::is_same_v<T, double>);
    const auto given = [](const Values& v) { return v.empty() ? nullptr : v.data(); };
    std::vector<fastlstm::CellParams<const T>> params;
    for (const Cell& c : cells) {
      fastlstm::CellParams<const T>& of_cell = params.emplace_back();
      of_cell.weight_ih = given(c.weight_ih);
      of_cell.weight_hh = given(c.weight_hh);
      of_cell.bias_ih = given(c.bias_ih);
      of_cell.bias_hh = given(c.bias_hh);
      of_cell.weight_hr = given(c.weight_hr);
    }
    return params;
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

  /// start: what stands in the parameters' gradients before the call, which adds to them or not.
  Gradients backward(const fastlstm::Tape<T>& tape, double start = 0, bool adds = true) const {
    const Problem& p = problem_;
    const std::vector<T> d_output = sequence(p.d_output, p.width());
    const std::vector<T> d_h_n = converted(p.d_h_n), d_c_n = converted(p.d_c_n);
    Guarded<T> d_x(rows() * p.I());
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
    call.adds_to_d_params = adds;
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
    if (order_ == Order::kPacked) return fastlstm::SequenceView<V>::packed_rows(data, width);
    if (order_ == Order::kBatchFirst) return {data, width, problem_.T * width};
    return {data, problem_.B * width, width};
  }
  /// Of a sequence in the call's order.
  Index rows() const {
    if (order_ != Order::kPacked) return problem_.T * problem_.B;
    Index n = 0;
    for (Index b = 0; b < problem_.B; ++b) n += problem_.length(b);
    return n;
  }
  /// Which of them row (t, b) is; -1: it is past an end, and none of packed ones.
  Index place(Index t, Index b) const {
    const Problem& p = problem_;
    if (order_ == Order::kTimeFirst) return t * p.B + b;
    if (order_ == Order::kBatchFirst) return b * p.T + t;
    if (t >= p.length(b)) return -1;
    Index before = 0;
    for (Index other = 0; other < p.B; ++other) {
      before += std::min(t, p.length(other));
      const bool longer = p.length(other) > p.length(b);
      if (longer || (p.length(other) == p.length(b) && other < b)) ++before;
    }
    return before;
  }
  /// A time-major sequence in the call's layout.
  std::vector<T> sequence(const Values& from, Index width) const {
    std::vector<T> to(static_cast<std::size_t>(rows() * width));
    for (Index t = 0; t < problem_.T; ++t) {
      for (Index b = 0; b < problem_.B; ++b) {
        if (place(t, b) < 0) continue;
        const double* row = from.data() + (t * problem_.B + b) * width;
        std::transform(row, row + width, to.begin() + place(t, b) * width,
                       [](double value) { return static_cast<T>(value); });
      }
    }
    return to;
  }
  Values time_major(const Guarded<T>& from, Index width) const {
    Values to;
    for (Index t = 0; t < problem_.T; ++t) {
      for (Index b = 0; b < problem_.B; ++b) {
        if (place(t, b) >= 0) {
          const T* row = from.data() + place(t, b) * width;
          to.insert(to.end(), row, row + width);
        } else {
          to.insert(to.end(), static_cast<std::size_t>(width), 0.0);
        }
      }
    }
    return to;
  }

  const Problem& problem_;
  Order order_;
  std::vector<T> x_, h_0_, c_0_;

 public:
  Guarded<T> output, h_n, c_n;
};

#include "passes/collected_gradients.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "passes/weight_gradients.hpp"
#include "runtime/blas.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

template <class T>
CollectedGradients<T>::CollectedGradients(const StackConfig& config, const CellParams<T>& d) {
  check_config(config);
  const std::size_t of_gates = config.bias ? 4 : 2;
  const bool one_product = config.cell != CellKind::kGruResetBefore;
  if (config.cells() != 1 || !one_product || parameters_of<T>(config, 0).size() != of_gates) {
    throw std::invalid_argument(
        "CollectedGradients: expected one cell of W, R and biases, multiplied once");
  }
  state_ = std::make_unique<State>();
  state_->config = config;
  state_->d = d;
}
template <class T>
CollectedGradients<T>::CollectedGradients(CollectedGradients&&) noexcept = default;
template <class T>
CollectedGradients<T>::~CollectedGradients() = default;

template <class T>
void CollectedGradients<T>::finish() {
  state_->multiply();
}

template <class T>
void CollectedGradients<T>::State::prepare(const std::shared_ptr<const CellWeights<T>>& of_pass,
                                           Index n) {
  // As many as the products of a pass over a sequence have.
  if (rows > 0 && rows + n > kBackwardRows) multiply();
  weights = of_pass;
  const Index capacity = std::max(n, kBackwardRows);
  x.reserve(capacity, of_pass->I);
  h.reserve(capacity, of_pass->P);
  d_gates.reserve(capacity, of_pass->GH);
}

template <class T>
void CollectedGradients<T>::State::add(Index n, const T* x_rows, const T* h_rows, const T* gates,
                                       const T* from_h) {
  const CellWeights<T>& w = *weights;
  apart = from_h != gates;
  if (apart) {
    d_from_h.reserve(d_gates.size() / w.GH, w.GH);
    std::copy_n(from_h, n * w.GH, d_from_h.data() + rows * w.GH);
  }
  std::copy_n(x_rows, n * w.I, x.data() + rows * w.I);
  std::copy_n(h_rows, n * w.P, h.data() + rows * w.P);
  std::copy_n(gates, n * w.GH, d_gates.data() + rows * w.GH);
  rows += n;
}

template <class T>
void CollectedGradients<T>::State::multiply() {
  if (rows == 0) return;
  const FlushDenormals flush_denormals;
  require_blas();
  const SingleThreadedBlas single_threaded_blas;
  const CellWeights<T>& w = *weights;
  const Index n = std::exchange(rows, 0);
  const T* const from_h = apart ? d_from_h.data() : d_gates.data();
  TeamLease team(threads_worth(static_cast<double>(n) * static_cast<double>(w.GH * (w.I + w.P))));
  Room room;
  WeightGradients<T> products(w, {x.data(), nullptr, false, d.weight_ih, d.weight_hh},
                              {{0, w.GH, h.data()}}, team.threads(), n, room);
  products.begin({0, n, d_gates.data(), from_h});
  const auto add_sums = [&](const T* values, T* sums) {
    if (sums != nullptr) kernels<T>().add_column_sums({n, w.GH, values, sums});
  };
  const Index small = products.tasks();  // the place of the task of all small ones
  team.run_tasks(small + 1, [&](Index task, int rank) noexcept {
    if (task < small) return products.run(task, rank);
    add_sums(d_gates.data(), d.bias_ih);
    add_sums(from_h, d.bias_hh);
  });
}

template class CollectedGradients<float>;
template class CollectedGradients<double>;

}  // namespace fastlstm

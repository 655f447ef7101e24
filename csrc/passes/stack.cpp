#include "fastlstm/stack.hpp"

#include <stdexcept>
#include <utility>

#include "passes/forward.hpp"
#include "passes/layers.hpp"
#include "passes/masks.hpp"
#include "passes/memory_plan.hpp"
#include "passes/saved.hpp"
#include "passes/segments.hpp"
#include "runtime/system.hpp"

namespace fastlstm {

namespace {

/// The layers with weight dropout: other R, packed for one call.
template <class T>
Layers<T> with_dropped_weights(const Layers<T>& layers, const Regularisation& regularisation) {
  Layers<T> dropped = layers;
  for (Index k = 0; k < layers.config.cells(); ++k) {
    const CellWeights<T>& w = layers.weights(k);
    WeightPanel<T> R = w.R.changed(
        [&](Index row, T* values) { drop_weights(regularisation, k, row, w.P, values); });
    dropped.all_weights[static_cast<std::size_t>(k)] =
        std::make_shared<const CellWeights<T>>(w, std::move(R));
  }
  return dropped;
}

}  // namespace

template <class T>
Stack<T>::Stack(const StackConfig& config, const CellParams<const T>* params) {
  check_config(config);
  Layers<T> layers(config);
  for (Index k = 0; k < config.cells(); ++k) layers.set_params(k, params[k]);
  layers_ = std::make_shared<const Layers<T>>(std::move(layers));
}

template <class T>
Stack<T>::Stack(const StackConfig& config, const CellParams<const T>* params,
                const SmallWeights* weights) {
  check_config(config);
  if (sizeof(T) != sizeof(float) || !is_small(config.arithmetic)) {
    throw std::invalid_argument("Stack: small weights are for an arithmetic of float32");
  }
  Layers<T> layers(config);
  for (Index k = 0; k < config.cells(); ++k) layers.set_params(k, params[k], &weights[k]);
  layers_ = std::make_shared<const Layers<T>>(std::move(layers));
}

template <class T>
Stack<T>::Stack(std::shared_ptr<const Layers<T>> layers) : layers_(std::move(layers)) {}

template <class T>
Stack<T> Stack<T>::with_params(Index k, const CellParams<const T>& params) const {
  Layers<T> layers = *layers_;
  layers.set_params(k, params);
  return Stack(std::make_shared<const Layers<T>>(std::move(layers)));
}

template <class T>
const StackConfig& Stack<T>::config() const {
  return layers_->config;
}

template <class T>
void Stack<T>::forward(const ForwardCall<T>& call) const {
  forward_layers<T>(*layers_, call, RowSchedule(call.steps, call.B, call.lengths), nullptr);
}

template <class T>
Tape<T> Stack<T>::forward_train(const ForwardCall<T>& call, const Regularisation& regularisation,
                                Index memory_limit) const {
  if (is_small(config().arithmetic) && regularisation.weight_dropout > 0) {
    throw std::logic_error("Regularisation: small weights do not drop out");
  }
  RowSchedule rows(call.steps, call.B, call.lengths);
  const MemoryPlan plan = plan_memory(*layers_, rows, regularisation,
                                      rows.is_packed(call.x, config().input_size), memory_limit);
  // Not under a limit, where memory that is kept but not used would count.
  const bool keeps = memory_limit == 0;
  if (keeps && plan.memory.bytes >= kMemoryToKeep) keep_released_memory();
  auto spare = layers_->spare->take();
  if (!keeps) *spare = {};
  const bool drops = regularisation.weight_dropout > 0;
  auto saved = std::make_unique<Saved<T>>(
      drops ? with_dropped_weights(*layers_, regularisation) : *layers_, std::move(rows),
      regularisation, !plan.in_segments, std::move(*spare));
  if (keeps) saved->spare = std::move(spare);
  if (plan.in_segments) {
    pack_rows(saved->rows, call.x, config().input_size, saved->x.data());
    forward_in_segments(*saved, call, plan);
  } else {
    saved->save_state(call.state_0);
    forward_layers<T>(saved->layers, call, saved->rows, saved.get());
  }
  return Tape<T>(std::move(saved));
}

template <class T>
TrainingMemory Stack<T>::training_memory(Index steps, Index B, const Index* lengths,
                                         bool batch_first, const Regularisation& regularisation,
                                         Index memory_limit) const {
  const RowSchedule rows(steps, B, lengths);
  // Of arrays of one column, which stand for all.
  const SequenceView<T> callers{nullptr, batch_first ? 1 : B, batch_first ? steps : 1};
  return plan_memory(*layers_, rows, regularisation, rows.is_packed(callers, 1), memory_limit)
      .memory;
}

template class Stack<float>;
template class Stack<double>;

}  // namespace fastlstm

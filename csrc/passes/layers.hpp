// What calls on a stack share: its configuration, its cell, and packed weights.
#pragma once

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cells/cell.hpp"
#include "fastlstm/stack.hpp"
#include "passes/masks.hpp"
#include "runtime/buffer.hpp"

namespace fastlstm {

/// The large arrays of what training saves (passes/saved.hpp), for one tape after another.
template <class T>
struct SavedArrays {
  Buffer<T> x, outputs, gates, memory;

  Index bytes() const {
    return (x.size() + outputs.size() + gates.size() + memory.size()) *
           static_cast<Index>(sizeof(T));
  }
};

/// The arrays of the last tape, which the next one takes over. Fresh memory is slow where a machine
/// takes back what is free, as some virtual ones do: LSTM of 2 layers, T = 2000, B = 8, H = 256,
/// 704 ms for a call, and 900 where a second had passed since the last one.
///
/// Without a lock, which a fork could leave taken: whoever takes the arrays has them alone.
template <class T>
class SpareArrays {
 public:
  static constexpr Index kMostBytes = Index{256} << 20;

  SpareArrays() = default;
  ~SpareArrays() { delete arrays_.load(); }
  SpareArrays(const SpareArrays&) = delete;
  SpareArrays& operator=(const SpareArrays&) = delete;

  /// What is there, or empty arrays.
  std::unique_ptr<SavedArrays<T>> take() {
    std::unique_ptr<SavedArrays<T>> arrays(arrays_.exchange(nullptr));
    return arrays != nullptr ? std::move(arrays) : std::make_unique<SavedArrays<T>>();
  }
  /// Releases what was there; and the arrays, where they are too large to be kept.
  void put(std::unique_ptr<SavedArrays<T>> arrays) noexcept {
    if (arrays->bytes() > kMostBytes) arrays = nullptr;
    delete arrays_.exchange(arrays.release());
  }

 private:
  std::atomic<SavedArrays<T>*> arrays_{nullptr};
};

template <class T>
struct Layers {
  StackConfig config;
  std::shared_ptr<const Cell<T>> cell;
  std::vector<std::shared_ptr<const CellWeights<T>>> all_weights;  // [L * D]
  std::shared_ptr<SpareArrays<T>> spare = std::make_shared<SpareArrays<T>>();
  Index first_cell = 0;  // of a part of other layers: which of their cells comes first

  const CellWeights<T>& weights(Index k) const { return *all_weights[static_cast<std::size_t>(k)]; }
  /// The values that training keeps of a row's gates.
  Index gates_width() const { return cell->saved_gates() * config.hidden_size; }
  CellMasks<T> masks(Index k, const Regularisation* regularisation, const RowSchedule& rows) const {
    return CellMasks<T>(config.options, first_cell + k, regularisation, rows);
  }

  /// Packs parameters for cell k.
  void set_params(Index k, const CellParams<const T>& params) {
    for (const auto& parameter : parameters_of<const T>(config, k / config.directions())) {
      if (params.*parameter.field == nullptr) {
        throw std::invalid_argument(std::string("CellParams: no ") + parameter.name);
      }
    }
    all_weights[static_cast<std::size_t>(k)] = std::make_shared<const CellWeights<T>>(
        config, cell->weight_shape(), k / config.directions(), params);
  }

  /// Cell k alone, as one layer and direction.
  Layers only(Index k) const {
    Layers alone = *this;
    alone.config.input_size = config.layer_input_size(k / config.directions());
    alone.config.num_layers = 1;
    alone.config.bidirectional = false;
    alone.config.merge = Merge::kConcat;
    alone.config.reverse = config.runs_backward(k % config.directions());
    alone.all_weights = {all_weights[static_cast<std::size_t>(k)]};
    alone.first_cell += k;
    return alone;
  }
};

}  // namespace fastlstm

// What calls on a stack share: its configuration, its cell, and packed weights.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cells/cell.hpp"
#include "cells/cells.hpp"
#include "fastlstm/stack.hpp"
#include "passes/masks.hpp"
#include "runtime/buffer.hpp"
#include "runtime/spare.hpp"

namespace fastlstm {

/// The large arrays of what training saves (passes/saved.hpp), for one tape after another.
template <class T>
struct SavedArrays {
  Buffer<T> x, outputs, gates, memory;

  Index bytes() const { return x.bytes() + outputs.bytes() + gates.bytes() + memory.bytes(); }
};

template <class T>
struct Layers {
  /// Without weights.
  explicit Layers(const StackConfig& config_)
      : config(config_),
        cell(make_cell<T>(config)),
        all_weights(static_cast<std::size_t>(config.cells())),
        spare_panels(std::make_shared<const std::vector<SparePanels<T>>>(all_weights.size())) {}

  StackConfig config;
  std::shared_ptr<const Cell<T>> cell;
  std::vector<std::shared_ptr<const CellWeights<T>>> all_weights;  // [L * D]
  // What those before have left, for the next tape and for each cell's next weights.
  std::shared_ptr<Spare<SavedArrays<T>>> spare = std::make_shared<Spare<SavedArrays<T>>>();
  std::shared_ptr<const std::vector<SparePanels<T>>> spare_panels;  // [L * D]
  Index first_cell = 0;  // of a part of other layers: which of their cells comes first

  const CellWeights<T>& weights(Index k) const { return *all_weights[static_cast<std::size_t>(k)]; }
  /// The values that training keeps of a row's gates.
  Index gates_width() const { return cell->saved_gates() * config.hidden_size; }
  CellMasks<T> masks(Index k, const Regularisation* regularisation, const RowSchedule& rows) const {
    return CellMasks<T>(config.options, first_cell + k, regularisation, rows);
  }

  /// Packs parameters for cell k. small: the weights, where they are; or null.
  void set_params(Index k, const CellParams<const T>& params, const SmallWeights* small = nullptr) {
    if ((small != nullptr) != is_small(config.arithmetic)) {
      throw std::invalid_argument("CellParams: weights of another arithmetic");
    }
    for (const auto& parameter : parameters_of<const T>(config, k / config.directions())) {
      const bool is_given = small != nullptr && parameter.small != nullptr
                                ? (small->*parameter.small).values != nullptr
                                : params.*parameter.field != nullptr;
      if (!is_given) {
        throw std::invalid_argument(std::string("CellParams: no ") + parameter.name);
      }
    }
    const auto cell_k = static_cast<std::size_t>(k);
    all_weights[cell_k] = std::make_shared<const CellWeights<T>>(config, cell->weight_shape(),
                                                                 k / config.directions(), params,
                                                                 (*spare_panels)[cell_k], small);
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

// Memory of Python's that a call is given by its address: what arrays.hpp is for arrays. Types,
// sizes and contiguity are the caller's promise; only numbers can be checked here.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arrays.hpp"

namespace fastlstm::python {

/// 0: none.
using Address = std::uintptr_t;
/// Of the parts of a state, or of its gradient; None: zeros, or not asked for.
using StateAddresses = std::optional<std::vector<Address>>;

template <class V>
V* pointer(Address address) {
  return reinterpret_cast<V*>(address);
}

/// pointers: by part of the state, out.
template <class V>
void state_at(const StackConfig& config, const StateAddresses& addresses, const std::string& what,
              V* (&pointers)[kMostStateParts]) {
  if (!addresses) return;
  require(addresses->size() == config.state_parts().size(), what);
  for (std::size_t p = 0; p < addresses->size(); ++p) pointers[p] = pointer<V>((*addresses)[p]);
}
/// The same of what is written: all parts or none.
template <class T>
void written_state_at(const StackConfig& config, const StateAddresses& addresses,
                      const std::string& what, T* (&pointers)[kMostStateParts]) {
  state_at(config, addresses, what, pointers);
  if (!addresses) return;
  for (const Address address : *addresses) require(address != 0, what);
}

/// The layout of a call whose sequences are in this order. lengths: [B] or null.
inline Layout layout_at(Index steps, Index B, int order, const Index* lengths) {
  require(steps >= 0 && B >= 0, "x");
  require(0 <= order && order <= static_cast<int>(Order::kPacked), "order");
  Layout layout{steps, B, static_cast<Order>(order), steps * B};
  if (lengths == nullptr) return layout;
  check_lengths(lengths, steps, B);
  if (layout.order != Order::kPacked) return layout;
  layout.rows = 0;
  for (Index b = 0; b < B; ++b) {
    require(b == 0 || lengths[b] <= lengths[b - 1], "lengths, which increase");
    layout.rows += lengths[b];
  }
  return layout;
}

template <class T>
ForwardCall<T> forward_call_at(const StackConfig& config, const Layout& layout, Address x,
                               Address lengths, const StateAddresses& initial, Address output,
                               const StateAddresses& final) {
  require(layout.rows == 0 || (x != 0 && output != 0), "x or output");
  require(final.has_value(), "final");
  ForwardCall<T> call;
  call.steps = layout.steps;
  call.B = layout.B;
  call.lengths = pointer<const Index>(lengths);
  call.x = layout.view(pointer<const T>(x), config.input_size);
  state_at(config, initial, "initial", call.state_0);
  call.output = layout.view(pointer<T>(output), config.merged_size());
  written_state_at(config, final, "final", call.state_n);
  return call;
}

/// The parameters of all cells, or their gradients. addresses: in the order of PyTorch's names.
template <class V>
std::vector<CellParams<V>> parameters_at(const StackConfig& config,
                                         const std::vector<Address>& addresses) {
  std::vector<CellParams<V>> cells(static_cast<std::size_t>(config.cells()));
  auto next = addresses.begin();
  for (std::size_t k = 0; k < cells.size(); ++k) {
    for (const auto& parameter :
         parameters_of<V>(config, static_cast<Index>(k) / config.directions())) {
      require(next != addresses.end(), "number of parameters");
      cells[k].*parameter.field = pointer<V>(*next++);
    }
  }
  require(next == addresses.end(), "number of parameters");
  return cells;
}

}  // namespace fastlstm::python

// What is done once with all values of some weights, by as many threads as that is worth.
#pragma once

#include <atomic>

#include "runtime/interrupt.hpp"
#include "runtime/thread_team.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

/// Calls body(k) for 0 <= k < n, each of so many values, on whichever thread is free. Throws what
/// interrupted it; then only some of the calls have been made.
template <class Body>
void for_each_item(Index n, Index values, const Body& body) {
  constexpr double kProductsPerValue = 8;  // as long as a value takes
  TeamLease team(
      threads_worth(kProductsPerValue * static_cast<double>(n) * static_cast<double>(values)));
  std::atomic<Index> next{0};
  team.run([&](int) noexcept {
    SmallItems asks;
    for (Index k; (k = next.fetch_add(1, std::memory_order_relaxed)) < n;) {
      if (asks.interrupted_before(values)) return;
      body(k);
    }
  });
}

}  // namespace fastlstm

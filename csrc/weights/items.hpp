// What is done once with all values of some weights, by as many threads as that is worth.
#pragma once

#include <atomic>

#include "runtime/interrupt.hpp"
#include "runtime/thread_team.hpp"
#include "runtime/tuning.hpp"
#include "schedule/thread_plan.hpp"

namespace fastlstm {

/// Calls body(k) for 0 <= k < n, each of so many values, on whichever thread is free. Throws what
/// interrupted it; then only some of the calls have been made.
template <class Body>
void for_each_item(Index n, Index values, const Body& body) {
  // A fourth of what a value takes: other threads sleep as a rule, and waking them takes a while.
  constexpr double kProductsPerValue = 2;
  const double products = kProductsPerValue * static_cast<double>(n) * static_cast<double>(values);
  // A small layer does not ask how many threads there are: that may be set after it was made.
  TeamLease team(products < 2 * tuning().products_per_thread ? 1 : threads_worth(products));
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

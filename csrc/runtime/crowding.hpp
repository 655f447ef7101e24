// How many threads have CPUs to meet on, by what waits at meetings have shown.
//
// Threads that meet at every step lose more by waiting for one that another process keeps from its
// CPU than that one gains them. Such a thread is late by a time slice, milliseconds. As many as
// were late are then given up, for a time in proportion to the wait; after it they are tried again.
// Where they are late again soon, the time doubles.
#pragma once

#include <chrono>

namespace fastlstm {

/// How many threads may meet at each step now: at most `wanted`, at least 1.
int threads_that_may_meet(int wanted) noexcept;

/// Of `threads` that met, `late` had not come when it was no longer brief, and the others have
/// waited so long.
void note_late_threads(int threads, int late, std::chrono::steady_clock::duration waited) noexcept;

/// Forgets all of it: for tests.
void forget_late_threads() noexcept;

}  // namespace fastlstm

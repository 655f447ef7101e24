// Regions on the threads of an OpenMP runtime that another library of the process computes with.
#pragma once

#include "fastlstm/runtime.hpp"

namespace fastlstm {

/// Whether regions of calls from this thread can run on OpenMP's threads now: they were asked for,
/// this is no child of a fork, which lacks them, and no region of OpenMP itself.
bool openmp_is_at_hand() noexcept;

/// Runs body(context, rank) on n of its threads, the caller's as rank 0. False where it gives
/// fewer; then nothing was run, and it is not at hand any more.
bool run_on_openmp(int n, void (*body)(void* context, int rank) noexcept, void* context) noexcept;

}  // namespace fastlstm

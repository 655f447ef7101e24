// What a call has around it while the core computes.
#pragma once

#include "interpreter.hpp"
#include "threads_of_context.hpp"

namespace fastlstm::python {

/// The context's number of threads, and not the interpreter's lock.
struct CoreCall {
  const ThreadsOfContext threads;
  const WithoutLock without_lock;
};

}  // namespace fastlstm::python

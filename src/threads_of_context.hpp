// The number of threads that Python's context allows, and whose: that of asyncio's task, or of the
// thread.
#pragma once

#include <pybind11/pybind11.h>

namespace fastlstm::python {

/// Where to look it up: a ContextVar of a tuple of lists, the blocks of `num_threads` that were
/// opened, the innermost last. A block's list has its number, and something more if calls are to
/// run on OpenMP's threads; or nothing once it has ended.
void set_threads_variable(const pybind11::object& variable);

/// Holds the core to that number for the time of a call from this thread. Made and destroyed with
/// the interpreter's lock or, destroyed, without.
class ThreadsOfContext {
 public:
  ThreadsOfContext();
  ~ThreadsOfContext();
  ThreadsOfContext(const ThreadsOfContext&) = delete;
  ThreadsOfContext& operator=(const ThreadsOfContext&) = delete;

 private:
  // A signal's handler may make a call within another.
  int threads_before_;
  bool openmp_before_;
};

}  // namespace fastlstm::python

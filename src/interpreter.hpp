// The interpreter's lock, and its main thread.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastlstm::python {

/// Without the interpreter's lock while it lives.
///
/// Once the interpreter ends it gives the lock to no thread but its own. Python up to 3.13 then
/// ends the thread that asks, as pthread_exit does: glibc unwinds its stack, which would end the
/// process in the first destructor (pybind11's gil_scoped_release is one), and release objects of
/// Python without the lock. So the thread stays here, as it does in Python 3.14, until the process
/// is gone.
class WithoutLock {
 public:
  WithoutLock() : thread_(PyEval_SaveThread()) {}
  ~WithoutLock() {
    try {
      PyEval_RestoreThread(thread_);
    } catch (...) {  // never left: glibc wants its unwinding to go on
      while (true) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
  WithoutLock(const WithoutLock&) = delete;
  WithoutLock& operator=(const WithoutLock&) = delete;

 private:
  PyThreadState* const thread_;
};

}  // namespace fastlstm::python

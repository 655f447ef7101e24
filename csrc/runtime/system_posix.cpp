// What Linux, macOS and other Unix have in common.
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <new>
#include <system_error>

#include "runtime/system.hpp"

namespace fastlstm {

void start_thread(std::size_t stack_bytes, void* (*start)(void*), void* argument) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) throw std::bad_alloc();
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, start, argument);
  pthread_attr_destroy(&attributes);
  if (error != 0) throw std::system_error(error, std::generic_category());
}

std::chrono::nanoseconds thread_cpu_time() noexcept {
  timespec time{};
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) return {};
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

long this_process() noexcept { return getpid(); }

int at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) noexcept {
  return pthread_atfork(before, in_parent, in_child);
}

}  // namespace fastlstm

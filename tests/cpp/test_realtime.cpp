// What a stream may not do once it is made: allocate, lock, throw, or ask the system for anything.
// Here the allocator and the locks are counted; tests/test_cpp_package.py looks at the system calls
// with strace, between two of getppid, and builds this with Clang's RealtimeSanitizer.
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#if defined(__unix__)
#include <unistd.h>
#endif

#include "check.hpp"
#include "package_models.hpp"

#if defined(__has_feature)
#if __has_feature(realtime_sanitizer)
#define REALTIME_SANITIZER
#endif
#endif

#if defined(REALTIME_SANITIZER)
#define NONBLOCKING [[clang::nonblocking]]
#else
#define NONBLOCKING
#endif

// Sanitizers have an allocator of their own.
#if defined(__GLIBC__) && !defined(REALTIME_SANITIZER) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define COUNTED

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <mutex>
#include <new>

namespace {

thread_local volatile long t_calls = 0;  // Clang thinks that allocations change nothing

/// The C library's pthread_mutex_lock. Not in a local static that is initialised when it is first
/// asked for: libc++abi guards one with a mutex.
int lock_mutex(pthread_mutex_t* mutex) {
  using Lock = int(pthread_mutex_t*);
  static std::atomic<Lock*> known{nullptr};
  Lock* lock = known.load(std::memory_order_relaxed);
  if (lock == nullptr) {
    lock = reinterpret_cast<Lock*>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
    known.store(lock, std::memory_order_relaxed);
  }
  return lock(mutex);
}

}  // namespace

// All of C++'s go through these.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(std::size_t);                 // NOLINT(bugprone-reserved-identifier)
void* __libc_calloc(std::size_t, std::size_t);    // NOLINT(bugprone-reserved-identifier)
void* __libc_realloc(void*, std::size_t);         // NOLINT(bugprone-reserved-identifier)
void* __libc_memalign(std::size_t, std::size_t);  // NOLINT(bugprone-reserved-identifier)
void __libc_free(void*);                          // NOLINT(bugprone-reserved-identifier)

void* malloc(std::size_t bytes) { return ++t_calls, __libc_malloc(bytes); }
void* calloc(std::size_t n, std::size_t bytes) { return ++t_calls, __libc_calloc(n, bytes); }
void* realloc(void* old, std::size_t bytes) { return ++t_calls, __libc_realloc(old, bytes); }
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return ++t_calls, __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  ++t_calls;
  *memory = __libc_memalign(alignment, bytes);
  return *memory != nullptr ? 0 : ENOMEM;
}
void free(void* memory) { ++t_calls, __libc_free(memory); }

int pthread_mutex_lock(pthread_mutex_t* mutex) { return ++t_calls, lock_mutex(mutex); }
}
#pragma GCC visibility pop
#endif

namespace {

/// Calls of the allocator and locks on this thread so far; always 0 where they are not counted.
long calls() {
#if defined(COUNTED)
  return t_calls;
#else
  return 0;
#endif
}

/// A mark that strace sees.
void mark() {
#if defined(__unix__) && !defined(REALTIME_SANITIZER)
  static_cast<void>(getppid());
#endif
}

template <class T>
struct Arrays {
  std::vector<T> x, output, state;
};

/// All that a stream does in real time.
template <class T>
void use(fastlstm::Stream<T>& stream, Arrays<T>& arrays) noexcept NONBLOCKING {
  stream.step(arrays.x.data(), arrays.output.data());
  stream.process(arrays.x.data(), arrays.output.data(), 3);
  stream.get_state(arrays.state.data());
  stream.set_state(arrays.state.data());
  stream.reset();
  stream.process(arrays.x.data(), arrays.output.data(), 2);
}

template <class T>
void check_stream(const Kind& kind, std::int64_t batch) {
  NOTE(kind.name << " " << kind.options << ", H = " << kind.H << ", batch " << batch);
  const auto stack = make_model<T>(kind).stack();
  fastlstm::Stream<T> stream(stack, batch);
  const auto size = [batch](std::int64_t n) { return static_cast<std::size_t>(n * batch); };
  Arrays<T> arrays{std::vector<T>(size(3 * stack.input_size()), T(0.5)),
                   std::vector<T>(size(3 * stack.output_size())),
                   std::vector<T>(static_cast<std::size_t>(stack.state_size(batch)))};
  for (const T value : {T(0.5), std::numeric_limits<T>::quiet_NaN(),
                        std::numeric_limits<T>::infinity(), std::numeric_limits<T>::denorm_min()}) {
    for (T& x : arrays.x) x = value;
    const long before = calls();
    mark();
    use(stream, arrays);
    mark();
    CHECK_EQUAL(calls(), before);
  }
}

static_assert(noexcept(std::declval<fastlstm::Stream<float>&>().step(nullptr, nullptr)));
static_assert(noexcept(std::declval<fastlstm::Stream<float>&>().process(nullptr, nullptr, 0)));
static_assert(noexcept(fastlstm_stream_step_f64(nullptr, nullptr, nullptr)));

}  // namespace

TEST(calls_are_counted) {
#if defined(COUNTED)
  const auto counted = [](auto body) {
    const long before = calls();
    body();
    return calls() > before;
  };
  std::vector<int>* volatile made = nullptr;  // or Clang leaves it out
  CHECK(counted([&] { made = new std::vector<int>(100); }));
  CHECK(counted([&] { delete made; }));
  constexpr std::align_val_t kLine{64};
  void* volatile line = nullptr;
  CHECK(counted([&] { line = ::operator new(100, kLine); }));
  CHECK(counted([&] { ::operator delete(line, kLine); }));
  std::mutex mutex;
  CHECK(counted([&] { mutex.lock(); }));
  mutex.unlock();
#endif
}

TEST(streams) {
  for (const Kind& kind : every_kind(3, 20)) {
    for (const std::int64_t batch : {1, 5}) {
      check_stream<float>(kind, batch);
      check_stream<double>(kind, batch);
    }
  }
}

// A step of so many products is divided among threads elsewhere.
TEST(large_layers) {
  fastlstm_set_num_threads(2);
  for (const Kind& kind : every_kind(8, 160)) check_stream<float>(kind, 4);
}

// Tests and checks. Each test program has check_main.cpp besides.
//
//   TEST(addition_works) {
//     for (int n : {1, 2}) {
//       NOTE("n = " << n);  // printed when a check below fails
//       CHECK(n + n == 2 * n);
//     }
//   }
//
// A failed check ends its test; the others still run. `program NAME...` runs only those tests,
// where NAME is a test's or, without its ending, that of a file of tests.
#pragma once

#include <cmath>
#include <exception>
#include <functional>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace check {

struct Failure {};

struct Test {
  std::string name, file;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

/// path: of the test's file.
inline bool add(const char* name, const std::string& path, void (*run)()) {
  const std::size_t first = path.find_last_of('/') + 1;
  tests().push_back({name, path.substr(first, path.find_last_of('.') - first), run});
  return true;
}

/// The notes of the enclosing scopes: text is made only when a check fails.
inline std::vector<std::function<void(std::ostream&)>>& notes() {
  static std::vector<std::function<void(std::ostream&)>> list;
  return list;
}

struct Note {
  explicit Note(std::function<void(std::ostream&)> print) { notes().push_back(std::move(print)); }
  ~Note() { notes().pop_back(); }
  Note(const Note&) = delete;
  Note& operator=(const Note&) = delete;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::cout << file << ":" << line << ": failed: " << what << "\n";
  for (const auto& print : notes()) {
    std::cout << "  with ";
    print(std::cout);
    std::cout << "\n";
  }
  throw Failure();
}

template <class A, class B>
std::string differ(const char* text, const A& got, const B& want) {
  std::ostringstream s;
  s.precision(17);
  s << text << ": got " << got << ", want " << want;
  return s.str();
}

inline int run(int count, char** names) {
  int passed = 0, failed = 0;
  for (const Test& test : tests()) {
    bool chosen = count < 2;
    for (int k = 1; k < count; ++k) chosen |= names[k] == test.name || names[k] == test.file;
    if (!chosen) continue;
    bool good = false;
    try {
      test.run();
      good = true;
    } catch (const Failure&) {
    } catch (const std::exception& error) {
      std::cout << "unexpected exception: " << error.what() << "\n";
    }
    ++(good ? passed : failed);
    std::cout << (good ? "ok      " : "FAILED  ") << test.name << std::endl;
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed > 0 || passed == 0 ? 1 : 0;
}

}  // namespace check

#define TEST(name)                                                    \
  static void name();                                                 \
  static const bool name##_added = check::add(#name, __FILE__, name); \
  static void name()

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)

/// NOTE(a << b << ...): says where a failure happened, until the end of the scope.
#define NOTE(text) \
  const check::Note CHECK_JOIN(note_, __LINE__)([&](std::ostream& note_) { note_ << text; })

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) check::fail(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_EQUAL(got, want)                                                        \
  do {                                                                                \
    const auto got_ = (got);                                                          \
    const auto want_ = (want);                                                        \
    if (!(got_ == want_)) {                                                           \
      check::fail(__FILE__, __LINE__, check::differ(#got " == " #want, got_, want_)); \
    }                                                                                 \
  } while (false)

/// |got - want| <= tolerance; a NaN is close to nothing.
#define CHECK_CLOSE(got, want, tolerance)                                                   \
  do {                                                                                      \
    const auto got_ = (got);                                                                \
    const auto want_ = (want);                                                              \
    if (!(std::abs(got_ - want_) <= (tolerance))) {                                         \
      check::fail(__FILE__, __LINE__, check::differ(#got " close to " #want, got_, want_)); \
    }                                                                                       \
  } while (false)

#define CHECK_THROWS(expression, Exception)                                                  \
  do {                                                                                       \
    bool thrown_ = false;                                                                    \
    try {                                                                                    \
      static_cast<void>(expression);                                                         \
    } catch (const Exception&) {                                                             \
      thrown_ = true;                                                                        \
    }                                                                                        \
    if (!thrown_) check::fail(__FILE__, __LINE__, #expression " did not throw " #Exception); \
  } while (false)

// A reader of JSON text, for what stands in files: it goes once through the text and keeps nothing,
// so that no text makes it take memory or recurse deeper than the code that calls it.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// A file or text that is damaged, or says what cannot be.
struct BadFile : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a file says is clear, but this version does not compute it.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A name from a file as it can stand in a message: short, and of printable characters.
std::string shown(std::string_view name);

/// Each call reads the next value, which must be of its kind: otherwise it throws BadFile.
class JsonReader {
 public:
  /// The text must outlive the reader.
  explicit JsonReader(std::string_view text) : text_(text) {}

  /// What kind the next value is: one of { [ " n t 0, where t is either truth and 0 any number.
  char next_kind();

  /// Calls member(name), which reads the value, for each member of an object.
  template <class Member>
  void object(const Member& member) {
    expect('{');
    for (bool first = true; !ends('}', first); first = false) {
      const std::string name = string();
      expect(':');
      member(name);
    }
  }

  /// Calls element(), which reads it, for each element of an array.
  template <class Element>
  void array(const Element& element) {
    expect('[');
    for (bool first = true; !ends(']', first); first = false) element();
  }

  std::string string();  // in UTF-8
  double number();
  Index integer();
  bool boolean();
  void null();
  /// Nothing stands behind what was read.
  void end();

 private:
  [[noreturn]] void fail(const char* expected) const;
  void skip_space();
  char peek();
  void expect(char wanted);
  /// Whether an object or array ends here; otherwise the comma before its next item is read.
  bool ends(char closing, bool first);
  void literal(std::string_view word);
  unsigned hexadecimal();
  unsigned escaped_character();
  /// The text of the next number, by JSON's grammar.
  std::string_view digits();

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace fastlstm

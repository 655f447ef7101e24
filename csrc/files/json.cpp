#include "files/json.hpp"

#include <limits>
#include <locale>
#include <sstream>

namespace fastlstm {

namespace {

bool is_digit(char c) { return '0' <= c && c <= '9'; }

void append_utf8(unsigned code, std::string& text) {
  const auto add = [&text](unsigned byte) { text += static_cast<char>(byte); };
  const auto add_rest = [&](int bits) { add(0x80 | ((code >> bits) & 0x3f)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | (code >> 6));
    add_rest(0);
  } else if (code < 0x10000) {
    add(0xe0 | (code >> 12));
    add_rest(6);
    add_rest(0);
  } else {
    add(0xf0 | (code >> 18));
    add_rest(12);
    add_rest(6);
    add_rest(0);
  }
}

}  // namespace

std::string shown(std::string_view name) {
  constexpr std::size_t kMost = 60;
  std::string text = "'";
  for (const char c : name.substr(0, kMost)) text += ' ' <= c && c <= '~' ? c : '?';
  return text + (name.size() > kMost ? "...'" : "'");
}

void JsonReader::fail(const char* expected) const {
  throw BadFile("expected " + std::string(expected) + " at character " + std::to_string(at_) +
                " of its text");
}

void JsonReader::skip_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
    ++at_;
  }
}

char JsonReader::peek() {
  skip_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

char JsonReader::next_kind() {
  const char c = peek();
  if (c == 't' || c == 'f') return 't';
  if (c == '-' || is_digit(c)) return '0';
  if (c != '{' && c != '[' && c != '"' && c != 'n') fail("a value");
  return c;
}

void JsonReader::expect(char wanted) {
  const char text[] = {wanted, '\0'};
  if (peek() != wanted) fail(text);
  ++at_;
}

bool JsonReader::ends(char closing, bool first) {
  if (peek() == closing) {
    ++at_;
    return true;
  }
  if (!first) {
    expect(',');
    if (peek() == closing) fail("a value");
  }
  return false;
}

unsigned JsonReader::hexadecimal() {
  unsigned code = 0;
  for (int k = 0; k < 4; ++k, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    unsigned digit = 0;
    if (is_digit(c)) {
      digit = static_cast<unsigned>(c - '0');
    } else if ('a' <= c && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else if ('A' <= c && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else {
      fail("four hexadecimal digits");
    }
    code = code * 16 + digit;
  }
  return code;
}

unsigned JsonReader::escaped_character() {
  const char c = at_ < text_.size() ? text_[at_++] : '\0';
  switch (c) {
    case '"':
    case '\\':
    case '/':
      return static_cast<unsigned>(c);
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'u':
      break;
    default:
      fail("an escaped character");
  }
  const unsigned code = hexadecimal();
  if (code < 0xd800 || code >= 0xe000) return code;
  if (code >= 0xdc00 || text_.substr(at_, 2) != "\\u") fail("a pair of surrogates");
  at_ += 2;
  const unsigned low = hexadecimal();
  if (low < 0xdc00 || low >= 0xe000) fail("a pair of surrogates");
  return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

std::string JsonReader::string() {
  expect('"');
  std::string text;
  while (at_ < text_.size()) {
    const char c = text_[at_++];
    if (c == '"') return text;
    if (c == '\\') {
      append_utf8(escaped_character(), text);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fail("no control character");
    } else {
      text += c;
    }
  }
  fail("the end of a string");
}

std::string_view JsonReader::digits() {
  skip_space();
  const std::size_t start = at_;
  const auto has = [this](char c) { return at_ < text_.size() && text_[at_] == c; };
  const auto some_digits = [this] {
    const std::size_t first = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    if (at_ == first) fail("a number");
  };
  if (has('-')) ++at_;
  if (has('0')) {
    ++at_;
  } else {
    some_digits();
  }
  if (has('.')) {
    ++at_;
    some_digits();
  }
  if (has('e') || has('E')) {
    ++at_;
    if (has('+') || has('-')) ++at_;
    some_digits();
  }
  return text_.substr(start, at_ - start);
}

double JsonReader::number() {
  constexpr std::size_t kMost = 400;  // digits; longer ones are nobody's
  const std::string_view text = digits();
  if (text.size() > kMost) fail("a shorter number");
  // Not strtod, which asks the user's locale for the decimal point.
  std::istringstream stream{std::string(text)};
  stream.imbue(std::locale::classic());
  double value = 0;
  if (!(stream >> value)) fail("a number that a double holds");
  return value;
}

Index JsonReader::integer() {
  const std::string_view text = digits();
  const bool negative = text.front() == '-';
  Index value = 0;
  for (const char c : text.substr(negative ? 1 : 0)) {
    if (!is_digit(c) || value > std::numeric_limits<Index>::max() / 10 - 1) {
      fail("an integer of 63 bits");
    }
    value = value * 10 + (c - '0');
  }
  return negative ? -value : value;
}

void JsonReader::literal(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) fail("true, false or null");
  at_ += word.size();
}

bool JsonReader::boolean() {
  const bool value = peek() == 't';
  literal(value ? "true" : "false");
  return value;
}

void JsonReader::null() {
  skip_space();
  literal("null");
}

void JsonReader::end() {
  skip_space();
  if (at_ != text_.size()) fail("nothing more");
}

}  // namespace fastlstm

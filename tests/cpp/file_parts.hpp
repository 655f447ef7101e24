// Safetensors files of parts: a header's text, and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

/// A safetensors file.
inline std::string file_of(const std::string& header, const std::string& values) {
  std::string file;
  for (int k = 0; k < 8; ++k) {
    file += static_cast<char>((static_cast<std::uint64_t>(header.size()) >> (8 * k)) & 0xff);
  }
  return file + header + values;
}

inline std::string quoted(const std::string& text) {
  std::string all = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') all += '\\';
    if (c == '\n') {
      all += "\\n";
    } else {
      all += c;
    }
  }
  return all + '"';
}

/// A file's header and values.
inline std::pair<std::string, std::string> parts_of(const std::string& file) {
  std::size_t length = 0;
  for (std::size_t k = 0; k < 8; ++k) {
    length |= static_cast<std::size_t>(static_cast<unsigned char>(file[k])) << (8 * k);
  }
  return {file.substr(8, length), file.substr(8 + length)};
}

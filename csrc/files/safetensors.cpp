#include "files/safetensors.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>

namespace fastlstm {

namespace {

constexpr Index kMostShape = 64;
constexpr Index kMostValues = Index{1} << 60;
// Its names and places take up to eight times as much; a layer's is a few kilobytes.
constexpr std::size_t kMostHeader = 10'000'000;

/// Bytes of one value; 0 for a type that is not known: its tensors are not read.
Index bytes_of(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64" || dtype == "C64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "BOOL" || dtype == "I8" || dtype == "U8" || dtype.substr(0, 3) == "F8_") return 1;
  return 0;
}

/// The number of values; -1 where it is none.
Index values_in(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index size : shape) {
    if (size < 0 || size > kMostValues || (size > 0 && n > kMostValues / size)) return -1;
    n *= size;
  }
  return n;
}

/// A tensor's entry in the header; data: all that stands behind the header.
Tensor read_tensor(JsonReader& json, const std::string& name, std::string_view data) {
  Tensor tensor{name, {}, {}, {}};
  std::vector<Index> place;
  bool has_shape = false;
  const auto sizes = [&json](std::vector<Index>& to, Index most) {
    json.array([&] {
      to.push_back(json.integer());
      if (static_cast<Index>(to.size()) > most) throw BadFile("too many numbers for a tensor");
    });
  };
  json.object([&](const std::string& key) {
    if (key == "dtype" && tensor.dtype.empty()) {
      tensor.dtype = json.string();
    } else if (key == "shape" && !has_shape) {
      sizes(tensor.shape, kMostShape);
      has_shape = true;
    } else if (key == "data_offsets" && place.empty()) {
      sizes(place, 2);
    } else {
      throw BadFile(shown(name) + ": unexpected " + shown(key));
    }
  });
  const Index values = values_in(tensor.shape);
  if (tensor.dtype.empty() || !has_shape || place.size() != 2) {
    throw BadFile(shown(name) + ": expected dtype, shape and data_offsets");
  }
  if (values < 0 || place[0] < 0 || place[0] > place[1] ||
      place[1] > static_cast<Index>(data.size())) {
    throw BadFile(shown(name) + ": its shape or place is none");
  }
  const Index bytes = place[1] - place[0], each = bytes_of(tensor.dtype);
  if (each > 0 && (bytes % each != 0 || bytes / each != values)) {
    throw BadFile(shown(name) + ": its bytes are not those of its shape");
  }
  tensor.bytes = data.substr(static_cast<std::size_t>(place[0]), static_cast<std::size_t>(bytes));
  return tensor;
}

/// One after the other, without gaps: nothing hides, and nothing is there twice.
void check_places(const std::vector<Tensor>& tensors, std::string_view data) {
  std::vector<std::string_view> places;
  places.reserve(tensors.size());
  for (const Tensor& tensor : tensors) places.push_back(tensor.bytes);
  std::sort(places.begin(), places.end(), [](std::string_view a, std::string_view b) {
    return std::pair(a.data(), a.size()) < std::pair(b.data(), b.size());
  });
  const char* end = data.data();
  for (const std::string_view place : places) {
    if (place.data() != end) throw BadFile("its tensors do not follow one another");
    end += place.size();
  }
  if (end != data.data() + data.size()) throw BadFile("its end is none of its tensors'");
}

void check_names(const std::vector<Tensor>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const Tensor& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) throw BadFile(shown(*twice) + " stands in its header twice");
}

float of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  std::uint32_t exponent = (half >> 10) & 0x1f, fraction = half & 0x3ff, bits = 0;
  if (exponent == 0x1f) {  // infinity and NaN
    bits = 0x7f800000 | (fraction << 13);
  } else if (exponent > 0) {
    bits = ((exponent + 112) << 23) | (fraction << 13);
  } else if (fraction > 0) {  // a denormal number, which is normal as a float
    for (exponent = 113; (fraction & 0x400) == 0; --exponent) fraction <<= 1;
    bits = (exponent << 23) | ((fraction & 0x3ff) << 13);
  }
  bits |= sign;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float of_bfloat16(std::uint16_t upper) {
  const std::uint32_t bits = static_cast<std::uint32_t>(upper) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Values stored as S, each made a T by convert.
template <class T, class S, class Convert>
std::vector<T> converted(std::string_view bytes, Convert convert) {
  std::vector<T> values(bytes.size() / sizeof(S));
  for (std::size_t k = 0; k < values.size(); ++k) {
    S stored;
    std::memcpy(&stored, bytes.data() + k * sizeof(S), sizeof(S));
    values[k] = static_cast<T>(convert(stored));
  }
  return values;
}

}  // namespace

Safetensors parse_safetensors(std::string_view bytes) {
  std::uint64_t length = 0;
  for (std::size_t k = 0; k < 8 && k < bytes.size(); ++k) {
    length |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[k])) << (8 * k);
  }
  if (bytes.size() < 9 || bytes[8] != '{' || length > bytes.size() - 8) {
    throw BadFile("not a safetensors file: it does not begin with a header");
  }
  if (length > kMostHeader) throw BadFile("its header is larger than 10 MB");
  const std::string_view data = bytes.substr(8 + static_cast<std::size_t>(length));
  JsonReader json(bytes.substr(8, static_cast<std::size_t>(length)));
  Safetensors file;
  bool has_metadata = false;
  json.object([&](const std::string& name) {
    if (name != "__metadata__") {
      file.tensors.push_back(read_tensor(json, name, data));
      return;
    }
    if (std::exchange(has_metadata, true)) throw BadFile("it has metadata twice");
    json.object([&](const std::string& key) {
      std::string text = json.string();
      if (key != "fastlstm") return;
      if (file.fastlstm) throw BadFile("it has two configurations");
      file.fastlstm = std::move(text);
    });
  });
  json.end();
  check_names(file.tensors);
  check_places(file.tensors, data);
  return file;
}

std::vector<char> read_file(const std::string& path) {
  const auto fail = [&path] {
    throw NotReadable(path + ": " + std::generic_category().message(errno));
  };
  struct Close {
    void operator()(std::FILE* file) const { static_cast<void>(std::fclose(file)); }
  };
  errno = 0;
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) fail();
  std::vector<char> bytes;
  // Its size, where it has one, so that it is not copied as it grows.
  if (std::fseek(file.get(), 0, SEEK_END) == 0) {
    const long size = std::ftell(file.get());
    if (size > 0 && size < std::numeric_limits<long>::max()) {
      bytes.reserve(static_cast<std::size_t>(size));
    }
    static_cast<void>(std::fseek(file.get(), 0, SEEK_SET));
  }
  char part[1 << 12];
  errno = 0;
  for (std::size_t n = 0; (n = std::fread(part, 1, sizeof part, file.get())) > 0;) {
    bytes.insert(bytes.end(), part, part + n);
  }
  if (std::ferror(file.get()) != 0) fail();
  return bytes;
}

template <class T>
const T* values_of(const Tensor& tensor, std::vector<std::vector<T>>& kept) {
  constexpr bool kDouble = std::is_same_v<T, double>;
  const std::string_view bytes = tensor.bytes;
  if (tensor.dtype == (kDouble ? "F64" : "F32")) {
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0) {
      return reinterpret_cast<const T*>(bytes.data());
    }
    kept.push_back(converted<T, T>(bytes, [](T value) { return value; }));
  } else if (kDouble && tensor.dtype == "F32") {
    kept.push_back(converted<T, float>(bytes, [](float value) { return value; }));
  } else if (!kDouble && tensor.dtype == "F16") {
    kept.push_back(converted<T, std::uint16_t>(bytes, of_half));
  } else if (!kDouble && tensor.dtype == "BF16") {
    kept.push_back(converted<T, std::uint16_t>(bytes, of_bfloat16));
  } else {
    throw Unsupported(shown(tensor.name) + ": expected " +
                      (kDouble ? "F64 or F32" : "F32, F16 or BF16") + ", got " +
                      shown(tensor.dtype));
  }
  return kept.back().data();
}

template const float* values_of<float>(const Tensor&, std::vector<std::vector<float>>&);
template const double* values_of<double>(const Tensor&, std::vector<std::vector<double>>&);

}  // namespace fastlstm

#include "weights/hash.hpp"

#include <cstring>

namespace fastlstm {

template <class T>
std::uint64_t hash_of(const T* values, Index n, std::uint64_t hash) {
  for (Index k = 0; k < n; ++k) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, values + k, sizeof(T));
    hash += bits;
    hash ^= hash >> 29;
    hash *= 0x9E3779B97F4A7C15;
  }
  return hash;
}

template std::uint64_t hash_of(const float*, Index, std::uint64_t);
template std::uint64_t hash_of(const double*, Index, std::uint64_t);

}  // namespace fastlstm

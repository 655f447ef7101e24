// Hashes of values.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

std::uint64_t mixed(std::uint64_t hash, std::uint64_t word) {
  hash += word;
  hash ^= hash >> kHashShift;
  return hash * kHashFactor;
}

/// What kernels/hash_bytes.hpp says, for vectors of so many words.
template <class T>
std::uint64_t naive_hash(const std::vector<T>& values, std::uint64_t before, std::size_t words) {
  const std::size_t lanes = kHashVectors * words, bytes = values.size() * sizeof(T);
  std::vector<std::uint64_t> all((bytes + 8 * lanes - 1) / (8 * lanes) * lanes);
  if (bytes > 0) std::memcpy(all.data(), values.data(), bytes);
  std::uint64_t hash = bytes;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    std::uint64_t of_lane = mixed(before, lane);
    for (std::size_t k = lane; k < all.size(); k += lanes) of_lane = mixed(of_lane, all[k]);
    hash = mixed(hash, of_lane);
  }
  return hash;
}

template <class T>
std::uint64_t hash_of(const KernelTable<T>& table, const std::vector<T>& values,
                      std::uint64_t before = 0) {
  const Guarded<T> guarded(values);
  table.hash_bytes({static_cast<Index>(values.size() * sizeof(T)), guarded.data(), &before});
  return before;
}

}  // namespace

KERNEL_TEST(hash_bytes) {
  const auto words = static_cast<std::size_t>(table.lanes) * sizeof(T) / 8;
  for (const Index n : {0, 1, 2, 3, 15, 16, 17, 127, 128, 129, 255, 256, 257, 1000}) {
    NOTE("n = " << n);
    const std::vector<T> values = Random(static_cast<unsigned>(n)).values<T>(n, -1, 1);
    for (const std::uint64_t before : {std::uint64_t{0}, ~std::uint64_t{0} / 3}) {
      CHECK_EQUAL(hash_of(table, values, before), naive_hash(values, before, words));
    }
  }
}

// Of all values: one bit, two that change places, two signs, two values that are moved; a value
// more, zeros and negative zeros.
TABLE_TEST(changes_that_a_hash_finds) {
  const std::size_t n = 300;
  const std::vector<T> values = Random(3).values<T>(n, -1, 1);
  const std::uint64_t hash = hash_of(table, values);
  const auto found = [&](const std::vector<T>& changed) { return hash_of(table, changed) != hash; };
  CHECK(!found(values));
  for (std::size_t k = 0; k < n; ++k) {
    NOTE("k = " << k);
    for (std::size_t bit = 0; bit < 8 * sizeof(T); ++bit) {
      std::vector<T> changed = values;
      reinterpret_cast<unsigned char*>(&changed[k])[bit / 8] ^=
          static_cast<unsigned char>(1 << bit % 8);
      CHECK(found(changed));
    }
    for (std::size_t other = k + 1; other < n; ++other) {
      NOTE("and " << other);
      std::vector<T> changed = values;
      std::swap(changed[k], changed[other]);
      CHECK(found(changed));
      changed = values;
      changed[k] = -changed[k];
      changed[other] = -changed[other];
      CHECK(found(changed));
      changed = values;
      changed[k] += T(0.25);
      changed[other] -= T(0.25);
      CHECK(found(changed));
    }
  }
  std::vector<T> changed = values;
  for (T& value : changed) value = -value;
  CHECK(found(changed));
  for (const std::ptrdiff_t width : {1, 4, 16, 64, 100}) {  // rows that change places
    changed = values;
    std::swap_ranges(changed.begin(), changed.begin() + width, changed.begin() + width);
    CHECK(found(changed));
  }
  changed = values;
  changed.push_back(T(0));
  CHECK(found(changed));
  CHECK(hash_of(table, std::vector<T>(n, T(0))) != hash_of(table, std::vector<T>(n, -T(0))));
  CHECK(hash_of(table, std::vector<T>(n, T(0))) != hash_of(table, std::vector<T>(n + 1, T(0))));
}

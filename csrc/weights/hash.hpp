// Hashes of parameters, for finding out whether any of their bytes have changed.
#pragma once

#include <cstdint>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// A hash of n values and where they stand, going on from another. Every change of one bit changes
/// it.
template <class T>
std::uint64_t hash_of(const T* values, Index n, std::uint64_t hash);

}  // namespace fastlstm

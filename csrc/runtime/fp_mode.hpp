// The floating-point mode inside a call.
#pragma once

#include "runtime/compiler.hpp"

namespace fastlstm {

/// The default mode while it lives, but denormals are zero; restores the caller's afterwards.
/// Decaying states otherwise slow a step down 18 to 27 times. The caller's own rounding and traps
/// would be those of its thread only, or of all workers that it starts.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

#if defined(__SSE2__) || defined(_M_X64)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(kDefault | kFlushToZero | kZeroDenormals); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // to nearest, nothing traps
  static constexpr unsigned kFlushToZero = 0x8000;
  static constexpr unsigned kZeroDenormals = 0x0040;
  unsigned before_;
#elif defined(FASTLSTM_AARCH64)
  FlushDenormals() : before_(floating_point_control()) { set_floating_point_control(kFlushToZero); }
  ~FlushDenormals() { set_floating_point_control(before_); }

 private:
  static constexpr unsigned long kFlushToZero = 1ul << 24;
  unsigned long before_;
#else
  FlushDenormals() = default;
#endif
};

}  // namespace fastlstm

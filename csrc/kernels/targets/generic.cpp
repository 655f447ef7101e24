// The target for any CPU: vectors of 16 bytes, which every x86-64 and ARM64 CPU has.
#define FASTLSTM_TARGET generic
#define FASTLSTM_VECTOR_BYTES 16
#include "kernels/target.hpp"

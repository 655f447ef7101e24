// The AVX-512 target's shapes - vectors of 64 bytes, tiles of 6 rows - for any CPU: the compiler
// makes such a vector of what it has. It tests the same kernels where no CPU with AVX-512 is at
// hand; what it cannot test is the compiler's AVX-512 code.
#define FASTLSTM_TARGET wide
#define FASTLSTM_VECTOR_BYTES 64
#include "kernels/target.hpp"

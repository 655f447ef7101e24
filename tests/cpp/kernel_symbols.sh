#!/bin/bash
# Checks the objects of the kernel targets in a library: each may define its tables and nothing
# else that the linker sees. A weak or shared function compiled for AVX-512 could otherwise become
# the one copy that every CPU runs.
#
#   kernel_symbols.sh NM LIBRARY TARGET...
set -euo pipefail

nm=$1 library=$2
shift 2

failed=0
for target in "$@"; do
  # Lines such as "libfastlstm.a:avx2.cpp.o:0000000000000000 R fastlstm::avx2::float32_kernels", or
  # with a space before the address (LLVM's nm).
  symbols=$("$nm" --demangle --print-file-name --defined-only --extern-only "$library" |
    grep -F ":$target.cpp.o:" | sed -E 's/^[^ ]*: ?[0-9a-f]* //' | sort)
  # Tables of addresses are read-only (R) or relocated when loaded (D).
  others=$(grep -vE "^[RD] fastlstm::$target::[a-z0-9_]+_kernels$" <<<"$symbols" || true)
  if [[ -z $symbols || -n $others ]]; then
    printf '%s.cpp.o should define its tables alone, but defines\n%s\n' "$target" "$symbols"
    failed=1
  fi
done
exit $failed

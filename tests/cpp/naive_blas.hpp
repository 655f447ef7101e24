// A BLAS for the tests, as plain as can be: the core links none.
//
// Each element of C depends on its own row of A and column of B alone and is summed in one order,
// so results have the same bits however many rows a product has.
#pragma once

#include <cstddef>

#include "fastlstm/runtime.hpp"

template <class T>
void naive_gemm(char* transa, char* transb, int* m, int* n, int* k, T* alpha, T* a, int* lda, T* b,
                int* ldb, T* beta, T* c, int* ldc) {
  const auto at = [](int row, int column, int ld) {
    return static_cast<std::size_t>(column) * static_cast<std::size_t>(ld) +
           static_cast<std::size_t>(row);
  };
  for (int column = 0; column < *n; ++column) {
    for (int row = 0; row < *m; ++row) {
      T sum = 0;
      for (int l = 0; l < *k; ++l) {
        const T left = *transa == 'N' ? a[at(row, l, *lda)] : a[at(l, row, *lda)];
        const T right = *transb == 'N' ? b[at(l, column, *ldb)] : b[at(column, l, *ldb)];
        sum += left * right;
      }
      T& to = c[at(row, column, *ldc)];
      to = *alpha * sum + (*beta == 0 ? T(0) : *beta * to);  // C is not read where beta is 0
    }
  }
}

inline fastlstm::BlasTable naive_blas() {
  fastlstm::BlasTable table;
  table.sgemm = naive_gemm<float>;
  table.dgemm = naive_gemm<double>;
  return table;
}

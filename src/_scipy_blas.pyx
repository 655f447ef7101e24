# cython: freethreading_compatible=True
"""The addresses of SciPy's BLAS, for the core. Importing this imports scipy.linalg (about 0.5 s)."""

cimport scipy.linalg.cython_blas as blas


def addresses():
    """The functions' names and addresses."""
    return {"sgemm": <size_t>blas.sgemm, "dgemm": <size_t>blas.dgemm}

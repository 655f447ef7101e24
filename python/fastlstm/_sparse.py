"""Gradients of which most rows are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._checks import MOST_SIZE, FloatArray, IndexArray, as_int, check_shape, to_numpy


class SparseRows:
    """Some rows of a matrix: of a gradient whose other rows are zero, or of new values.

    Parameters
    ----------
    indices : array_like of int, (n,)
        Which rows, ascending, each once.
    values : ndarray of float32 or float64, (n, D)
        These rows.
    num_rows : int
        Of the whole matrix.

    Raises
    ------
    ValueError, TypeError
        The indices are not ascending rows of the matrix, or the values have another shape or type.

    Examples
    --------
    >>> rows = SparseRows([0, 2], np.ones((2, 3)), num_rows=4)
    >>> rows
    SparseRows(2 of 4 rows, 3 columns, float64)
    >>> rows.to_dense()[:, 0]
    array([1., 0., 1., 0.])
    """

    # An array's `+` with these is ours to refuse: NumPy would add them to each element.
    __array_ufunc__ = None

    def __init__(self, indices: npt.ArrayLike, values: npt.ArrayLike, num_rows: int) -> None:
        rows = as_int("num_rows", num_rows, 0, MOST_SIZE)
        places = to_numpy("indices", indices)
        if places.size == 0:
            places = places.astype(np.int64)
        if places.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got an array of {places.dtype}")
        check_shape("indices", places, ("n",))
        array = np.asarray(values)
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"values: expected float32 or float64, got {array.dtype}")
        check_shape("values", array, (len(places), "D"))
        self._indices: IndexArray = places.astype(np.int64)
        if len(places) and (
            self._indices[0] < 0 or self._indices[-1] >= rows or (np.diff(self._indices) <= 0).any()
        ):
            raise ValueError(f"indices: expected ascending rows of {rows}, each once")
        self._values = np.ascontiguousarray(array)
        self._num_rows = rows

    @property
    def indices(self) -> IndexArray:
        """(n,): which rows, ascending."""
        return self._indices

    @property
    def values(self) -> FloatArray:
        """(n, D): these rows."""
        return self._values

    @property
    def shape(self) -> tuple[int, int]:
        """Of the whole matrix."""
        return self._num_rows, self._values.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self._values.dtype

    def __repr__(self) -> str:
        n, (rows, columns) = len(self.indices), self.shape
        return f"SparseRows({n} of {rows} rows, {columns} columns, {self.dtype})"

    def __add__(self, other: SparseRows) -> SparseRows:
        """Return the sum of two gradients of one matrix."""
        if not isinstance(other, SparseRows):
            return NotImplemented
        if (other.shape, other.dtype) != (self.shape, self.dtype):
            raise ValueError(f"expected {self.dtype} {self.shape}, got {other.dtype} {other.shape}")
        return sum_of_rows(
            np.concatenate([self.indices, other.indices]),
            np.concatenate([self.values, other.values]),
            self.shape[0],
        )

    def with_values(self, values: FloatArray) -> SparseRows:
        """Return the same rows with other values of their shape."""
        check_shape("values", values, self.values.shape)
        return _made(self._indices, values, self._num_rows)

    def to_dense(self) -> FloatArray:
        """Return the whole matrix, with zeros for the other rows."""
        dense = np.zeros(self.shape, self.dtype)
        dense[self.indices] = self.values
        return dense


def _made(indices: IndexArray, values: FloatArray, num_rows: int) -> SparseRows:
    """Rows that are known to be right."""
    rows = object.__new__(SparseRows)
    rows._indices, rows._values, rows._num_rows = indices, values, num_rows
    return rows


def sum_of_rows(indices: IndexArray, values: FloatArray, num_rows: int) -> SparseRows:
    """Return the sums of the values of each row: (n,) indices in any order, (n, D) values.

    The bits depend on the order of equal indices alone. ``np.add.at``, which does the same, takes
    several times as long.
    """
    # Sorted with their places in the lower bits: NumPy's quickest sort, and equal ones in order.
    keys = np.sort((indices << 32) | np.arange(len(indices)))
    order = keys & 0xFFFFFFFF
    rows = keys >> 32
    begins = np.ones(len(rows) + 1, np.bool_)  # of a row; and the end
    np.not_equal(rows[1:], rows[:-1], out=begins[1:-1])
    first = np.flatnonzero(begins)
    sums = np.empty((len(first) - 1, values.shape[1]), values.dtype)
    _core.sum_rows(np.ascontiguousarray(values), first, order, sums)
    return _made(rows[first[:-1]], sums, num_rows)

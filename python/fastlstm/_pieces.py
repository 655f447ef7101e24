"""Large arrays in pieces, between which a signal's handler can run: NumPy lets none in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_AT_ONCE = 1 << 20  # numbers


def pieces_of(array: npt.NDArray[Any]) -> Iterator[Any]:
    """Indices of rows of a few megabytes; one of all where there are no more."""
    if array.size <= _AT_ONCE:
        yield ...
        return
    rows = max(1, _AT_ONCE * len(array) // array.size)
    for first in range(0, len(array), rows):
        yield slice(first, first + rows)


def copied(array: npt.NDArray[Any], dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:
    """Return a C-contiguous copy, of another type if one is given."""
    copy = np.empty(array.shape, array.dtype if dtype is None else dtype)
    for rows in pieces_of(array):
        copy[rows] = array[rows]
    return copy

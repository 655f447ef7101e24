"""What the losses and decoders over sequences share: how their arguments lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm._checks import (
    FloatArray,
    IndexArray,
    as_float_array,
    as_lengths,
    check_shape,
    to_numpy,
)


class Sequences(NamedTuple):
    """Values of each step of sequences: (T, B, n), or (B, T, n) with ``batch_first``."""

    values: FloatArray
    lengths: IndexArray | None
    batch_first: bool

    @property
    def T(self) -> int:
        """The number of steps of the longest sequence that there is room for."""
        return int(self.values.shape[1 if self.batch_first else 0])

    @property
    def B(self) -> int:
        """The number of sequences."""
        return int(self.values.shape[0 if self.batch_first else 1])

    @property
    def step_shape(self) -> tuple[int, int]:
        """(T, B), or (B, T): the shape of one number a step."""
        return (self.values.shape[0], self.values.shape[1])

    def all_lengths(self) -> IndexArray:
        """(B,): of each sequence."""
        return np.full(self.B, self.T, np.int64) if self.lengths is None else self.lengths

    def inside(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Of the step shape: whether a step is before its sequence's end."""
        inside = np.arange(self.T)[:, None] < self.all_lengths()
        return inside.T if self.batch_first else inside


def as_sequences(
    name: str, values: Any, width: int | str, lengths: Any, batch_first: bool, dtype: Any = None
) -> Sequences:
    """Check values of sequences, with `width` numbers a step; dtype None: float32 or float64."""
    if dtype is None:
        values = to_numpy(name, values)
        dtype = np.dtype(np.float32 if values.dtype == np.float32 else np.float64)
    array = as_float_array(name, values, dtype)
    check_shape(name, array, ("B", "T", width) if batch_first else ("T", "B", width))
    sequences = Sequences(array, None, batch_first)
    if lengths is not None:
        lengths = as_lengths(lengths, sequences.B, sequences.T)
    return sequences._replace(lengths=lengths)


def as_indices(name: str, value: Any) -> IndexArray:
    """Return an array of integers as a new array of int64."""
    array = to_numpy(name, value)
    if array.size == 0:
        array = array.astype(np.int64)  # an empty list is an array of floats
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got an array of {array.dtype}")
    # A copy, so that nobody changes it while the core reads it.
    return np.array(array, dtype=np.int64, order="C", copy=True)


def as_reduction(value: Any) -> str:
    """Return how losses are reduced: "mean" or "sum"."""
    if value not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'mean' or 'sum', got {value!r}")
    return str(value)

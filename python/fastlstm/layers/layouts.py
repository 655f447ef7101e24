"""How the arrays of a call are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

from fastlstm._checks import FloatArray

# The arrays of a state, whatever the cell: (h, c) or (h,).
States: TypeAlias = tuple[FloatArray, ...]
# A state as the caller has it: a tuple, or h alone.
StateT = TypeVar("StateT")


@dataclass(slots=True)
class Layout:
    """How the caller laid out the sequences of one call; the core sees three axes always."""

    T: int
    B: int
    batch_first: bool
    batched: bool

    @property
    def time_axis(self) -> int:
        """The caller's axis of time steps."""
        return int(self.batched and self.batch_first)

    def shape(self, width: int) -> tuple[int, ...]:
        """The caller's shape of a sequence with this many features."""
        if not self.batched:
            return (self.T, width)
        return (self.B, self.T, width) if self.batch_first else (self.T, self.B, width)

    def state_shape(self, cells: int, width: int) -> tuple[int, ...]:
        """The caller's shape of one part of a state."""
        return (cells, self.B, width) if self.batched else (cells, width)

    def core_sequence(self, array: FloatArray) -> FloatArray:
        """A sequence as the core takes it: the same memory with a batch axis."""
        if self.batched:
            return array
        width = array.shape[-1]
        return array.reshape((1, self.T, width) if self.batch_first else (self.T, 1, width))

    def core_state(self, states: Sequence[FloatArray]) -> list[FloatArray]:
        """A state as the core takes it: the same memory with a batch axis."""
        if self.batched:
            return list(states)
        return [part.reshape(part.shape[0], 1, part.shape[-1]) for part in states]

    def from_time_major(self, array: FloatArray) -> FloatArray:
        """A (T, B, width) array in the caller's layout."""
        if not self.batched:
            return array[:, 0]
        return np.ascontiguousarray(array.swapaxes(0, 1)) if self.batch_first else array


def directions_apart(output: FloatArray) -> FloatArray:
    """The outputs (..., 2 P) of two directions side by side as (2, ..., P), in the same memory."""
    shape = (*output.shape[:-1], 2, output.shape[-1] // 2)
    return np.moveaxis(output.reshape(shape), -2, 0)

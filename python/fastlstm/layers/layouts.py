"""How the arrays of a call are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

from fastlstm._checks import FloatArray, IndexArray

# The arrays of a state, whatever the cell: (h, c) or (h,).
States: TypeAlias = tuple[FloatArray, ...]
# A state as the caller has it: a tuple, or h alone.
StateT = TypeVar("StateT")


@dataclass(slots=True)
class Layout:
    """How the caller laid out the sequences of one call.

    The core has three axes always, sequences that begin at step 0, and at least one step: of
    sequences without any it gets one, past their ends.
    """

    T: int
    B: int
    batch_first: bool
    batched: bool
    starts: IndexArray | None = None  # (B,): where sequences begin, unless all do at step 0

    @property
    def time_axis(self) -> int:
        """The caller's axis of time steps."""
        return int(self.batched and self.batch_first)

    @property
    def is_the_cores(self) -> bool:
        """Whether the core can take the caller's memory for its own."""
        return self.T > 0 and self.starts is None

    @property
    def core_steps(self) -> int:
        """The core's number of time steps."""
        return max(self.T, 1)

    def shape(self, width: int) -> tuple[int, ...]:
        """The caller's shape of a sequence with this many features."""
        if not self.batched:
            return (self.T, width)
        return (self.B, self.T, width) if self.batch_first else (self.T, self.B, width)

    def core_shape(self, width: int) -> tuple[int, int, int]:
        """The core's shape of the same."""
        T = self.core_steps
        return (self.B, T, width) if self.batch_first else (T, self.B, width)

    def state_shape(self, cells: int, width: int) -> tuple[int, ...]:
        """The caller's shape of one part of a state."""
        return (cells, self.B, width) if self.batched else (cells, width)

    def core_sequence(self, array: FloatArray) -> FloatArray:
        """A sequence as the core takes it: the same memory with a batch axis, or a copy."""
        if self.T == 0:
            return np.zeros(self.core_shape(array.shape[-1]), array.dtype)
        array = self._with_batch(array)
        return array if self.starts is None else array[self._places()]

    def core_room(self, array: FloatArray) -> FloatArray:
        """Where the core writes a sequence for :meth:`fetch`: in the caller's array if it can."""
        if self.is_the_cores:
            return self._with_batch(array)
        return np.empty(self.core_shape(array.shape[-1]), array.dtype)

    def fetch(self, room: FloatArray, array: FloatArray) -> None:
        """Bring what the core wrote to its room to the caller's array."""
        if self.starts is not None:
            array[self._places()] = room
        elif self.T > 0 and not np.may_share_memory(room, array):
            np.copyto(array, room.reshape(array.shape))

    def core_state(self, states: Sequence[FloatArray]) -> list[FloatArray]:
        """A state as the core takes it: the same memory with a batch axis."""
        if self.batched:
            return list(states)
        return [part.reshape(part.shape[0], 1, part.shape[-1]) for part in states]

    def from_time_major(self, array: FloatArray) -> FloatArray:
        """A (T, B, width) array of the core's in the caller's layout."""
        array = array[: self.T]
        if not self.batched:
            return array[:, 0]
        if self.batch_first:
            array = np.ascontiguousarray(array.swapaxes(0, 1))
        if self.starts is None:
            return array
        moved = np.empty_like(array)
        self.fetch(array, moved)
        return moved

    def _with_batch(self, array: FloatArray) -> FloatArray:
        return array if self.batched else np.expand_dims(array, 0 if self.batch_first else 1)

    def _places(self) -> tuple[IndexArray, IndexArray]:
        """Indices of the caller's arrays: of each step of the core's, the padding's last."""
        assert self.starts is not None
        steps, rows, starts = np.arange(self.T), np.arange(self.B), self.starts
        if self.batch_first:
            return rows[:, np.newaxis], (steps + starts[:, np.newaxis]) % self.T
        return (steps[:, np.newaxis] + starts) % self.T, rows

"""How the arrays of a call are laid out, and those of one call once they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ._checks import FloatArray, IndexArray

# The arrays of a state, whatever the cell: (h, c) or (h,).
States: TypeAlias = tuple[FloatArray, ...]
# A state as the caller has it: a tuple, or h alone.
StateT = TypeVar("StateT")


def as_tuple(state: Any) -> States:
    """The arrays of a state."""
    return tuple(state) if isinstance(state, tuple) else (state,)


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

    def core_shape(self, width: int) -> tuple[int, int, int]:
        """The same as the core takes it."""
        return (self.B, self.T, width) if self.batch_first else (self.T, self.B, width)

    def state_shape(self, cells: int, width: int) -> tuple[int, ...]:
        """The caller's shape of a state."""
        return (cells, self.B, width) if self.batched else (cells, width)

    def from_time_major(self, array: FloatArray) -> FloatArray:
        """A (T, B, width) array in the caller's layout."""
        if not self.batched:
            return array[:, 0]
        return np.ascontiguousarray(array.swapaxes(0, 1)) if self.batch_first else array

    def with_batch(self, state: FloatArray) -> FloatArray:
        """A state as the core takes it."""
        return state if self.batched else state.reshape(state.shape[0], self.B, state.shape[-1])


@dataclass(slots=True)
class Call:
    """The checked arrays of one forward call, in the caller's shapes."""

    layout: Layout
    x: FloatArray
    initial: States | None
    lengths: IndexArray | None
    output: FloatArray
    final: States
    separate: FloatArray | None = None  # the caller's array for directions that are not merged

    def core_arguments(self) -> dict[str, Any]:
        """The arguments of the core's forward functions: the same memory with a batch axis."""

        def sequence(array: FloatArray) -> FloatArray:
            layout = self.layout
            return array if layout.batched else array.reshape(layout.core_shape(array.shape[-1]))

        return {
            "x": sequence(self.x),
            **core_states("h_0", "c_0", self.initial, self.layout),
            "lengths": self.lengths,
            "output": sequence(self.output),
            **core_states("h_n", "c_n", self.final, self.layout),
            "batch_first": self.layout.batch_first,
        }


def directions_apart(output: FloatArray) -> FloatArray:
    """The outputs (..., 2 P) of two directions side by side as (2, ..., P), in the same memory."""
    shape = (*output.shape[:-1], 2, output.shape[-1] // 2)
    return np.moveaxis(output.reshape(shape), -2, 0)


def core_states(
    h_name: str, c_name: str, states: tuple[FloatArray | None, ...] | None, layout: Layout
) -> dict[str, FloatArray | None]:
    """The arrays of a state as arguments of the core; those that are not given are None."""
    h = states[0] if states else None
    c = states[1] if states and len(states) > 1 else None
    return {
        h_name: None if h is None else layout.with_batch(h),
        c_name: None if c is None else layout.with_batch(c),
    }

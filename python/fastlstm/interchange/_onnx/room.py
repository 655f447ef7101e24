"""How much room and work the values of a model may take."""

from __future__ import annotations

from collections.abc import Callable

_LEAST = 8 << 20
# Weights are read, computed and put together: three times what they have. The fourth is the model.
# A layer of what a tiny model may make takes several times the least.
_TIMES = 3
# In all, for several weights and states of a node that are made of the same values.
_WORK = 32
# Questions about values: several about each node, of which a model has one in twenty bytes or more.
_LEAST_STEPS, _BYTES_OF_A_STEP = 50_000, 20


class RoomError(ValueError):
    """More is made than the model's size explains."""


class Room:
    """Counts bytes, in bounds that follow from the model's size.

    Parameters
    ----------
    size : callable
        Returns how many bytes the model has.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._taken = self._kept = 0
        self._worked = self._steps = 0

    def take(self, nbytes: int) -> None:
        """Count bytes that are about to be made."""
        self._taken += nbytes
        if self._taken > _TIMES * self._size() + _LEAST:
            raise RoomError("takes more room than the model's size explains")
        self.work(nbytes)

    def work(self, nbytes: int) -> None:
        """Count bytes that are about to be read."""
        self._worked += nbytes
        if self._worked > _WORK * (self._size() + _LEAST):
            raise ValueError("takes more work than the model's size explains")

    def step(self) -> None:
        """Count a question about a value."""
        self._steps += 1
        if self._steps > _LEAST_STEPS + self._size() // _BYTES_OF_A_STEP:
            raise ValueError("takes more steps than the model's size explains")

    def keep(self, nbytes: int) -> None:
        """Of all that was taken, keep some bytes; the others are free again."""
        self._kept += nbytes
        self._taken = self._kept

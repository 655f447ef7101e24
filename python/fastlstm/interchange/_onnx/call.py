"""A call of one of ONNX's operators on constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .file import elements
from .room import Room

Array: TypeAlias = npt.NDArray[Any]

_MOST_INTEGERS = 2 * 64  # two for each axis that an array of NumPy may have: Pad's


@dataclass(frozen=True)
class Call:
    """An operator, and what it is called with.

    Attributes
    ----------
    inputs : sequence of ndarray or None
        None: the input is left out.
    attributes : mapping
        Numbers, text, lists and arrays by name.
    version : int
        Of the set of operators.
    outputs : int
        How many outputs the node has.
    room : Room
        What may be used.
    """

    kind: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any]
    version: int
    outputs: int
    room: Room

    def __getitem__(self, k: int) -> Array:
        """Return an input that must be there."""
        array = self.given(k)
        if array is None:
            raise ValueError(f"{self.kind}: its input {k} is missing")
        return array

    def given(self, k: int) -> Array | None:
        """Return an input that may be left out."""
        return self.inputs[k] if k < len(self.inputs) else None

    def either(self, name: str, k: int, most: int = _MOST_INTEGERS) -> list[int] | None:
        """Return integers that are an attribute in old versions and an input in new ones."""
        array = self.given(k)
        if array is None:
            value = self.attributes.get(name)
            if value is None:
                return None
            array = np.atleast_1d(value)
        elif array.dtype.kind not in "iu":
            raise ValueError(f"{self.kind}: expected integers as {name}, got {array.dtype}")
        if array.size > most:  # as Python's they would take ten times the room and more
            raise ValueError(f"{self.kind}: expected at most {most} {name}, got {array.size}")
        return [int(n) for n in array.ravel()]

    def integers(self, name: str, k: int) -> list[int]:
        """Return such integers where they must be there."""
        values = self.either(name, k)
        if values is None:
            raise ValueError(f"{self.kind}: has no {name}")
        return values

    def make(self, shape: Sequence[int], dtype: Any) -> tuple[int, ...]:
        """Take room for an array, and return its shape."""
        self.room.take(elements(shape) * np.dtype(dtype).itemsize)
        return tuple(shape)


Operator: TypeAlias = Callable[[Call], "Array | list[Array]"]
"""Gives the first output, or a list of them all."""

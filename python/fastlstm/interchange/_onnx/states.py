"""What an ONNX model has of a recurrent node's call: initial states and lengths.

They are constants, or made of the batch's size as exporters write it, or for the caller to give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray
from fastlstm._stored import FLOATS, as_layers_float
from fastlstm.interchange._tensors import DAMAGE

from .graphs import Scope, domain_of
from .room import RoomError
from .shapes import Dim
from .values import Depends, Values

Array = npt.NDArray[Any]

# (T, B) of the runs that are tried where only a run knows the sizes. They tell apart what depends
# on a size from what does not: each is small and large, and neither is the other.
_TRIED = ((1, 2), (5, 3), (211, 1), (2, 67))
# Tried, too, where what is made of them has room.
_LARGE = (((1 << 20) + 7, 2), (4099, 1), (2, 4099))

# A part of an input, in another place, is an input.
_PARTS = frozenset(
    {"Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze", "Reshape"}
    | {"Slice", "Split", "Gather"}
)


def as_float(name: str, array: Array) -> FloatArray:
    """Return floats as layers hold them."""
    dtype = array.dtype.name
    if dtype == "bfloat16":
        array = array.view(np.uint16)
    elif dtype not in FLOATS:
        raise ValueError(f"{name}: expected floats, got {dtype}")
    return array if dtype in ("float32", "float64") else as_layers_float(array, dtype)


@dataclass(frozen=True)
class CallReader:
    """Reads the states and lengths of a node."""

    values: Values
    scope: Scope
    sizes: tuple[int, int]
    """D and H."""
    batch_first: bool

    def read(self, x: str, states: Sequence[str], given: Mapping[str, str]) -> dict[str, Any]:
        """Return what the model has of ``state`` and ``lengths``: what is neither zero nor all.

        Parameters
        ----------
        x : str
            The node's input.
        states : sequence of str
            The cell's states, as the node calls them.
        given : mapping
            The names of values, by those of the node's inputs. What is not among them is left out.
        """
        call: dict[str, Any] = {}
        rows = {name: self._state(name, given[name], x) for name in states if name in given}
        known = {name: state for name, state in rows.items() if state is not None}
        if any(np.any(state) for state in known.values()):
            computed = next((name for name in rows if name not in known), None)
            if computed:
                raise ValueError(
                    f"{', '.join(known)}: a constant, where the model computes {computed}"
                )
            call["state"] = self._together([known.get(name) for name in states])
        if "sequence_lens" in given:
            lengths = self._lengths("sequence_lens", given["sequence_lens"], x)
            if lengths is not None:
                call["lengths"] = lengths
        return call

    def computed(self, x: str, given: Mapping[str, str]) -> Iterator[str]:
        """Yield what is computed from the inputs' values, other than parts of one but X's."""
        for name, value in given.items():
            if self.values.depends(self.scope, value) == Depends.VALUES:
                scope, source = self._source(value, parts=True)
                of_x = (scope, source) == self._source(x, parts=False)
                if of_x or source in scope.body.makers:
                    yield name

    def _source(self, value: str, parts: bool) -> tuple[Scope, str]:
        """What a value comes from by way of first inputs, or of those that it is a part of."""
        scope, name = self.scope.home(value)
        while name in scope.body.makers:
            node, _ = scope.body.makers[name]
            if parts and (node.op_type not in _PARTS or domain_of(node)):
                break
            sources = [
                source
                for source in map(scope.home, node.input)
                if self.values.depends(*source) == Depends.VALUES
            ]
            if not sources:
                break
            scope, name = sources[0]
        return scope, name

    def _shape_of_x(self, x: str) -> tuple[Dim, Dim]:
        """What stands for T and B."""
        shape = self.values.shape(self.scope, x) if x else None
        if shape is None or len(shape) != 3:
            return "the node's T", "the node's B"
        return (shape[1], shape[0]) if self.batch_first else (shape[0], shape[1])

    def _state(self, name: str, value: str, x: str) -> FloatArray | None:
        """A state (D, B or 1, H), or None where the model computes it from its inputs."""
        axis = 0 if self.batch_first else 1
        array = self._batch_of(name, value, x, axis)
        if array is None:
            return None
        D, H = self.sizes
        array = array.swapaxes(0, 1) if self.batch_first and array.ndim > 1 else array
        if array.ndim != 3 or (array.shape[0], array.shape[2]) != (D, H):
            raise ValueError(f"{name}: expected ({D}, B, {H}), got {array.shape}")
        return as_float(name, array)

    def _lengths(self, name: str, value: str, x: str) -> Array | None:
        array = self._batch_of(name, value, x, 0)
        if array is not None and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise ValueError(f"{name}: expected (B,) integers, got {array.dtype} {array.shape}")
        return array

    def _together(self, states: Sequence[FloatArray | None]) -> Any:
        """The state as a layer takes it: parts of one batch, zeros for those left out."""
        D, H = self.sizes
        known = [state for state in states if state is not None]
        batches = {state.shape[1] for state in known if np.any(state)}
        B = max(batches)
        if batches - {1, B}:
            raise ValueError(f"initial_h, initial_c: expected one batch, got {sorted(batches)}")
        filled = [
            np.zeros((D, B, H), known[0].dtype)
            if state is None or not np.any(state)
            else np.broadcast_to(state, (D, B, H)).copy()
            for state in states
        ]
        return tuple(filled) if len(filled) > 1 else filled[0]

    def _batch_of(self, name: str, value: str, x: str, axis: int) -> Array | None:
        """A constant, or one row of a batch of equal ones; None for what the inputs' values make.

        Lengths that are T are None, too.
        """
        depends = self.values.depends(self.scope, value)
        if depends == Depends.VALUES:
            return None
        try:
            if depends == Depends.NOTHING:
                return self.values.value(self.scope, value)
            runs = list(self._tried(value, self._shape_of_x(x)))
            if name == "sequence_lens" and all(np.all(array == T) for array, T in runs):
                return None
            row = runs[0][0].take([0], axis)
            same = [np.array_equal(a, np.broadcast_to(row, a.shape)) for a, _ in runs]
        except DAMAGE as error:
            unknown = self.values.unknown[:1]
            because = f"; the number of axes of {unknown[0]} is not known" if unknown else ""
            raise ValueError(f"{name}: {error}{because}") from error
        if not all(same):
            raise ValueError(
                f"{name}: expected the same for every sequence, whatever their number and length; "
                f"the model makes {value!r} of these in another way"
            )
        return row

    def _tried(self, value: str, x: tuple[Dim, Dim]) -> Iterator[tuple[Array, int]]:
        for T, B in (*_TRIED, *_LARGE):
            tried = self.values.with_sizes({x[1]: B, x[0]: T}, B)
            try:
                array = tried.value(self.scope, value)
            except RoomError:
                if (T, B) in _TRIED:
                    raise
                continue
            yield array, x[0] if isinstance(x[0], int) else T

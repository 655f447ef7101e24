"""The values of a layer's parameters: arrays that nobody changes, replaced all at once."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, as_float_array, check_mapping, check_shape
from fastlstm._pieces import copied, pieces_of

from .core import Stack, make_stack, read_only
from .spec import Spec


class Snapshot:
    """The values of one moment: read-only arrays by name, and the core's stack made of them."""

    __slots__ = ("_next", "arrays", "stack")

    def __init__(self, arrays: Mapping[str, FloatArray], stack: Stack) -> None:
        self.arrays = arrays
        self.stack = stack
        self._next: dict[None, Snapshot] = {}

    def follow(self, new: Snapshot) -> bool:
        """Make `new` what follows this one, unless something does; return whether it does now.

        Comparing and assigning is one operation of a dictionary, which neither another thread nor a
        signal's handler can come between. So there is no lock: none that a handler could wait for
        in vain, and none that the child of a fork could find taken.
        """
        return self._next.setdefault(None, new) is new

    def latest(self) -> Snapshot:
        """The last of those that follow."""
        snapshot = self
        while snapshot._next:
            snapshot = snapshot._next[None]
        return snapshot


class Turns:
    """Turns of updates, for fairness alone: a slow one would lose to quick ones without end.

    Nothing depends on having one. A signal's handler in the thread that has it gets it, too, and
    the child of a fork makes its own.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def lock(self) -> contextlib.AbstractContextManager[bool]:
        """For a ``with`` block. It is C's: no signal comes between it and the block."""
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock


class Values:
    """The values that a layer has now.

    Parameters
    ----------
    spec : Spec
        Of the layer.
    arrays : mapping of str to ndarray
        All parameters, in order. Nobody else may hold them, or a writable view of them.
    """

    def __init__(self, spec: Spec, arrays: Mapping[str, FloatArray]) -> None:
        self._spec = spec
        frozen = {name: read_only(array) for name, array in arrays.items()}
        cells = [spec.cell_arrays(frozen, k) for k in range(spec.cells)]
        self._snapshot = Snapshot(frozen, make_stack(spec.dtype, spec.config, cells))
        self._turns = Turns()

    def now(self) -> Snapshot:
        """The values of this moment."""
        latest = self._snapshot.latest()
        if latest is not self._snapshot:
            self._snapshot = latest  # an update was late to say so: the one before it can go
        return latest

    def params(self) -> Mapping[str, FloatArray]:
        """The arrays of this moment, not to be changed."""
        return MappingProxyType(self.now().arrays)

    def update(self, values: Any) -> None:
        """Replace some arrays by copies of others; nothing is replaced after an error."""
        new = self._checked(values)
        if not new:
            return
        changed = [k for k in range(self._spec.cells) if self._spec.cell_arrays(new, k)]
        with self._turns.lock():
            while True:
                old = self.now()
                arrays = {**old.arrays, **new}
                cells = {k: self._spec.cell_arrays(arrays, k) for k in changed}
                snapshot = Snapshot(arrays, old.stack.with_params(cells))  # what takes long
                if old.follow(snapshot):
                    break
        # For the next call to begin with. Should an older one be assigned late, it leads to this.
        self._snapshot = snapshot

    def _checked(self, values: Any) -> dict[str, FloatArray]:
        check_mapping("values", values)
        shapes = self._spec.shapes
        new: dict[str, FloatArray] = {}
        for name, value in values.items():
            if name not in shapes:
                raise ValueError(
                    f"values: expected names of parameters ({', '.join(shapes)}), got {name!r}"
                )
            array = as_float_array(name, value, self._spec.dtype)
            check_shape(name, array, shapes[name])
            new[name] = read_only(copied(array))
        return new


def initial_values(spec: Spec, random: np.random.Generator) -> dict[str, FloatArray]:
    """Return PyTorch's initialisation: uniform in +-1/sqrt(H), but for normalisation.

    What does not begin at random draws its numbers all the same: a seed gives the other parameters
    the values that they always had.
    """
    bound = 1.0 / math.sqrt(spec.hidden_size)
    constants = {"one": 1.0, "zero": 0.0}
    values = {}
    for cell in spec.parameters:
        for parameter in cell.values():
            drawn = np.empty(parameter.shape, spec.dtype)
            for rows in pieces_of(drawn):
                drawn[rows] = random.uniform(-bound, bound, drawn[rows].shape)
            if parameter.initial in constants:
                drawn[:] = constants[parameter.initial]
            values[parameter.name] = drawn
    return values


def own_values(spec: Spec, values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return all parameters in order: arrays that own their memory, and copies of others."""
    own = {}
    for name, shape in spec.shapes.items():
        array = as_float_array(name, values[name], spec.dtype)
        check_shape(name, array, shape)
        own[name] = array if array.flags.owndata else array.copy()
    return own


def check_names(spec: Spec, state_dict: Any, layer: str) -> None:
    """Raise ValueError unless a mapping has all parameters of a layer and nothing else."""
    check_mapping("state_dict", state_dict)
    missing = [name for name in spec.shapes if name not in state_dict]
    unexpected = [str(name) for name in state_dict if name not in spec.shapes]
    if missing or unexpected:
        raise ValueError(
            f"state_dict: expected the parameters of {layer}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )

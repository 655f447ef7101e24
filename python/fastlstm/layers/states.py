"""States: one array or a tuple of several to the caller, a tuple always in here."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._checks import as_float_array, check_out, check_shape

from .layouts import Layout, States
from .spec import Spec

_COUNTS = ("no", "one", "two", "three", "four")


def as_tuple(state: Any) -> States:
    """Return the arrays of a state."""
    return tuple(state) if isinstance(state, tuple) else (state,)


def from_tuple(states: States) -> Any:
    """Return a state as the caller has it."""
    return states if len(states) > 1 else states[0]


def empty(spec: Spec, layout: Layout) -> States:
    """Return new arrays for a state."""
    return tuple([np.empty(shape, spec.dtype) for shape in spec.state_shapes(layout)])


def names(spec: Spec, argument: str) -> list[str]:
    """Return what errors call the arrays of a state."""
    count = len(spec.state_parts)
    return [argument] if count == 1 else [f"{argument}[{n}]" for n in range(count)]


def items(
    spec: Spec, argument: str, state: Any, layout: Layout
) -> list[tuple[str, Any, tuple[int, ...]]]:
    """Return name, value and expected shape of each array of a state."""
    shapes = spec.state_shapes(layout)
    if len(shapes) == 1:
        state = (state,)
    elif not isinstance(state, (tuple, list)) or len(state) != len(shapes):
        kind = type(state).__name__
        raise TypeError(
            f"{argument}: expected a tuple of {_COUNTS[len(shapes)]} arrays, got {kind}"
        )
    return list(zip(names(spec, argument), state, shapes, strict=True))


def as_states(spec: Spec, argument: str, state: Any, layout: Layout) -> States:
    """Check and convert the arrays of a state."""
    arrays = []
    for name, value, shape in items(spec, argument, state, layout):
        array = as_float_array(name, value, spec.dtype)
        check_shape(name, array, shape)
        arrays.append(array)
    return tuple(arrays)


def check_state_out(spec: Spec, argument: str, state: Any, layout: Layout) -> States:
    """Return the arrays of the caller's that a state is written to."""
    return tuple(
        check_out(name, array, spec.dtype, shape)
        for name, array, shape in items(spec, argument, state, layout)
    )

"""The arrays of a call: checked, converted, and room for what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._checks import (
    FloatArray,
    IndexArray,
    as_float_array,
    as_lengths,
    check_apart,
    check_out,
)

from .layouts import Layout, States, directions_apart
from .spec import Spec
from .states import as_states, as_tuple, check_state_out, empty, names


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
        """The arguments of the core's forward functions."""
        layout = self.layout
        return {
            "x": layout.core_sequence(self.x),
            "initial": None if self.initial is None else layout.core_state(self.initial),
            "lengths": self.lengths,
            "output": layout.core_sequence(self.output),
            "final": layout.core_state(self.final),
            "batch_first": layout.batch_first,
        }

    def result(self) -> FloatArray:
        """The output as the caller has it, once the core has written it."""
        if self.separate is None:
            return self.output
        np.copyto(self.separate, directions_apart(self.output))
        return self.separate


def prepare(spec: Spec, x: Any, state: Any, lengths: Any, out: Any = None) -> Call:
    """Check and convert the arguments of a call, and make room for its results.

    Raises
    ------
    ValueError, TypeError
        As a call of the layer.
    """
    x = as_float_array("x", x, spec.dtype)
    layout = spec.layout(x)
    if layout.T == 0:
        raise ValueError("x: expected at least one time step, got none")
    lengths = call_lengths(lengths, layout)
    initial = None if state is None else as_states(spec, "state", state, layout)
    output, final = _make_room(spec, layout, out)
    if out is not None:
        results = {"out[0]": output}
        if isinstance(out, tuple):
            results |= zip(names(spec, "out[1]"), final, strict=True)
        given = zip(names(spec, "state"), initial, strict=True) if initial else ()
        check_apart(results, {"x": x, **dict(given)})
    if spec.merge is not None:
        return Call(layout, x, initial, lengths, output, final)
    side_by_side = np.empty(layout.shape(2 * spec.output_size), spec.dtype)
    return Call(layout, x, initial, lengths, side_by_side, final, separate=output)


def call_lengths(lengths: Any, layout: Layout) -> IndexArray | None:
    """Check and convert the lengths of a call's sequences."""
    if lengths is None:
        return None
    if not layout.batched:
        raise ValueError("lengths: expected None for one sequence without a batch axis")
    return as_lengths(lengths, layout.B, layout.T)


def _make_room(spec: Spec, layout: Layout, out: Any) -> tuple[FloatArray, States]:
    """The arrays that results go to: the output and the final state."""
    shape = spec.output_shape(layout)
    if out is None:
        return np.empty(shape, spec.dtype), empty(spec, layout)
    if not isinstance(out, tuple):
        return check_out("out", out, spec.dtype, shape), empty(spec, layout)
    parts = [f"{name}_n" for name, _ in spec.state_parts]
    one = len(parts) == 1
    if (
        len(out) != 2
        or not (one or isinstance(out[1], tuple))
        or len(as_tuple(out[1])) != len(parts)
    ):
        pattern = parts[0] if one else f"({', '.join(parts)})"
        raise TypeError(f"out: expected an array or a tuple (output, {pattern})")
    output = check_out("out[0]", out[0], spec.dtype, shape)
    return output, check_state_out(spec, "out[1]", out[1], layout)

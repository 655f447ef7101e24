"""The arrays of a call: checked, converted, and room for what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fastlstm._checks import (
    FloatArray,
    IndexArray,
    as_float_array,
    as_lengths,
    check_apart,
    check_out,
)

from .layouts import Layout, States
from .spec import Spec
from .states import as_states, as_tuple, check_state_out, empty, names

# Where the padding is of sequences that are shorter than T.
Padding: TypeAlias = Literal["post", "pre"]


@dataclass(slots=True)
class Call:
    """The checked arrays of one forward call."""

    layout: Layout
    x: FloatArray  # as the core takes it
    initial: States | None
    lengths: IndexArray | None
    output: FloatArray  # the caller's
    room: FloatArray  # where the core writes it: there, if it can
    final: States
    apart: bool = False  # whether directions are side by side in the room, apart in the output

    def core_arguments(
        self,
    ) -> tuple[
        FloatArray,
        Sequence[FloatArray] | None,
        IndexArray | None,
        FloatArray,
        Sequence[FloatArray],
        bool,
    ]:
        """The arguments of the core's forward functions, in their order."""
        layout = self.layout
        return (
            self.x,
            None if self.initial is None else layout.core_state(self.initial),
            self.lengths,
            self.room,
            layout.core_state(self.final),
            layout.batch_first,
        )

    def result(self) -> FloatArray:
        """The output as the caller has it, once the core has written it."""
        if self.apart:
            by_step = np.moveaxis(self.output, 0, -2)
            self.layout.fetch(self.room.reshape(*self.room.shape[:2], *by_step.shape[-2:]), by_step)
        elif not self.layout.is_the_cores:
            self.layout.fetch(self.room, self.output)
        return self.output


def prepare(
    spec: Spec, x: Any, state: Any, lengths: Any, padding: Padding = "post", out: Any = None
) -> Call:
    """Check and convert the arguments of a call, and make room for its results.

    Raises
    ------
    ValueError, TypeError
        As a call of the layer.
    """
    x = as_float_array("x", x, spec.dtype)
    layout = spec.layout(x)
    lengths = call_lengths(lengths, layout)
    layout.starts = starts(lengths, padding, layout)
    initial = None if state is None else as_states(spec, "state", state, layout)
    output, final = _make_room(spec, layout, out)
    if out is not None:
        results = {"out[0]": output}
        if isinstance(out, tuple):
            results |= zip(names(spec, "out[1]"), final, strict=True)
        given = zip(names(spec, "state"), initial, strict=True) if initial else ()
        check_apart(results, {"x": x, **dict(given)})
    if layout.T == 0:
        lengths = np.zeros(layout.B, np.int64)
    apart = spec.merge is None
    room = (
        np.empty(layout.core_shape(spec.core_output_size), spec.dtype)
        if apart
        else layout.core_room(output)
    )
    return Call(layout, layout.core_sequence(x), initial, lengths, output, room, final, apart)


def call_lengths(lengths: Any, layout: Layout) -> IndexArray | None:
    """Check and convert the lengths of a call's sequences."""
    if lengths is None:
        return None
    if not layout.batched:
        raise ValueError("lengths: expected None for one sequence without a batch axis")
    return as_lengths(lengths, layout.B, layout.T)


def starts(lengths: IndexArray | None, padding: Padding, layout: Layout) -> IndexArray | None:
    """Return the steps where sequences begin; None if all do at step 0."""
    if padding not in ("post", "pre"):
        raise ValueError(f"padding: expected 'post' or 'pre', got {padding!r}")
    if lengths is None or padding == "post" or (lengths == layout.T).all():
        return None
    return layout.T - lengths


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

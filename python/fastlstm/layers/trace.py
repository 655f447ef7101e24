"""Every value of a call, from its tape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray

from . import core
from .backward import back_propagate
from .layouts import Layout
from .spec import Spec


def read_trace(
    spec: Spec,
    layout: Layout,
    tape: core.Tape,
    trace_type: Any,
    d_output: Any,
    d_state: Any,
) -> list[list[Any]]:
    """Read what each layer and direction computed.

    Parameters
    ----------
    trace_type : NamedTuple
        Its fields are the gates in the core's order, the parts of the state in any order, and with
        ``d_`` before their names their gradients.
    d_output, d_state : optional
        As for :func:`back_propagate`; with either, gradients are computed.

    Returns
    -------
    list of list
        By layer, then by direction.
    """
    parts = [name for name, _ in spec.state_parts]
    gradients: dict[str, FloatArray] = {}
    if d_output is not None or d_state is not None:
        shape = (spec.cells, layout.core_steps, layout.B)
        steps = [np.empty((*shape, width), spec.dtype) for _, width in spec.state_parts]
        back_propagate(
            spec,
            layout,
            tape,
            d_output,
            d_state,
            {},
            needs_x=False,
            needs_state=True,
            steps=steps,
        )
        gradients = {f"d_{part}": array for part, array in zip(parts, steps, strict=True)}
    H = spec.hidden_size

    def values(k: int) -> Iterator[FloatArray | None]:
        gates = tape.gates(k)
        for n, name in enumerate(trace_type._fields):
            if name in parts:
                yield tape.state(k, parts.index(name))
            elif name.startswith("d_"):
                yield gradients[name][k] if gradients else None
            else:
                yield gates[..., n * H : (n + 1) * H]

    def cell(k: int) -> Any:
        return trace_type(*(v if v is None else layout.from_time_major(v) for v in values(k)))

    D = spec.directions
    return [[cell(layer * D + d) for d in range(D)] for layer in range(spec.num_layers)]

"""The core's backward pass on the arrays of a caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm._blas import require_blas
from fastlstm._checks import FloatArray, as_float_array, check_apart, check_shape

from . import core
from .layouts import Layout
from .spec import Spec
from .states import empty, from_tuple, items, names


def back_propagate(
    spec: Spec,
    layout: Layout,
    tape: core.Tape,
    d_output: Any,
    d_state: Any,
    params: Mapping[str, FloatArray],
    *,
    needs_x: bool,
    needs_state: bool,
    steps: Sequence[FloatArray] | None = None,
    others: Mapping[str, FloatArray] | None = None,
) -> tuple[Any, Any]:
    """Back-propagate through time.

    Parameters
    ----------
    layout, tape
        Of the call that left the tape.
    d_output, d_state : array_like, tuple of array_like, or None
        The caller's gradients of the results.
    params : mapping of str to ndarray
        Gradients are added to these arrays; those of other parameters are not computed.
    needs_x, needs_state : bool
        Whether gradients of the input and of the initial state are asked for.
    steps : sequence of ndarray, optional
        Out: gradients of the state after each step, (L * D, T, B, width) for each part, as
        the core has its steps.
    others : mapping of str to ndarray, optional
        Where `params` are the caller's arrays, by names of their own: more of them, which they may
        not share memory with, as with each other and with `d_output` and `d_state`.

    Returns
    -------
    tuple
        The gradients of the input and of the initial state, as the caller has both; None where they
        are not asked for.
    """
    require_blas()
    if d_output is not None:
        d_output = as_float_array("d_output", d_output, spec.dtype)
        check_shape("d_output", d_output, spec.output_shape(layout))
        if spec.merge is None:
            d_output = np.concatenate(d_output, axis=-1)
        d_output = layout.core_sequence(d_output)
    d_final = None if d_state is None else _gradients_of_final(spec, d_state, layout)
    if others is not None:
        gradients = dict(zip(names(spec, "d_state"), d_final or (), strict=False))
        outs = {label(name): array for name, array in params.items()}
        check_apart(outs, {**others, "d_output": d_output, **gradients})
    d_x = np.empty(layout.shape(spec.input_size), spec.dtype) if needs_x else None
    room = None if d_x is None else layout.core_room(d_x)
    d_initial = empty(spec, layout) if needs_state else None
    tape.backward(
        d_output,
        d_final,
        room,  # d_x
        None if d_initial is None else layout.core_state(d_initial),
        [spec.cell_arrays(params, k) for k in range(spec.cells)],
        steps,
    )
    if d_x is not None and room is not None and not layout.is_the_cores:
        layout.fetch(room, d_x)
    return d_x, None if d_initial is None else from_tuple(d_initial)


def label(name: str) -> str:
    """What errors call an array that is added to."""
    return f"accumulate.params[{name!r}]"


def _gradients_of_final(spec: Spec, d_state: Any, layout: Layout) -> list[FloatArray | None]:
    gradients: list[FloatArray | None] = []
    for name, value, shape in items(spec, "d_state", d_state, layout):
        if value is None:
            gradients.append(None)
            continue
        array = as_float_array(name, value, spec.dtype)
        check_shape(name, array, shape)
        gradients += layout.core_state([array])
    return gradients

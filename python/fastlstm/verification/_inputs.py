"""The inputs on which a layer and its source are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.layers import spec_of

from ._results import Array, Inputs, trace

T, B = 16, 4
LONG = 1000
# Beyond, products overflow, and whether that gives NaN or infinity is a matter of their order.
LARGEST = {"float32": 1e18, "float64": 1e150}


def make_inputs(
    layer: Any, dtype: str, *, lengths: bool, special: bool, seed: int
) -> Iterator[Inputs]:
    """Make all kinds of inputs for a layer.

    Parameters
    ----------
    lengths, special : bool
        Whether there are batches of uneven lengths, and NaN and infinity among the inputs.
    """
    for inputs in _kinds(layer, dtype, lengths=lengths, seed=seed):
        yield _before_overflow(layer, inputs, LARGEST[dtype])
    if special:
        rng = np.random.default_rng(seed)
        zeros = _zeros(layer, dtype, B)
        for name, value in (("NaN", np.nan), ("infinity", np.inf)):
            x = rng.standard_normal((T, B, layer.input_size)).astype(dtype)
            x[T // 2, 1, 0] = value
            yield Inputs(name, x, zeros)


def _before_overflow(layer: Any, inputs: Inputs, largest: float) -> Inputs:
    """Halve the time until no value gets too large: functions without a bound can make it so."""
    while len(inputs.x) > 1:
        traces = [cell for cells in trace(layer, inputs) for cell in cells]
        values = [array for cell in traces for array in cell if array is not None]
        if all(bool((np.abs(array) < largest).all()) for array in values):
            break
        n = len(inputs.x) // 2
        lengths = None if inputs.lengths is None else np.minimum(inputs.lengths, n)
        inputs = inputs._replace(x=inputs.x[:n], lengths=lengths)
    return inputs


def _kinds(layer: Any, dtype: str, *, lengths: bool, seed: int) -> Iterator[Inputs]:
    rng = np.random.default_rng(seed)
    I, cells = layer.input_size, spec_of(layer).cells
    widths = [width for _, width in spec_of(layer).state_parts]

    def normal(steps: int = T, batch: int = B) -> Array:
        return rng.standard_normal((steps, batch, I)).astype(dtype)

    def zeros(batch: int = B) -> tuple[Array, ...]:
        return _zeros(layer, dtype, batch)

    def state(batch: int = B) -> tuple[Array, ...]:
        h = rng.uniform(-1, 1, (cells, batch, widths[0]))
        c = [rng.standard_normal((cells, batch, width)) for width in widths[1:]]
        return tuple(array.astype(dtype) for array in (h, *c))

    tiny = float(np.finfo(dtype).tiny)
    impulse = np.zeros((T, B, I), dtype)
    impulse[np.linspace(0, T - 1, B).astype(int), np.arange(B)] = 1  # each row's at another step
    yield Inputs("normal", normal(), zeros())
    yield Inputs("one sequence", normal(batch=1), zeros(1))
    yield Inputs("one step", normal(1), state())
    yield Inputs("initial state", normal(), state())
    yield Inputs("zeros", np.zeros((T, B, I), dtype), zeros())
    yield Inputs("ones", np.ones((T, B, I), dtype), zeros())
    yield Inputs("impulse", impulse, zeros())
    yield Inputs("large", 100 * normal(), state())
    yield Inputs("tiny", tiny * normal(), zeros())
    yield Inputs("long", normal(LONG, 1), zeros(1))
    if lengths:
        yield Inputs("uneven lengths", normal(), state(), np.array([T, 5, 1, T - 3]))


def _zeros(layer: Any, dtype: str, batch: int) -> tuple[Array, ...]:
    spec = spec_of(layer)
    return tuple(np.zeros((spec.cells, batch, width), dtype) for _, width in spec.state_parts)

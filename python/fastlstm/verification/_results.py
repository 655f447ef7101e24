"""One call of a layer and of its source, in one form, and how far their results may be apart."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm.layers import make_layer, spec_of

Array = npt.NDArray[Any]

# What results move by when every weight and input moves by an ULP is what rounding inside a sum
# comes to, whatever cancels in it and however the recurrence amplifies it. Eight times that, as a
# sum of many terms is rounded many times.
SENSITIVITY = 8
VARIATIONS = 4
# Denormal numbers are zero inside a call, and what is made of them is as small.
SMALLEST = {"float32": 1e-30, "float64": 1e-290}


class Inputs(NamedTuple):
    """The arguments of a call; time comes first whatever the layer's own layout is."""

    name: str
    x: Array
    """(T, B, I)"""
    state: tuple[Array, ...]
    """h_0 (L*D, B, P), and of an LSTM c_0 (L*D, B, H)."""
    lengths: Array | None = None
    """(B,)"""


class Results(NamedTuple):
    """What a call returned. The last two axes of all arrays are a batch and a width."""

    output: Array
    """(T, K, B, P); K is 2 where both directions are there, side by side or separate."""
    state: tuple[Array, ...]
    """Each (L*D, B, P or H)."""

    def arrays(self) -> tuple[Array, ...]:
        """Output and states, in this order."""
        return (self.output, *self.state)


def as_results(output: Array, state: Sequence[Array]) -> Results:
    """Arrange an output (T, B, K*P) as results are."""
    T, B, width = output.shape
    P = state[0].shape[-1]
    return Results(output.reshape(T, B, width // P, P).swapaxes(1, 2), tuple(state))


def run_layer(layer: Any, inputs: Inputs) -> Results:
    """Call a layer of fastlstm."""
    output, final = layer(*_arguments(layer, inputs), lengths=inputs.lengths)
    if layer.batch_first:
        output = output.swapaxes(-3, -2)
    if layer.merge is None:
        output = np.concatenate(list(output), axis=-1)
    return as_results(output, final if isinstance(final, tuple) else (final,))


def trace(layer: Any, inputs: Inputs) -> Any:
    """All values of a layer of fastlstm, time first: ``trace[layer][direction]``."""
    traces = layer.trace(*_arguments(layer, inputs), lengths=inputs.lengths)
    if layer.batch_first:
        traces = [
            [cell._make(a if a is None else a.swapaxes(0, 1) for a in cell) for cell in cells]
            for cells in traces
        ]
    return traces


def _arguments(layer: Any, inputs: Inputs) -> tuple[Any, Any]:
    """Input and state as the layer takes them."""
    x = inputs.x.swapaxes(0, 1) if layer.batch_first else inputs.x
    return x, inputs.state if len(inputs.state) > 1 else inputs.state[0]


def variations(layer: Any, inputs: Inputs, eps: float, seed: int) -> list[Results]:
    """Results of layers and inputs of which every value is moved up or down by eps of itself."""
    rng = np.random.default_rng(seed)

    def moved(values: Array) -> Array:
        signs = rng.integers(0, 2, values.shape) * 2 - 1
        return np.asarray(values * (1 + eps * signs), values.dtype)

    results = []
    for _ in range(VARIATIONS):
        varied = _with_plain_weights(layer)
        varied.update({name: moved(value) for name, value in layer.params.items()})
        state = tuple(moved(s) for s in inputs.state)
        results.append(run_layer(varied, inputs._replace(x=moved(inputs.x), state=state)))
    return results


def _with_plain_weights(layer: Any) -> Any:
    """A copy whose weights can be moved by any part: of a quantized layer, what they stand for."""
    if layer.quantization is None:
        return copy.deepcopy(layer)
    return make_layer(type(layer), spec_of(layer).options, layer.params)


def difference(ours: Array, theirs: Array) -> Array:
    """The absolute difference: none between equal infinities or two NaN, infinite to others."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.abs(ours - theirs)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))


def allowed(
    ours: Array, varied: Sequence[Array], ulps: int, eps: float, tolerance: float | None
) -> Array:
    """The largest difference that rounding explains, for each value.

    Parameters
    ----------
    ours : ndarray (..., B, W)
        Results of the layer, and in ``varied`` those of its variations. The values of the last two
        axes are measured by the same bound.
    ulps : int
        What is allowed beside what follows from the variations, in ULP of the largest value.
    eps : float
        An ULP of one, in the less precise of both sides.
    tolerance : float, optional
        Instead of all this: relative to the largest value.
    """
    finite = np.isfinite(ours)
    known = np.where(finite, np.abs(ours), 0.0).astype(np.float64)
    size = known.max(axis=(-2, -1), keepdims=True, initial=0.0)
    moves = [difference(ours, other) for other in varied]
    # Where a move of an ULP makes the difference between a number and infinity, anything goes.
    unsure = np.any([np.isinf(m) for m in moves], axis=0)
    most = np.max([np.where(np.isinf(m), 0.0, m) for m in moves], axis=0)
    sensitivity = most.max(axis=(-2, -1), keepdims=True, initial=0.0)
    bound = ulps * eps * size + SENSITIVITY * sensitivity
    if tolerance is not None:
        bound = tolerance * size
    bound = bound + SMALLEST["float32" if eps > 1e-10 else "float64"]
    return np.where(unsure, np.inf, np.broadcast_to(bound, ours.shape))


def forget_after_parting(output: Array, bounds: Sequence[Array], bidirectional: bool) -> None:
    """Allow anything after rounding has taken the results apart.

    Two walks that rounding has parted may come close to each other by chance, and how close says
    nothing of a third one. So where the bound of a step reaches the size of its values, the later
    steps of that direction's walk and the final states show nothing.

    Parameters
    ----------
    output : ndarray (T, K, B, P)
    bounds : sequence of ndarray
        Of Results.arrays(); changed in place.
    bidirectional : bool
        Two directions that are one in the output (K = 1) walk both ways.
    """
    size = np.where(np.isfinite(output), np.abs(output), 0.0).max(axis=(-2, -1), initial=0.0)
    parted = (bounds[0].max(axis=(-2, -1), initial=0.0) >= size) & (size > SMALLEST["float32"])
    after = np.logical_or.accumulate(parted, axis=0)
    if bidirectional:
        before = np.logical_or.accumulate(parted[::-1], axis=0)[::-1]
        if output.shape[1] == 2:
            after[:, 1] = before[:, 1]
        else:
            after |= before
    bounds[0][after] = np.inf
    if after.any():
        for bound in bounds[1:]:
            bound.fill(np.inf)

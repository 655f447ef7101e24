"""How far a layer of few bits is from the layer that it was made of: in a step, and in the end.

A step is a function of its input and of the state before it. So each step of a sequence is asked
for by itself, from the state that the exact layer had: what differs there is the error of that step
alone, in each unit. From end to end, errors of earlier steps are in the state, where gates damp
them or, with large weights, let them grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._checks import as_float_array, as_int
from fastlstm.layers import check_layer, spec_of

from ._locate import single_steps
from ._results import Array, Inputs, difference, run_layer

_T, _B = 100, 8
_LINES = 10  # of times, and of units, in the report


@dataclass(frozen=True, eq=False)
class Precision:
    """What :func:`fastlstm.compare_layers` found; printed, it is a table.

    All errors are absolute differences, and the largest of all sequences.
    """

    small: str
    layer: str
    sequences: int
    step_errors: dict[str, Array]
    """By part of the state, ``"h"`` and of an LSTM ``"c"``: (L*D, T, units). Each step by itself,
    from the state that the exact layer had before it."""
    output_errors: Array
    """(T, D*P) of the output, from end to end."""
    largest: float
    """The largest value of the exact output."""
    rms: float
    """The root mean square of the output's error, over that of the output."""
    directions: int
    """D"""

    @property
    def by_step(self) -> Array:
        """(T,) the largest error of h in each step by itself."""
        return np.asarray(self.step_errors["h"].max(axis=(0, 2)))

    @property
    def by_unit(self) -> Array:
        """(L*D, P) the largest error of each unit's h in any step by itself."""
        return np.asarray(self.step_errors["h"].max(axis=1))

    @property
    def error(self) -> float:
        """The largest error of the output, from end to end."""
        return float(self.output_errors.max())

    @property
    def relative_error(self) -> float:
        """The same as a part of the largest output."""
        return self.error / self.largest if self.largest > 0 else self.error

    def __str__(self) -> str:
        T, single = len(self.output_errors), self.by_step
        lines = [
            self.small,
            f"compared with {self.layer}, {T} steps of {self.sequences} sequences",
            "",
            f"{'steps':>14}{'in a step':>12}{'end to end':>12}",
        ]
        at_once = math.ceil(T / _LINES)
        for t in range(0, T, at_once):
            end = min(t + at_once, T)
            times = f"{t}" if end == t + 1 else f"{t} to {end - 1}"
            errors = (values[t:end].max() for values in (single, self.output_errors))
            lines.append(f"{times:>14}" + "".join(f"{error:>12.1e}" for error in errors))
        lines += ["", f"{'layer':>7}{'direction':>11}{'unit':>6}{'in a step':>12}"]
        for k, unit in _worst(self.by_unit):
            place = f"{k // self.directions:>7}{k % self.directions:>11}{unit:>6}"
            lines.append(f"{place}{self.by_unit[k, unit]:>12.1e}")
        lines += [
            "",
            f"In a step: {single.max():.1e} at most. From end to end: {self.error:.1e}, "
            f"{100 * self.relative_error:.2g} % of the largest output; {100 * self.rms:.2g} % of "
            "it in the root mean square.",
        ]
        return "\n".join(lines)


def compare_layers(small: Any, layer: Any, x: Any = None, *, seed: int = 0) -> Precision:
    """Measure how far a quantized layer is from the layer that it was made of.

    Parameters
    ----------
    small, layer : LSTM, GRU or RNN
        Of the same kind and sizes.
    x : array_like, optional
        Inputs for both, as they take them. By default 100 steps of 8 sequences of random normal
        numbers: the errors on inputs of a task may be others.
    seed : int
        Of random inputs.

    Returns
    -------
    Precision
        The errors by step and unit, and from end to end. It prints as a table.

    Raises
    ------
    ValueError, TypeError
        Both are not layers of the same kind and sizes, or `x` is no input of theirs.

    Examples
    --------
    >>> layer = fastlstm.LSTM(8, 64, seed=0)
    >>> found = fastlstm.compare_layers(layer.quantize("int8"), layer)
    >>> found.by_step.shape, found.by_unit.shape, bool(found.relative_error < 0.05)
    ((100,), (1, 64), True)
    """
    check_layer(small)
    check_layer(layer)
    seed = as_int("seed", seed, 0, 2**32 - 1)
    sizes = (
        *("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size"),
        *("reverse", "batch_first", "merge"),
    )
    if type(small) is not type(layer) or any(
        getattr(small, name, 0) != getattr(layer, name, 0) for name in sizes
    ):
        raise ValueError(f"small: expected the kind and sizes of {layer!r}, got {small!r}")
    inputs = _inputs(layer, x, seed)
    T, B, _ = inputs.x.shape
    exact, ours = run_layer(layer, inputs), run_layer(small, inputs)
    steps = single_steps(layer, inputs)
    exact_steps, our_steps = run_layer(layer, steps), run_layer(small, steps)
    step_errors = {
        part: difference(a, b).reshape(len(a), T, B, -1).max(axis=2)
        for (part, _), a, b in zip(
            spec_of(layer).state_parts, our_steps.state, exact_steps.state, strict=True
        )
    }
    apart = difference(ours.output, exact.output)
    size, rms = (np.sqrt(np.mean(np.square(a, dtype=np.float64))) for a in (exact.output, apart))
    return Precision(
        small=repr(small),
        layer=repr(layer),
        sequences=B,
        step_errors=step_errors,
        output_errors=apart.max(axis=2).reshape(T, -1),
        largest=float(np.abs(exact.output).max()),
        rms=float(rms / size if size > 0 else rms),
        directions=spec_of(layer).directions,
    )


def _inputs(layer: Any, x: Any, seed: int) -> Inputs:
    """Time first, with a batch, from a state of zeros."""
    if x is None:
        x = np.random.default_rng(seed).standard_normal((_T, _B, layer.input_size))
        x = x.astype(layer.dtype)
    else:
        x = as_float_array("x", x, layer.dtype)
        if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size or not x.size:
            raise ValueError(f"x: expected (T, B, {layer.input_size}) and some, got {x.shape}")
        x = x[:, np.newaxis] if x.ndim == 2 else x.swapaxes(0, 1) if layer.batch_first else x
    spec = spec_of(layer)
    state = [
        np.zeros((spec.cells, x.shape[1], width), layer.dtype) for _, width in spec.state_parts
    ]
    return Inputs("", x, tuple(state))


def _worst(errors: Array) -> list[tuple[int, int]]:
    """The places of the largest errors, the largest first."""
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:_LINES]
    return [
        (int(k), int(unit)) for k, unit in zip(*np.unravel_index(order, errors.shape), strict=True)
    ]

"""Quantized layers against the float64 reference of their rules, step by step.

Where inputs are rounded, an error of float32 can make a value the next one, now and then. So a step
is compared from the state that the layer itself had: what is rounded is the same on both sides.
"""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.layers import spec_of
from fastlstm.layers.states import as_tuple
from fastlstm.reference import CELLS
from fastlstm.reference.low_precision import quantized_forward, quantized_params
from support import reference_options
from tolerances import FORWARD, assert_close, relative_error

pytestmark = pytest.mark.every_isa

PAIRS = [
    ("bfloat16", "float32"),
    ("int8", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "int8"),
]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)

LAYERS: dict[str, Any] = {
    "LSTM": lambda: fastlstm.LSTM(5, 19, seed=0),
    "one unit": lambda: fastlstm.LSTM(1, 1, seed=0),
    "no bias, reverse": lambda: fastlstm.LSTM(33, 65, bias=False, reverse=True, seed=0),
    "projection": lambda: fastlstm.LSTM(6, 21, proj_size=9, seed=0),
    "options": lambda: fastlstm.LSTM(
        *(7, 18), peepholes=True, clip=2.0, activations=("HardSigmoid", "Softsign", "Tanh"), seed=0
    ),
    "coupled": lambda: fastlstm.LSTM(4, 9, input_forget=True, batch_first=True, seed=0),
    "GRU": lambda: fastlstm.GRU(9, 35, seed=0),
    "GRU, reset before": lambda: fastlstm.GRU(3, 17, reset_after=False, seed=0),
    "RNN": lambda: fastlstm.RNN(5, 31, seed=0),
    "RNN, relu": lambda: fastlstm.RNN(5, 12, nonlinearity="relu", seed=0),
}
# What is rounded there was computed in the same step, and can be the next value on one side.
ROUNDED_WITHIN = ("projection", "GRU, reset before")


def make(name: str, scale: float = 2.0) -> Any:
    layer = LAYERS[name]()
    layer.update({n: np.float32(scale) * value for n, value in layer.params.items()})
    return layer


def by_reference(layer: Any, pair: tuple[str, str], x: Any, state: Any = None, **more: Any) -> Any:
    """The same call by the reference; time comes first."""
    params = quantized_params(layer.params, pair[0])
    cell = CELLS[type(layer).__name__]
    return quantized_forward(
        cell, params, x, state, activations=pair[1], **reference_options(layer), **more
    )


@every_pair
@pytest.mark.parametrize("name", LAYERS)
def test_a_step_is_the_references(name: str, pair: tuple[str, str]) -> None:
    layer = make(name)
    small = layer.quantize(*pair)
    for key, value in quantized_params(layer.params, pair[0]).items():
        np.testing.assert_allclose(small.params[key], value, rtol=2e-7)
    T, B, I = 9, 5, layer.input_size
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    [[trace]] = small.trace(x.swapaxes(0, 1) if layer.batch_first else x)
    parts = [part for part, _ in spec_of(layer).state_parts]
    after = [getattr(trace, part) for part in parts]
    if layer.batch_first:
        after = [values.swapaxes(0, 1) for values in after]
    shift = -1 if layer.reverse else 1
    before = [np.roll(values, shift, axis=0) for values in after]
    for values in before:
        values[-1 if layer.reverse else 0] = 0
    _, _, tape = by_reference(
        layer, pair, x.reshape(1, T * B, I), [v.reshape(1, T * B, -1) for v in before]
    )
    [[expected]] = tape.traces
    for part, values in zip(parts, after, strict=True):
        want = getattr(expected, part)[0].reshape(values.shape)
        if name not in ROUNDED_WITHIN or pair[1] == "float32":
            assert_close(values, want, FORWARD["float32"], part)
            continue
        apart = np.abs(values - want) / np.abs(want).max()
        assert apart.max() < 0.01
        assert (apart > FORWARD["float32"].bound).mean() < 0.05


@every_pair
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_stacks_lengths_and_states_are_the_references(kind: str, pair: tuple[str, str]) -> None:
    layer = getattr(fastlstm, kind)(4, 11, 2, bidirectional=True, seed=0)
    layer.update({n: 2 * value for n, value in layer.params.items()})
    rng, (T, B) = np.random.default_rng(0), (12, 4)
    x, lengths = rng.standard_normal((T, B, 4)).astype(np.float32), [12, 0, 5, 1]
    state = [rng.uniform(-1, 1, (4, B, 11)).astype(np.float32) for _ in spec_of(layer).state_parts]
    given = tuple(state) if len(state) > 1 else state[0]
    output, final = layer.quantize(*pair)(x, given, lengths=lengths)
    expected, expected_final, _ = by_reference(layer, pair, x, state, lengths=lengths)
    # Rounding to few bits passes differences of float32 on, as the next value; 2e-3 measured.
    bound = FORWARD["float32"].bound if pair[1] == "float32" else 0.02
    assert relative_error(output, expected) < bound
    for ours, theirs in zip(as_tuple(final), expected_final, strict=True):
        assert relative_error(ours, theirs) < bound
    assert not output[5:, 2].any()

"""LSTM.trace: every value inside, against the reference and against the LSTM's own equations."""

from __future__ import annotations

import fastlstm
import numpy as np
import pytest
from support import (
    CASES,
    DTYPES,
    assert_same_bits,
    make_problem,
    reference_forward,
    time_major,
)
from tolerances import BACKWARD, FORWARD, assert_close

pytestmark = pytest.mark.every_isa

NAMES = [
    "plain",
    "no bias",
    "batch first",
    "unbatched",
    "unbatched, batch first",
    "unbatched, two layers bidirectional",
    "reverse",
    "projection, two layers bidirectional",
    "lengths with zeros",
    "lengths all zero",
    "lengths, everything",
    "blocks, ragged",
    "B=0",
    "T=1",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_trace_is_the_references(name: str, dtype: str) -> None:
    p = make_problem(CASES[name], dtype)
    traces = p.layer.trace(p.x, p.state, lengths=p.lengths)
    _, _, tape = reference_forward(p.layer, p.x, p.state, lengths=p.lengths)
    assert len(traces) == p.layer.num_layers
    for layer_traces, expected_traces in zip(traces, tape.traces, strict=True):
        for trace, expected in zip(layer_traces, expected_traces, strict=True):
            assert isinstance(trace, fastlstm.LSTMTrace)
            assert trace._fields == ("i", "f", "g", "o", "c", "h", "d_h", "d_c")
            for field in trace._fields[:6]:
                values = time_major(p.layer, getattr(trace, field))
                assert values.dtype == dtype
                assert_close(values, getattr(expected, field), FORWARD[dtype], field)


@pytest.mark.parametrize("name", NAMES)
def test_trace_ends_in_the_results_of_a_call(name: str) -> None:
    p = make_problem(CASES[name], "float32")
    traces = p.layer.trace(p.x, p.state, lengths=p.lengths)
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_same_bits(np.concatenate([t.h for t in traces[-1]], axis=-1), output, "output")
    if p.layer.reverse or p.layer.bidirectional or p.lengths is not None or p.x.size == 0:
        return
    for layer, (trace,) in enumerate(traces):
        assert_same_bits(time_major(p.layer, trace.h)[-1], h_n[layer], "h_n")
        assert_same_bits(time_major(p.layer, trace.c)[-1], c_n[layer], "c_n")


def test_values_past_the_end_are_zero() -> None:
    p = make_problem(CASES["lengths, everything"], "float32")
    traces = p.layer.trace(p.x, p.state, lengths=p.lengths)
    for trace in (trace for directions in traces for trace in directions):
        for values in trace[:6]:
            for b, length in enumerate(p.lengths):
                assert not values[b, length:].any()
                assert values[b, :length].all()


def test_trace_has_no_dropout_and_leaves_the_layers_random_numbers_alone() -> None:
    def layer() -> fastlstm.LSTM:
        return fastlstm.LSTM(3, 8, num_layers=2, dropout=0.5, seed=0)

    x = np.ones((5, 2, 3), np.float32)
    traced = layer()
    assert_same_bits(traced.trace(x)[1][0].h, traced(x)[0])
    assert np.array_equal(traced.forward(x)[0], layer().forward(x)[0])


def test_a_trace_is_the_callers() -> None:
    p = make_problem(CASES["plain"], "float32")
    ((trace,),) = p.layer.trace(p.x, p.state)
    expected, _ = p.layer(p.x, p.state)
    for values in trace[:6]:
        values[...] = 7
    assert np.array_equal(p.layer(p.x, p.state)[0], expected)


@pytest.mark.parametrize("name", ["plain", "batch first", "unbatched", "two layers", "projection"])
def test_gradients_are_those_of_a_call_that_begins_at_the_next_step(name: str) -> None:
    p = make_problem(CASES[name], "float64")
    traces = p.layer.trace(p.x, p.state, d_output=p.d_output, d_state=p.d_state)
    x, d_output = time_major(p.layer, p.x), time_major(p.layer, p.d_output)
    state = p.state
    for t in range(len(x)):
        _, state = p.layer(time_major(p.layer, x[t : t + 1]), state)
        want = p.d_state
        if t + 1 < len(x):
            _, _, tape = p.layer.forward(time_major(p.layer, x[t + 1 :]), state)
            want = tape.backward(time_major(p.layer, d_output[t + 1 :]), p.d_state).state
        for layer, (trace,) in enumerate(traces):
            for got, expected in zip((trace.d_h, trace.d_c), want, strict=True):
                assert_close(
                    time_major(p.layer, got)[t], expected[layer], BACKWARD["float64"], "state"
                )


def test_gradients_of_both_directions_and_uneven_lengths() -> None:
    p = make_problem(CASES["lengths, everything"], "float64")
    traces = p.layer.trace(p.x, p.state, lengths=p.lengths, d_output=p.d_output, d_state=p.d_state)
    for layer, (onward, back) in enumerate(traces):
        for b, length in enumerate(p.lengths):
            assert not onward.d_h[b, length:].any()
            if length:
                # Where a direction ends, nothing follows but the caller's gradient.
                assert np.array_equal(onward.d_h[b, length - 1], p.d_state[0][2 * layer, b])
                assert np.array_equal(back.d_c[b, 0], p.d_state[1][2 * layer + 1, b])


def test_without_gradients_there_are_none() -> None:
    ((trace,),) = fastlstm.LSTM(2, 3).trace(np.ones((4, 1, 2), np.float32))
    assert trace.d_h is None
    assert trace.d_c is None

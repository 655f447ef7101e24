"""Sequences padded at their start, and sequences without any steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fastlstm
import numpy as np
import pytest
from support import (
    Case,
    Problem,
    assert_same_bits,
    assert_same_states,
    gradient_arrays,
    make_problem,
    named_states,
)
from tolerances import REORDERED, assert_close

pytestmark = pytest.mark.every_isa

LENGTHS = (4, 0, 6, 1, 6)
CASES = {
    "LSTM": Case(B=5, lengths=LENGTHS),
    "no state": Case(B=5, lengths=LENGTHS, state=False),
    "batch first": Case(B=5, lengths=LENGTHS, options={"batch_first": True}),
    "bidirectional": Case(
        B=5,
        lengths=LENGTHS,
        options={"bidirectional": True, "num_layers": 2, "proj_size": 3, "batch_first": True},
    ),
    "reverse": Case(B=5, lengths=LENGTHS, options={"reverse": True}),
    "sum": Case(B=5, lengths=LENGTHS, options={"bidirectional": True, "merge": "sum"}),
    "apart": Case(B=5, lengths=LENGTHS, options={"bidirectional": True, "merge": None}),
    "apart, batch first": Case(
        B=5, lengths=LENGTHS, options={"bidirectional": True, "merge": None, "batch_first": True}
    ),
    "GRU": Case(B=5, lengths=LENGTHS, cell="GRU", options={"num_layers": 2}),
    "RNN": Case(B=5, lengths=LENGTHS, cell="RNN", options={"bidirectional": True}),
    "layer norm": Case(B=5, lengths=LENGTHS, options={"layer_norm": True}),
    "empty, layer norm": Case(B=3, lengths=(0, 0, 0), options={"layer_norm": True}),
    "full": Case(B=3, lengths=(6, 6, 6)),
    "empty": Case(B=3, lengths=(0, 0, 0)),
}


@pytest.fixture(params=CASES)
def problem(request: pytest.FixtureRequest) -> Problem:
    p = make_problem(CASES[request.param], "float32")
    if p.layer.merge is None:
        p.d_output = np.stack([p.d_output, p.d_output + 1])
    return p


def at_the_end(p: Problem, array: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """An array of sequences padded at their ends, with each sequence where the array ends."""
    axis = array.ndim - 3 + p.layer.batch_first
    by_row = np.moveaxis(array, (axis, array.ndim - 2 - p.layer.batch_first), (0, 1))
    moved = np.full_like(array, fill)
    moved_by_row = np.moveaxis(moved, (axis, array.ndim - 2 - p.layer.batch_first), (0, 1))
    for b, length in enumerate(p.lengths):
        moved_by_row[len(by_row) - length :, b] = by_row[:length, b]
    return moved


def call(p: Problem) -> tuple[Any, dict[str, Any]]:
    return at_the_end(p, p.x, np.nan), {"lengths": p.lengths, "padding": "pre"}


def test_padding_at_the_start(problem: Problem) -> None:
    p = problem
    expected, expected_state = p.layer(p.x, p.state, lengths=p.lengths)
    x, options = call(p)
    output, state = p.layer(x, p.state, **options)
    assert output.flags.c_contiguous
    assert_same_bits(output, at_the_end(p, expected))
    assert_same_states(state, expected_state)

    out = np.full_like(expected, np.nan)
    result, state = p.layer(x, p.state, **options, out=(out, p.layer(p.x)[1]))
    assert result is out
    assert_same_bits(out, output)
    assert_same_states(state, expected_state)


def test_gradients_are_laid_out_the_same(problem: Problem) -> None:
    p = problem
    expected, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    expected_grads = tape.backward(p.d_output, p.d_state)
    x, options = call(p)
    output, _, tape = p.layer.forward(x, p.state, **options)
    assert_same_bits(output, at_the_end(p, expected))
    for _ in range(2):
        grads = tape.backward(at_the_end(p, p.d_output, np.nan), p.d_state)
        arrays = gradient_arrays(grads)
        for name, array in gradient_arrays(expected_grads).items():
            assert_same_bits(arrays[name], at_the_end(p, array) if name == "x" else array, name)
    twice = tape.backward(at_the_end(p, p.d_output), p.d_state, accumulate=grads)
    assert_same_bits(twice.x, 2 * at_the_end(p, expected_grads.x))


def test_trace_is_laid_out_the_same(problem: Problem) -> None:
    p = problem
    expected = p.layer.trace(
        p.x, p.state, lengths=p.lengths, d_output=p.d_output, d_state=p.d_state
    )
    x, options = call(p)
    trace = p.layer.trace(
        x, p.state, **options, d_output=at_the_end(p, p.d_output), d_state=p.d_state
    )
    for layer, expected_layer in zip(trace, expected, strict=True):
        for cell, expected_cell in zip(layer, expected_layer, strict=True):
            for name, array, right in zip(cell._fields, cell, expected_cell, strict=True):
                moved = at_the_end(p, right)
                steps = at_the_end(p, np.ones_like(right)) > 0
                assert_same_bits(array * steps, moved, name)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("k2", [2, 4])
def test_truncated_bptt(batch_first: bool, k2: int) -> None:
    p = make_problem(Case(B=5, lengths=LENGTHS, options={"batch_first": batch_first}), "float32")
    x, options = call(p)
    expected, expected_state = p.layer(x, p.state, **options)
    chunks = list(fastlstm.truncated_bptt(p.layer, x, 2, k2, state=p.state, **options))
    outputs = np.concatenate([c.output for c in chunks], axis=int(batch_first))
    assert_same_bits(outputs, expected)
    assert_same_states(chunks[-1].state, expected_state)
    # The last chunk reaches back to the start: nothing is truncated.
    *_, last = fastlstm.truncated_bptt(p.layer, x, 2, 6, state=p.state, **options)
    d_output = np.zeros_like(p.d_output)
    d_last = np.moveaxis(d_output, int(batch_first), 0)[-2:]
    d_last[:] = 1
    _, _, tape = p.layer.forward(x, p.state, **options)
    whole = tape.backward(d_output, p.d_state)
    of_last = last.backward(np.ones_like(last.output), p.d_state)
    for name, array in gradient_arrays(whole).items():
        assert_close(gradient_arrays(of_last)[name], array, REORDERED["float32"], name)
    # And one chunk is one call.
    (chunk,) = fastlstm.truncated_bptt(p.layer, x, 99, state=p.state, **options)
    _, _, tape = p.layer.forward(x, p.state, **options)
    expected_grads = gradient_arrays(tape.backward(p.d_output, p.d_state))
    for name, array in gradient_arrays(chunk.backward(p.d_output, p.d_state)).items():
        assert_same_bits(array, expected_grads[name], name)


def test_what_padding_may_be() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    x = np.ones((5, 2, 3), np.float32)
    for method in (layer, layer.forward, layer.trace):
        for wrong in ("left", None, True, ["pre"]):
            with pytest.raises(ValueError, match="padding: expected 'post' or 'pre', got "):
                method(x, lengths=[1, 2], padding=wrong)
    with pytest.raises(ValueError, match="padding: expected 'post' or 'pre'"):
        next(fastlstm.truncated_bptt(layer, x, 2, padding="left"))  # type: ignore[arg-type]
    # Without lengths there is no padding.
    assert_same_bits(layer(x, padding="pre")[0], layer(x)[0])
    assert_same_bits(layer(x[:, 0], padding="pre")[0], layer(x[:, 0])[0])


# --- no steps -------------------------------------------------------------------------------------

NO_STEPS = {
    "LSTM": Case(T=0),
    "no state": Case(T=0, state=False),
    "lengths": Case(T=0, lengths=(0, 0, 0)),
    "batch first": Case(T=0, options={"batch_first": True}),
    "unbatched": Case(T=0, batched=False),
    "unbatched, batch first": Case(T=0, batched=False, options={"batch_first": True}),
    "no sequences": Case(T=0, B=0, lengths=()),
    "everything": Case(
        T=0, options={"num_layers": 2, "bidirectional": True, "proj_size": 3, "batch_first": True}
    ),
    "reverse": Case(T=0, options={"reverse": True}),
    "apart": Case(T=0, options={"bidirectional": True, "merge": None}),
    "apart, unbatched": Case(T=0, batched=False, options={"bidirectional": True, "merge": None}),
    "average": Case(T=0, options={"bidirectional": True, "merge": "ave"}),
    "layer norm": Case(T=0, options={"layer_norm": True}),
    "GRU": Case(T=0, cell="GRU"),
    "GRU, reset before": Case(T=0, cell="GRU", options={"reset_after": False}),
    "RNN": Case(T=0, cell="RNN", options={"num_layers": 2}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NO_STEPS)
def test_no_steps(name: str, dtype: str) -> None:
    case = NO_STEPS[name]
    p = make_problem(case, dtype)
    layer = p.layer
    of_one_step = layer(make_problem(replace(case, T=1, lengths=None), dtype).x)[0]
    axis = of_one_step.ndim - (3 - layer.batch_first if case.batched else 2)
    shape = np.delete(of_one_step, 0, axis).shape
    zeros = {n: np.zeros_like(a) for n, a in named_states(p.d_state).items()}
    initial = named_states(p.state) if case.state else zeros

    for padding in ("post", "pre"):
        output, state = layer(p.x, p.state, lengths=p.lengths, padding=padding)
        assert output.shape == shape
        assert output.dtype == dtype
        for part, array in named_states(state).items():
            assert_same_bits(array, initial[part], part)
    out = np.empty(shape, dtype)
    assert layer(p.x, p.state, lengths=p.lengths, out=out)[0] is out

    output, state, tape = layer.forward(p.x, p.state, lengths=p.lengths, seed=1)
    assert output.shape == shape
    for part, array in named_states(state).items():
        assert_same_bits(array, initial[part], part)
    grads = tape.backward(np.empty(shape, dtype), p.d_state)
    assert grads.x.shape == p.x.shape
    for part, array in named_states(grads.state).items():
        assert_same_bits(array, named_states(p.d_state)[part], part)
    for parameter, array in grads.params.items():
        assert_same_bits(array, np.zeros_like(layer.params[parameter]), parameter)
    again = tape.backward(None, p.d_state, accumulate=grads, needs=["x", "state", "params"])
    assert again.x.shape == p.x.shape

    trace = layer.trace(p.x, p.state, lengths=p.lengths, d_state=p.d_state)
    for cell in (cell for cells in trace for cell in cells):
        for array in cell:
            assert array.shape[:-1] == p.x.shape[:-1]
    memory = layer.training_memory(0, case.B)
    assert memory.bytes >= 0
    assert 0 <= memory.extra_time <= 1 / 3


def test_no_steps_of_a_long_series() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    assert list(fastlstm.truncated_bptt(layer, np.ones((0, 2, 3)), 5)) == []
    stream = layer.stream(2)
    before = stream.state
    assert stream.run(np.ones((0, 2, 3))).shape == (0, 2, 4)
    assert_same_states(stream.state, before)


def test_sentences_without_words() -> None:
    embeddings = fastlstm.embeddings.Embeddings(["a"], [[1.0, 2.0]])
    layer = fastlstm.LSTM(2, 3, seed=0)
    for sentences in ([[], []], []):
        x, lengths = embeddings.lookup(sentences)
        output, (h_n, c_n) = layer(x, lengths=lengths)
        assert output.shape == (0, len(sentences), 3)
        assert not h_n.any()
        assert not c_n.any()

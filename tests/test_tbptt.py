"""Truncated back-propagation through time, against one pass and against gradients cut by hand."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from support import (
    DTYPES,
    Case,
    Problem,
    assert_gradients_close,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    time_major,
)
from tolerances import BACKWARD

pytestmark = pytest.mark.every_isa

CASES = {
    "plain": Case(T=23),
    "no state": Case(T=23, state=False),
    "batch first": Case(T=23, options={"batch_first": True}),
    "unbatched": Case(T=23, batched=False),
    "unbatched, batch first": Case(T=23, batched=False, options={"batch_first": True}),
    "layers, projection": Case(T=23, options={"num_layers": 2, "proj_size": 3}),
    "lengths": Case(T=23, B=5, lengths=(23, 0, 7, 10, 12)),
}


def part(p: Problem, sequence: np.ndarray, steps: slice) -> np.ndarray:
    """Some steps of a sequence in the layer's layout."""
    return time_major(p.layer, time_major(p.layer, sequence)[steps])


def chunks(p: Problem, *k: int, **options: Any) -> list[fastlstm.Chunk]:
    return list(
        fastlstm.truncated_bptt(p.layer, p.x, *k, state=p.state, lengths=p.lengths, **options)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k1", [1, 5, 23, 100])
def test_outputs_and_states_are_those_of_one_call(name: str, dtype: str, k1: int) -> None:
    p = make_problem(CASES[name], dtype)
    made = chunks(p, k1)
    output, state = p.layer(p.x, p.state, lengths=p.lengths)
    assert [c.steps for c in made] == [slice(t, min(t + k1, 23)) for t in range(0, 23, k1)]
    parts = [time_major(p.layer, c.output) for c in made]
    assert_same_bits(time_major(p.layer, np.concatenate(parts)), output)
    for got, want in zip(made[-1].state, state, strict=True):
        assert_same_bits(got, want)


@pytest.mark.parametrize("name", CASES)
def test_one_chunk_has_the_gradients_of_one_pass_bit_by_bit(name: str) -> None:
    p = make_problem(CASES[name], "float32")
    (chunk,) = chunks(p, 23)
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    got = gradient_arrays(chunk.backward(p.d_output, p.d_state))
    want = gradient_arrays(tape.backward(p.d_output, p.d_state))
    for key in want:
        assert_same_bits(got[key], want[key], key)


@pytest.mark.parametrize("name", CASES)
def test_gradients_that_reach_the_start_sum_to_those_of_one_pass(name: str) -> None:
    p = make_problem(CASES[name], "float64")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    want = tape.backward(p.d_output, p.d_state)
    got: fastlstm.Gradients | None = None
    d_x = np.zeros_like(p.x)
    d_state = [np.zeros_like(s) for s in p.d_state]
    for chunk in chunks(p, 5, 25):
        last = chunk.steps.stop == 23
        got = chunk.backward(
            part(p, p.d_output, chunk.steps), p.d_state if last else None, accumulate=got
        )
        assert chunk.window == slice(0, chunk.steps.stop)
        part(p, d_x, chunk.window)[...] += got.x
        for total, gradient in zip(d_state, got.state, strict=True):
            total += gradient
    assert got is not None
    got.x, got.state = d_x, (d_state[0], d_state[1])
    assert_gradients_close(got, want, BACKWARD["float64"])


def test_a_window_of_whole_blocks_has_the_bits_of_one_pass() -> None:
    """Sums over rows go block by block of 256 rows (csrc/runtime/tuning.hpp)."""
    p = make_problem(Case(T=256, B=8, I=5, H=9, options={"num_layers": 2}), "float32")
    made = chunks(p, 128, 256)
    p.d_output[:128] = 0
    _, _, tape = p.layer.forward(p.x, p.state)
    got = gradient_arrays(made[-1].backward(p.d_output[128:], p.d_state))
    for key, want in gradient_arrays(tape.backward(p.d_output, p.d_state)).items():
        assert_same_bits(got[key], want, key)


@pytest.mark.parametrize("k2", [5, 10, 15])
def test_gradients_are_cut_k2_steps_before_the_end_of_a_chunk(k2: int) -> None:
    p = make_problem(CASES["plain"], "float64")
    for chunk in chunks(p, 5, k2):
        end = chunk.steps.stop
        start = max(0, chunk.steps.start + 5 - k2)
        assert chunk.window == slice(start, end)
        # One call over the window alone, from the state that the series has there.
        _, begin = p.layer(p.x[:start], p.state) if start else (None, p.state)
        _, _, tape = p.layer.forward(p.x[start:end], begin)
        d_output = p.d_output[start:end].copy()
        d_output[: chunk.steps.start - start] = 0
        want = tape.backward(d_output)
        got = chunk.backward(p.d_output[chunk.steps])
        assert_gradients_close(got, want, BACKWARD["float64"])


def test_parameters_may_change_between_chunks() -> None:
    p = make_problem(CASES["plain"], "float32")
    old = p.layer.state_dict()
    first, second = None, None
    for chunk in fastlstm.truncated_bptt(p.layer, p.x, 12, 24, state=p.state):
        first, second = second, chunk
        p.layer.update({name: 0.5 * value for name, value in p.layer.params.items()})
    assert first is not None
    assert second is not None
    new = fastlstm.LSTM(5, 7)
    new.load_state_dict({name: 0.5 * value for name, value in old.items()})
    output, state, tape = new.forward(p.x[12:], first.state)
    assert_same_bits(second.output, output)
    # Back through the second chunk with the new parameters, and through the first with the old.
    got = second.backward(p.d_output[12:])
    grads = tape.backward(p.d_output[12:])
    new.load_state_dict(old)
    grads = new.forward(p.x[:12], p.state)[2].backward(None, grads.state, accumulate=grads)
    for name, want in grads.params.items():
        assert_same_bits(got.params[name], want, name)
    assert_same_bits(second.state[0], state[0])


def test_chunks_have_dropout_masks_of_their_own() -> None:
    layer = fastlstm.LSTM(3, 8, num_layers=2, dropout=0.5, seed=1)
    x = np.ones((12, 2, 3), np.float32)
    made = list(fastlstm.truncated_bptt(layer, x, 4, seed=2**64 - 1))
    state = None
    for n, chunk in enumerate(made):
        output, state, _ = layer.forward(x[:4], state, seed=(2**64 - 1 + n) % 2**64)
        assert_same_bits(chunk.output, output)
    again = list(fastlstm.truncated_bptt(layer, x, 4))
    assert not np.array_equal(again[0].output, made[0].output)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k1": 0}, ValueError, "k1: expected an integer from 1"),
        ({"k1": 2.5}, TypeError, "k1: expected an integer, got float"),
        ({"k2": 4}, ValueError, "k2: expected an integer from 5"),
        ({"k2": 12}, ValueError, r"k2: expected a multiple of k1 \(5\), got 12"),
        ({"x": np.ones((4, 3, 6))}, ValueError, r"x: expected \(T, B, 5\)"),
        ({"state": 1}, TypeError, "state: expected a tuple of two arrays"),
        ({"lengths": [1]}, ValueError, r"lengths: expected \(3,\)"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    p = make_problem(CASES["plain"], "float32")
    with pytest.raises(error, match=message):
        fastlstm.truncated_bptt(p.layer, **{"x": p.x, "k1": 5, **change})


@pytest.mark.parametrize("option", ["bidirectional", "reverse"])
def test_layers_that_read_from_the_end_are_refused(option: str) -> None:
    layer = fastlstm.LSTM(3, 4, **{option: True})
    with pytest.raises(ValueError, match="reads sequences from their start"):
        fastlstm.truncated_bptt(layer, np.ones((4, 1, 3)), 2)


def test_one_sequence_without_a_batch_axis_has_no_lengths() -> None:
    layer = fastlstm.LSTM(3, 4)
    with pytest.raises(ValueError, match="lengths: expected None"):
        fastlstm.truncated_bptt(layer, np.ones((4, 3)), 2, lengths=[4])

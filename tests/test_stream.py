"""Streaming: the same results step by step, in chunks, or whole; state and reset."""

from __future__ import annotations

import copy
import pickle
import sys
import tracemalloc
from collections.abc import Callable

import fastlstm
import numpy as np
import pytest
from support import DTYPES, Case, assert_same_bits, make_problem

pytestmark = pytest.mark.every_isa

CASES = {
    "plain": Case(T=12),
    "one sequence": Case(T=12, B=1),
    "wide": Case(T=8, B=2, I=17, H=53),
    "projection": Case(T=12, options={"proj_size": 3}),
    "no bias": Case(T=12, options={"bias": False}),
    "three layers": Case(T=12, B=5, options={"num_layers": 3}),
    "two layers with projection": Case(T=12, options={"num_layers": 2, "proj_size": 2}),
    "batch first": Case(T=12, options={"batch_first": True, "num_layers": 2}),
    "more than a block": Case(T=30, B=50, I=3, H=9, options={"num_layers": 2}),
}


def steps_of(layer: fastlstm.LSTM, x: np.ndarray) -> np.ndarray:
    return x.swapaxes(0, 1) if layer.batch_first else x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_step_by_step(case: Case, dtype: str) -> None:
    p = make_problem(case, dtype)
    output, (h_n, c_n) = p.layer(p.x, p.state)
    stream = p.layer.stream(case.B)
    assert stream.batch_size == case.B
    stream.state = p.state
    for x_t, expected in zip(steps_of(p.layer, p.x), steps_of(p.layer, output), strict=True):
        assert_same_bits(stream.step(x_t), expected, "h")
    assert_same_bits(stream.state[0], h_n, "h_n")
    assert_same_bits(stream.state[1], c_n, "c_n")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(12,), (1, 11), (5, 0, 7), (4, 4, 4), (11, 1)], ids=str)
@pytest.mark.parametrize("case", ["plain", "one sequence", "two layers with projection"])
def test_chunks(case: str, sizes: tuple[int, ...], dtype: str) -> None:
    p = make_problem(CASES[case], dtype)
    output, (h_n, c_n) = p.layer(p.x, p.state)
    stream = p.layer.stream(p.x.shape[1])
    stream.state = p.state
    chunks = [stream.run(x) for x in np.split(p.x, np.cumsum(sizes)[:-1])]
    assert [len(chunk) for chunk in chunks] == list(sizes)
    assert_same_bits(np.concatenate(chunks), output, "output")
    assert_same_bits(stream.state[0], h_n, "h_n")
    assert_same_bits(stream.state[1], c_n, "c_n")


def test_steps_and_chunks_mix() -> None:
    p = make_problem(CASES["three layers"], "float32")
    output, _ = p.layer(p.x)
    stream = p.layer.stream(5)
    parts = [stream.run(p.x[:3]), stream.step(p.x[3])[None], stream.run(p.x[4:9])]
    parts += [stream.step(x_t)[None] for x_t in p.x[9:]]
    assert_same_bits(np.concatenate(parts), output, "output")


@pytest.mark.parametrize("batch_first", [False, True])
def test_run_keeps_the_layout_of_the_layer(batch_first: bool) -> None:
    p = make_problem(Case(options={"batch_first": batch_first}), "float32")
    assert_same_bits(p.layer.stream(3).run(p.x), p.layer(p.x)[0])
    single = p.x[:1] if batch_first else p.x[:, :1]
    sequence = single.reshape(6, 5)
    expected, _ = p.layer(sequence)
    result = p.layer.stream().run(sequence)
    assert result.shape == expected.shape == (6, 7)
    assert_same_bits(result, expected)
    assert_same_bits(p.layer.stream().run(single).reshape(6, 7), expected)


def test_a_new_stream_starts_with_zeros() -> None:
    layer = fastlstm.LSTM(3, 5, num_layers=2, proj_size=2)
    h, c = layer.stream(4).state
    assert h.shape == (2, 4, 2)
    assert c.shape == (2, 4, 5)
    assert h.dtype == c.dtype == np.float32
    assert not h.any()
    assert not c.any()


def test_state_is_copied_both_ways() -> None:
    p = make_problem(CASES["plain"], "float32")
    stream = p.layer.stream(3)
    stream.state = p.state
    h, c = stream.state
    assert_same_bits(h, p.state[0])
    assert_same_bits(c, p.state[1])
    expected = stream.step(p.x[0])
    kept = h.copy()
    stream.step(p.x[1])
    assert_same_bits(h, kept, "a state taken before")
    stream.state = [a.astype(np.float64).tolist() for a in p.state]
    for array in (h, c, *p.state):
        array[:] = 7
    assert_same_bits(stream.step(p.x[0]), expected)


def test_streams_of_one_layer_are_apart() -> None:
    p = make_problem(CASES["plain"], "float32")
    expected, _ = p.layer(p.x)
    a, b = p.layer.stream(3), p.layer.stream(3)
    for x_t, h in zip(p.x, expected, strict=True):
        b.step(-x_t)
        p.layer(x_t[None])
        assert_same_bits(a.step(x_t), h)


def test_a_stream_keeps_the_parameters_it_was_made_with() -> None:
    p = make_problem(CASES["plain"], "float32")
    expected, _ = p.layer(p.x)
    stream = p.layer.stream(3)
    first = stream.run(p.x[:5])
    p.layer.update({name: w * 2 for name, w in p.layer.params.items()})
    assert_same_bits(np.concatenate([first, stream.run(p.x[5:])]), expected)
    layer, p.layer = p.layer, None
    del layer
    stream.run(p.x)


@pytest.mark.parametrize(
    ("rows", "zeroed"),
    [
        (None, [0, 1, 2]),
        (1, [1]),
        (-1, [2]),
        (np.int64(0), [0]),
        (slice(1, None), [1, 2]),
        ([0, 2], [0, 2]),
        ((2, 0), [0, 2]),
        ([], []),
        ((), []),
        (np.array([1, 1]), [1]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
    ],
    ids=str,
)
def test_reset(rows: object, zeroed: list[int]) -> None:
    p = make_problem(Case(T=4, options={"num_layers": 2}), "float32")
    stream = p.layer.stream(3)
    stream.run(p.x)
    h, c = stream.state
    stream.reset(rows)
    for before, after in ((h, stream.state[0]), (c, stream.state[1])):
        before[:, zeroed] = 0
        assert_same_bits(after, before)
    # The rows go on as new ones.
    result = stream.run(p.x)
    expected, _ = p.layer(p.x, (h, c))
    assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 1], [1, 1, 1], [0, 0, 2]], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize(
    "layer",
    [
        lambda dtype: fastlstm.LSTM(5, 7, 2, proj_size=3, dtype=dtype, seed=0),
        lambda dtype: fastlstm.GRU(5, 7, 2, reset_after=False, dtype=dtype, seed=0),
        lambda dtype: fastlstm.RNN(5, 7, dtype=dtype, seed=0),
    ],
    ids=["LSTM", "GRU", "RNN"],
)
def test_reorder(layer: Callable[[str], fastlstm.LSTM], steps: int, rows: list[int], dtype: str):
    random = np.random.default_rng(1)
    x = random.normal(size=(steps + 3, 3, 5)).astype(dtype)
    stream, plain = layer(dtype).stream(3), layer(dtype).stream(3)
    for x_t in x[:steps]:
        stream.step(x_t)
        plain.step(x_t)
    stream.reorder(np.array(rows, np.int32))
    state = plain.state
    parts = state if isinstance(state, tuple) else (state,)
    moved = tuple(part[:, rows] for part in parts)
    plain.state = moved if isinstance(state, tuple) else moved[0]
    after = stream.state if isinstance(state, tuple) else (stream.state,)
    for actual, expected in zip(after, moved, strict=True):
        assert_same_bits(actual, expected)
    for x_t in x[steps:]:
        assert_same_bits(stream.step(x_t), plain.step(x_t))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 1, 3], ValueError, "rows: expected values from 0 to 2, got 0 to 3"),
        ([0, -1, 1], ValueError, "rows: expected values from 0 to 2, got -1 to 1"),
        ([0, 1], ValueError, r"rows: expected \(3,\), got \(2,\)"),
        (1, ValueError, r"rows: expected \(3,\), got \(\)"),
        ([True, False, True], TypeError, "rows: expected integers, got an array of bool"),
        ([0.0, 1.0, 2.0], TypeError, "rows: expected integers, got an array of float64"),
        (None, TypeError, "rows: expected"),
    ],
)
def test_wrong_rows_to_reorder(rows: object, error: type[Exception], message: str) -> None:
    stream = fastlstm.LSTM(2, 3, seed=0).stream(3)
    stream.step(np.ones((3, 2), np.float32))
    h = stream.state[0]
    with pytest.raises(error, match=message):
        stream.reorder(rows)
    assert_same_bits(stream.state[0], h)


@pytest.mark.parametrize("dtype", DTYPES)
def test_out(dtype: str) -> None:
    p = make_problem(CASES["two layers with projection"], dtype)
    stream, other = p.layer.stream(3), p.layer.stream(3)
    out = np.full((3, 2), np.nan, dtype)
    for x_t in p.x:
        expected = other.step(x_t)
        assert stream.step(x_t, out=out) is out
        assert_same_bits(out, expected)
    with pytest.raises(ValueError, match="out: expected memory of its own, got some of x's"):
        fastlstm.LSTM(2, 2, dtype=dtype).stream(3).step(out, out)


def test_results_are_new_arrays() -> None:
    p = make_problem(CASES["plain"], "float32")
    stream = p.layer.stream(3)
    first = stream.step(p.x[0])
    kept = first.copy()
    second = stream.step(p.x[1])
    assert_same_bits(first, kept)
    first[:] = second[:] = 7
    assert not (stream.state[0] == 7).any()


def test_steps_with_out_keep_no_memory() -> None:
    stream = fastlstm.LSTM(100, 128, num_layers=2, seed=0).stream(64)
    x, out = np.ones((64, 100), np.float32), np.empty((64, 128), np.float32)
    stream.step(x, out)
    tracemalloc.start()
    try:
        stream.step(x, out)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            stream.step(x, out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy reports the memory of its arrays; these have 25,600 bytes and more.
    assert peak - before < 10_000
    assert after - before < 10_000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_arrays_that_need_checks_give_the_same(batch_first: bool, dtype: str) -> None:
    case = Case(T=12, B=1, options={"batch_first": batch_first})
    p = make_problem(case, dtype)
    quick, careful = p.layer.stream(), p.layer.stream()
    wide = np.zeros((*p.x.shape[:2], 2 * p.x.shape[2]), dtype)
    wide[..., ::2] = p.x
    x = wide[..., ::2]  # not contiguous
    assert_same_bits(careful.run(x), quick.run(p.x))
    assert_same_bits(careful.run(x.reshape(12, -1)), quick.run(p.x.reshape(12, -1)))
    first = (slice(None), 0) if batch_first else 0
    out = np.empty((1, 7), dtype)
    assert careful.step(x[first], out) is out
    assert_same_bits(out, quick.step(p.x[first]))
    assert_same_bits(careful.state[1], quick.state[1])


def test_results_keep_no_references() -> None:
    stream = fastlstm.GRU(1, 4, seed=0).stream()
    x, out = np.ones((1, 1), np.float32), np.empty((1, 4), np.float32)
    chunk = np.ones((3, 1, 1), np.float32)
    objects = (np.dtype(np.float32), x, out, chunk)

    def use() -> None:
        for _ in range(100):
            stream.step(x)
            stream.step(x, out)
            stream.run(chunk)
            assert stream.step(out[:, :1]).shape == out.shape  # with checks

    use()
    before = [sys.getrefcount(a) for a in objects]
    use()
    for a, count in zip(objects, before, strict=True):
        assert abs(sys.getrefcount(a) - count) < 50


@pytest.mark.parametrize(
    "x",
    [
        np.ones((3, 2, 1), np.float32),  # of two sequences
        np.ones((3, 1, 2), np.float32),  # of two inputs
        np.ones((2, 1, 1, 1), np.float32),
        np.ones(1, np.float32),
    ],
    ids=lambda x: str(x.shape),
)
def test_wrong_chunks(x: np.ndarray) -> None:
    stream = fastlstm.GRU(1, 4, seed=0).stream()
    stream.step(np.ones((1, 1), np.float32))
    h = stream.state
    with pytest.raises(ValueError, match="x: expected"):
        stream.run(x)
    assert_same_bits(stream.state, h)


def test_inputs_are_converted() -> None:
    p = make_problem(CASES["plain"], "float32")
    expected = p.layer.stream(3).step(p.x[0])
    for x in (p.x[0].astype(np.float64), p.x[0].tolist(), np.asfortranarray(p.x[0])):
        assert_same_bits(p.layer.stream(3).step(x), expected)


def test_special_values_stay_in_their_row_until_it_is_reset() -> None:
    p = make_problem(CASES["three layers"], "float32")
    clean = p.layer.stream(5).run(p.x)
    stream = p.layer.stream(5)
    stream.step(np.where(np.arange(5)[:, None] == 2, np.nan, p.x[0]))
    result = stream.run(p.x[1:])
    assert np.isnan(result[:, 2]).all()
    assert_same_bits(result[:, [0, 1, 3, 4]], clean[1:, [0, 1, 3, 4]])
    stream.reset(2)
    assert np.isfinite(stream.run(p.x)).all()


def test_no_dropout() -> None:
    layer = fastlstm.LSTM(3, 4, num_layers=2, dropout=0.9, seed=0)
    x = np.ones((5, 1, 3), np.float32)
    assert_same_bits(layer.stream().run(x), layer(x)[0])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_copied(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="make another and assign its state"):
        copied(fastlstm.LSTM(3, 4, seed=0).stream())


def test_masked_arrays_are_refused() -> None:
    stream = fastlstm.LSTM(2, 3, seed=0).stream()
    x = np.ma.masked_array(np.ones((1, 2), np.float32), mask=[[True, False]])
    for call in (lambda: stream.step(x), lambda: stream.run(x[None])):
        with pytest.raises(TypeError, match="x: "):
            call()

"""Pooling over time and attention: values and gradients, lengths, special values, errors."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn
from fastlstm.reference import blocks as reference
from finite_differences import relative_error, slope_error
from hypothesis import given
from hypothesis import strategies as st
from tolerances import Tolerance, assert_close

pytestmark = pytest.mark.every_isa

DTYPES = ("float32", "float64")
HOW = ("max", "mean", "last", "ends")
TOLERANCES = {
    "float32": Tolerance(5e-6, "roundings of sums and of exp in float32; 9e-7 measured"),
    "float64": Tolerance(1e-13, "the same in float64; 2e-15 measured"),
}


def laid_out(array: np.ndarray, batch_first: bool) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(0, 1)) if batch_first else array


# --- pooling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_the_reference_of_pooling(how: str, rng: np.random.Generator) -> None:
    x, d_y, lengths = rng.normal(size=(5, 4, 6)), rng.normal(size=(4, 6)), np.array([5, 2, 0, 1])
    gradient = reference.pool_backward(d_y, x, lengths, how)

    def loss() -> float:
        return float(np.sum(reference.pool(x, lengths, how) * d_y))

    assert slope_error(gradient, loss, x, step=1e-5) < 1e-8


@given(
    st.integers(0, 6),
    st.integers(0, 4),
    st.sampled_from([0, 2, 6, 34]),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(HOW),
    st.data(),
)
def test_pooling(
    T: int, B: int, n: int, batch_first: bool, dtype: str, how: Any, data: st.DataObject
) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)), np.int64)
    x = rng.standard_normal((T, B, n)).astype(dtype)
    inside = np.arange(T)[:, None] < lengths
    x[~inside] = np.nan  # padding contributes nothing
    d_y = rng.standard_normal((B, n)).astype(dtype)
    block = nn.Pool(how, batch_first=batch_first)
    given_x = laid_out(x, batch_first)
    y, tape = block.forward(given_x, lengths)
    np.testing.assert_array_equal(block(given_x, lengths), y)
    np.testing.assert_array_equal(nn.pool(given_x, lengths, how, batch_first=batch_first), y)
    clean = np.where(inside[..., None], x, 0).astype(np.float64)
    assert_close(y, reference.pool(clean, lengths, how), TOLERANCES[dtype], "y")
    d_x = reference.pool_backward(d_y.astype(np.float64), clean, lengths, how)
    found = tape.backward(d_y).x
    assert found.dtype == y.dtype == x.dtype
    assert_close(found, laid_out(d_x, batch_first), TOLERANCES[dtype], "d_x")


def test_of_equal_largest_values_the_first_has_the_gradient() -> None:
    y, tape = nn.Pool().forward(np.zeros((3, 1, 2)))
    np.testing.assert_array_equal(tape.backward(np.ones((1, 2))).x[:, 0, 0], [1, 0, 0])
    x = np.array([-np.inf, -np.inf]).reshape(2, 1, 1)
    y, tape = nn.Pool().forward(x)
    assert y[0, 0] == -np.inf
    np.testing.assert_array_equal(tape.backward([[1.0]]).x[:, 0, 0], [1, 0])


@pytest.mark.parametrize("how", ["max", "mean"])
def test_pooling_lets_nan_flow(how: Any) -> None:
    x = np.array([1.0, np.nan, 2.0, np.nan]).reshape(4, 1, 1)
    y, tape = nn.Pool(how).forward(x)
    assert np.isnan(y).all()
    if how == "max":
        np.testing.assert_array_equal(tape.backward([[1.0]]).x[:, 0, 0], [0, 1, 0, 0])
    assert nn.pool(x, [1], how)[0, 0] == 1


def test_pooling_and_threads(rng: np.random.Generator) -> None:
    x = rng.standard_normal((60, 40, 64))
    for how in ("max", "mean"):
        results = []
        for threads in (1, 2):
            with fastlstm.num_threads(threads):
                results.append(nn.pool(x, how=how))
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.Pool("min"), ValueError, "how: expected max, mean, last or ends, got 'min'"),
        (lambda: nn.Pool(batch_first=1), TypeError, "batch_first: expected True or False"),
        (lambda: nn.pool(np.ones((3, 2))), ValueError, r"x: expected \(T, B, n\), got \(3, 2\)"),
        (lambda: nn.pool(np.ones((3, 2, 1)), [4, 1]), ValueError, "lengths: expected values from"),
        (lambda: nn.pool(np.ones((3, 2, 1)), [1]), ValueError, r"lengths: expected \(2,\)"),
        (
            lambda: nn.pool(np.ones((3, 2, 1)), how="ends"),
            ValueError,
            "x: expected the features of two directions, got 1 in all",
        ),
        (
            lambda: nn.Pool().forward(np.ones((3, 2, 1)))[1].backward(np.ones((3, 2))),
            ValueError,
            r"d_y: expected \(2, 1\), got \(3, 2\)",
        ),
    ],
)
def test_errors_of_pooling(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# --- attention ---------------------------------------------------------------------------------


def test_the_reference_of_attention(rng: np.random.Generator) -> None:
    query, states = rng.normal(size=(3, 4, 5)), rng.normal(size=(6, 4, 5))
    d, lengths = rng.normal(size=query.shape), np.array([6, 2, 0, 1])
    grads = reference.attention_backward(d, query, states, lengths, 0.7)

    def loss() -> float:
        return float(np.sum(reference.attention(query, states, lengths, 0.7)[0] * d))

    for array, gradient in zip((query, states), grads, strict=True):
        assert slope_error(gradient, loss, array) < 1e-9


@given(
    st.integers(0, 5),
    st.integers(0, 6),
    st.integers(0, 4),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.data(),
)
def test_attention(
    T_q: int,
    T: int,
    B: int,
    H: int,
    scaled: bool,
    batch_first: bool,
    dtype: str,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)), np.int64)
    query, d = (rng.standard_normal((T_q, B, H)).astype(dtype) for _ in range(2))
    states = rng.standard_normal((T, B, H)).astype(dtype)
    inside = np.arange(T)[:, None] < lengths
    states[~inside] = np.nan  # padding contributes nothing
    clean = np.where(inside[..., None], states, 0).astype(np.float64)
    scale = 1 / np.sqrt(H) if scaled else 1.0
    expected, weights = reference.attention(query.astype(np.float64), clean, lengths, scale)
    d_query, d_states = reference.attention_backward(
        d.astype(np.float64), query.astype(np.float64), clean, lengths, scale
    )
    block = nn.Attention(scaled=scaled, batch_first=batch_first)
    y, tape = block.forward(laid_out(query, batch_first), laid_out(states, batch_first), lengths)
    grads = tape.backward(laid_out(d, batch_first))
    tolerance = TOLERANCES[dtype]
    for found, wanted, what in (
        (y, expected, "y"),
        (tape.weights, weights, "weights"),
        (grads.query, d_query, "d_query"),
        (grads.states, d_states, "d_states"),
    ):
        assert found.dtype == dtype
        assert_close(found, laid_out(wanted, batch_first), tolerance, what)
    if T_q > 0:  # one query for each sequence
        one, its_tape = block.forward(query[0], laid_out(states, batch_first), lengths)
        assert_close(one, expected[0], tolerance, "y of one")
        assert its_tape.weights.shape == (B, T)
        assert its_tape.backward(d[0]).query.shape == (B, H)


def test_attention_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    query, states, d = (rng.normal(size=s) for s in [(2, 3, 4), (2, 5, 4), (2, 3, 4)])
    mask = torch.tensor(np.arange(5) < np.array([5, 3])[:, None])[:, None]
    theirs = [torch.tensor(array, requires_grad=True) for array in (query, states)]
    their_y = torch.nn.functional.scaled_dot_product_attention(
        theirs[0], theirs[1], theirs[1], attn_mask=mask
    )
    their_y.backward(torch.tensor(d))
    block = nn.Attention(scaled=True, batch_first=True)
    y, tape = block.forward(query, states, [5, 3])
    grads = tape.backward(d)
    assert relative_error(y, their_y.detach().numpy()) < 1e-14
    assert relative_error(grads.query, theirs[0].grad.numpy()) < 1e-14
    assert relative_error(grads.states, theirs[1].grad.numpy()) < 1e-14


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.Attention(scaled=2), TypeError, "scaled: expected True or False"),
        (
            lambda: nn.Attention()(np.ones((2, 3)), np.ones((4, 2, 5))),
            ValueError,
            r"query: expected \(2, 5\) or \(T_q, 2, 5\), got \(2, 3\)",
        ),
        (
            lambda: nn.Attention()(np.ones((2, 3)), np.ones((2, 3))),
            ValueError,
            r"states: expected \(T, B, H\), got \(2, 3\)",
        ),
        (
            lambda: nn.Attention().forward(np.ones((2, 3)), np.ones((4, 2, 3)))[1].backward([1.0]),
            ValueError,
            r"d_y: expected \(2, 3\), got \(1,\)",
        ),
    ],
)
def test_errors_of_attention(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()

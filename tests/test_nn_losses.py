"""Losses: against the reference and PyTorch; lengths, special values, errors."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn
from fastlstm.reference import losses as reference
from finite_differences import relative_error, slope_error
from hypothesis import given
from hypothesis import strategies as st
from tolerances import Tolerance, assert_close

pytestmark = pytest.mark.every_isa

DTYPES = ("float32", "float64")
TOLERANCES = {
    "float32": Tolerance(3e-6, "exp and sums of logits in float32; 5e-7 measured"),
    "float64": Tolerance(1e-13, "the same in float64; 1e-15 measured"),
}


def laid_out(array: np.ndarray, batch_first: bool) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(0, 1)) if batch_first else array


# --- the reference -----------------------------------------------------------------------------


def test_the_reference_by_finite_differences(rng: np.random.Generator) -> None:
    x, log_std, y = (rng.normal(size=(6, 3)) for _ in range(3))
    classes, weights = np.array([0, 2, 1, 1, 0, 2]), np.array([0.5, 0.0, 2.0])
    quantiles = np.array([0.1, 0.5, 0.8])
    losses: dict[str, Any] = {
        "cross-entropy": lambda: reference.cross_entropy(x, classes, weights, 0.2),
        "binary": lambda: reference.binary_cross_entropy(x, 1 / (1 + np.exp(y))),
        "mse": lambda: reference.mse(x, y),
        "gaussian": lambda: reference.gaussian(x, log_std, y),
        "quantile": lambda: reference.quantile(x, y[:, 0], quantiles),
    }
    for name, loss in losses.items():
        assert slope_error(loss()[1], lambda loss=loss: loss()[0], x, 1e-4) < 1e-8, name
    gaussian = losses["gaussian"]
    assert slope_error(gaussian()[2], lambda: gaussian()[0], log_std) < 1e-8


# --- cross-entropy -----------------------------------------------------------------------------


@given(
    st.integers(0, 5),
    st.integers(0, 4),
    st.sampled_from([1, 2, 15, 16, 17, 100]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(["mean", "sum"]),
    st.data(),
)
def test_cross_entropy(
    T: int,
    B: int,
    V: int,
    smoothing: float,
    weighted: bool,
    batch_first: bool,
    dtype: str,
    reduction: str,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)), np.int64)
    logits = (3 * rng.standard_normal((T, B, V))).astype(dtype)
    y = rng.integers(0, V, (T, B))
    inside = np.arange(T)[:, None] < lengths
    logits[~inside], y[~inside] = np.nan, -5  # padding contributes nothing
    weights = rng.uniform(0.5, 2, V) if weighted else None
    loss, d_logits = nn.cross_entropy(
        laid_out(logits, batch_first),
        laid_out(y, batch_first),
        lengths,
        batch_first=batch_first,
        class_weights=weights,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    every = np.ones(V) if weights is None else weights
    expected, d = reference.cross_entropy(
        logits[inside].astype(np.float64), y[inside], every, smoothing
    )
    divisor = every[y[inside]].sum() if reduction == "mean" and inside.any() else 1.0
    assert loss == pytest.approx(expected / divisor, rel=1e-6 if dtype == "float32" else 1e-12)
    whole = np.zeros(logits.shape)
    whole[inside] = d / divisor
    assert d_logits.dtype == dtype
    assert_close(d_logits, laid_out(whole, batch_first), TOLERANCES[dtype], "d_logits")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_as_torch(reduction: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    logits, y, weights = rng.normal(size=(9, 5)), rng.integers(0, 5, 9), rng.uniform(0, 2, 5)
    y[[2, 4]] = 1
    for options in ({}, {"label_smoothing": 0.3}, {"ignore_index": 1}):
        for of_class in (None, weights):
            theirs = torch.tensor(logits, requires_grad=True)
            their_loss = torch.nn.functional.cross_entropy(
                theirs,
                torch.tensor(y),
                weight=None if of_class is None else torch.tensor(of_class),
                reduction=reduction,
                **options,
            )
            their_loss.backward()
            loss, d = nn.cross_entropy(
                logits, y, class_weights=of_class, reduction=reduction, **options
            )
            assert loss == pytest.approx(their_loss.item(), rel=1e-14)
            assert relative_error(d, theirs.grad.numpy()) < 1e-14


def test_what_is_impossible_and_what_is_certain() -> None:
    inf = np.inf
    loss, d = nn.cross_entropy([[0.0, -inf, 0.0]], [0])
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(d, [[-0.5, 0, 0.5]])
    loss, d = nn.cross_entropy([[0.0, -inf]], [1])
    assert loss == inf
    np.testing.assert_array_equal(d, [[1, -1]])
    loss, d = nn.cross_entropy([[-1e4, 1e4]], [0])
    assert loss == 2e4
    assert np.isnan(nn.cross_entropy([[-inf, -inf]], [1])[0])
    loss, d = nn.cross_entropy([[0.0, np.nan], [0.0, 0.0]], [0, 1], reduction="sum")
    assert np.isnan(loss)
    assert np.isnan(d[0]).all()
    np.testing.assert_array_equal(d[1], [0.5, -0.5])
    # A class without a weight may be impossible.
    loss, _ = nn.cross_entropy([[0.0, -inf]], [1], class_weights=[1, 0], reduction="sum")
    assert loss == 0


def test_of_nothing_the_loss_is_zero() -> None:
    for logits, y, lengths in (
        (np.ones((0, 3)), np.ones(0, int), None),
        (np.ones((2, 2, 3)), np.ones((2, 2), int), [0, 0]),
    ):
        loss, d = nn.cross_entropy(logits, y, lengths)
        assert loss == 0
        np.testing.assert_array_equal(d, np.zeros_like(logits))
    assert nn.mse(np.ones((2, 2)), np.zeros((2, 2)), [0, 0])[0] == 0


def test_cross_entropy_and_threads(rng: np.random.Generator) -> None:
    logits, y = rng.standard_normal((400, 700)).astype(np.float32), rng.integers(0, 700, 400)
    results = []
    for threads in (1, 2):
        with fastlstm.num_threads(threads):
            results.append(nn.cross_entropy(logits, y, label_smoothing=0.1))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


# --- with the linear layer ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [3, 70_000])  # of the latter 59 rows at a time
def test_linear_cross_entropy_is_both(V: int, dtype: str, rng: np.random.Generator) -> None:
    linear = nn.Linear(6, V, dtype=dtype, seed=0)
    x = rng.standard_normal((20, 8, 6)).astype(dtype)
    y, lengths = rng.integers(0, V, (20, 8)), [20, 3, 0, 20, 20, 9, 1, 20]
    options: dict[str, Any] = {"label_smoothing": 0.1, "ignore_index": int(y[0, 0])}
    loss, grads = nn.linear_cross_entropy(linear, x, y, lengths, **options)
    logits, tape = linear.forward(x)
    expected, d_logits = nn.cross_entropy(logits, y, lengths, **options)
    separate = tape.backward(d_logits)
    assert loss == pytest.approx(expected, rel=1e-14)
    assert_close(grads.x, separate.x, TOLERANCES[dtype], "d_x")
    for name, value in separate.params.items():
        assert_close(grads.params[name], value, TOLERANCES[dtype], name)
    twice_loss, twice = nn.linear_cross_entropy(linear, x, y, lengths, accumulate=grads, **options)
    assert twice_loss == loss
    assert_close(twice.params["weight"], 2 * separate.params["weight"], TOLERANCES[dtype], "twice")
    _, only = nn.linear_cross_entropy(linear, x, y, lengths, needs="bias", **options)
    assert only.x is None
    assert list(only.params) == ["bias"]


def test_linear_cross_entropy_of_nothing() -> None:
    linear = nn.Linear(2, 3, seed=0)
    loss, grads = nn.linear_cross_entropy(linear, np.full((2, 1, 2), np.nan), [[9], [9]], [0])
    assert loss == 0
    for gradient in (grads.x, *grads.params.values()):
        assert not gradient.any()


# --- numbers -----------------------------------------------------------------------------------


def call(name: str, x: Any, log_std: Any, y: Any, q: Any, *arguments: Any, **options: Any) -> Any:
    """A loss of numbers by its name."""
    match name:
        case "gaussian":
            return nn.gaussian(x, log_std, y, *arguments, **options)
        case "quantile":
            return nn.quantile(x, y, q, *arguments, **options)
        case "binary":
            return nn.binary_cross_entropy(x, y, *arguments, **options)
        case _:
            return nn.mse(x, y, *arguments, **options)


@given(
    st.sampled_from(["binary", "mse", "gaussian", "quantile"]),
    st.integers(0, 5),
    st.integers(0, 4),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(["mean", "sum"]),
    st.data(),
)
def test_losses_of_numbers(
    name: str,
    T: int,
    B: int,
    n: int,
    batch_first: bool,
    dtype: str,
    reduction: str,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)), np.int64)
    x, log_std = (rng.standard_normal((T, B, n)).astype(dtype) for _ in range(2))
    quantiles = np.array([0.1, 0.5, 0.8])[:n]
    y = rng.uniform(0, 1, (T, B) if name == "quantile" else (T, B, n))
    inside = np.arange(T)[:, None] < lengths
    for array in (x, log_std, y):
        array[~inside] = np.nan  # padding contributes nothing
    wide = np.float64
    expected, *gradients = {
        "binary": lambda: reference.binary_cross_entropy(x[inside].astype(wide), y[inside]),
        "mse": lambda: reference.mse(x[inside].astype(wide), y[inside]),
        "gaussian": lambda: reference.gaussian(
            x[inside].astype(wide), log_std[inside].astype(wide), y[inside]
        ),
        "quantile": lambda: reference.quantile(x[inside].astype(wide), y[inside], quantiles),
    }[name]()
    x, log_std, y = (laid_out(array, batch_first) for array in (x, log_std, y))
    loss, *found = call(
        name, x, log_std, y, quantiles, lengths, batch_first=batch_first, reduction=reduction
    )
    divisor = max(n * int(inside.sum()), 1) if reduction == "mean" else 1
    assert loss == pytest.approx(expected / divisor, rel=1e-13)
    for d, wanted in zip(found, gradients, strict=True):
        whole = np.zeros((T, B, n))
        whole[inside] = wanted / divisor
        assert d.dtype == dtype
        assert_close(d, laid_out(whole, batch_first), TOLERANCES[dtype], name)


def test_losses_of_numbers_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x, log_std, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.uniform(size=(4, 3))
    their_x, their_log = (torch.tensor(array, requires_grad=True) for array in (x, log_std))
    their_y = torch.tensor(y)
    for ours, theirs in (
        (nn.mse(x, y), lambda: f.mse_loss(their_x, their_y)),
        (
            nn.binary_cross_entropy(x, y),
            lambda: f.binary_cross_entropy_with_logits(their_x, their_y),
        ),
        (
            nn.gaussian(x, log_std, y),
            lambda: f.gaussian_nll_loss(their_x, their_y, (2 * their_log).exp()),
        ),
    ):
        for array in (their_x, their_log):
            array.grad = None
        loss = theirs()
        loss.backward()
        assert ours[0] == pytest.approx(loss.item(), rel=1e-13)
        for d, array in zip(ours[1:], (their_x, their_log), strict=False):
            assert relative_error(d, array.grad.numpy()) < 1e-13


def test_sure_predictions() -> None:
    inf = np.inf
    loss, d = nn.binary_cross_entropy([inf, -inf, 1e4], [1, 0, 1])
    assert loss == 0
    np.testing.assert_array_equal(d, np.zeros(3))
    assert nn.binary_cross_entropy([-inf], [1])[0] == inf
    assert np.isnan(nn.binary_cross_entropy([np.nan], [0])[0])
    loss, d = nn.quantile([[1.0, np.nan]], [1.0], [0.5, 0.9])
    assert np.isnan(loss)
    assert d[0, 0] == 0
    assert np.isnan(d[0, 1])


X = np.ones((3, 2, 4))
Y = np.ones((3, 2), int)


@pytest.mark.parametrize(
    ("run", "error", "text"),
    [
        (lambda: nn.cross_entropy(X, Y[:1]), ValueError, r"y: expected \(3, 2\), got \(1, 2\)"),
        (lambda: nn.cross_entropy(X, Y * 4), ValueError, "y: expected classes from 0 to 3"),
        (lambda: nn.cross_entropy(X, Y - 2), ValueError, "y: expected classes from 0 to 3"),
        (lambda: nn.cross_entropy(X, Y * 1.0), TypeError, "y: expected integers"),
        (lambda: nn.cross_entropy(1.0, Y), ValueError, r"logits: expected \(..., V\), got \(\)"),
        (lambda: nn.cross_entropy(X[..., :0], Y), ValueError, r"logits: expected \(..., V\)"),
        (lambda: nn.cross_entropy(X, Y, [4, 1]), ValueError, "lengths: expected values from 0"),
        (lambda: nn.cross_entropy(X[0], Y[0], [1]), ValueError, "lengths: expected None"),
        (
            lambda: nn.cross_entropy(X, Y, class_weights=[1]),
            ValueError,
            r"class_weights: expected \(4,\)",
        ),
        (
            lambda: nn.cross_entropy(X, Y, class_weights=[1, 1, 1, -1]),
            ValueError,
            "class_weights: expected finite numbers",
        ),
        (
            lambda: nn.cross_entropy(X, Y, label_smoothing=2),
            ValueError,
            "label_smoothing: expected a number from 0 to 1",
        ),
        (
            lambda: nn.cross_entropy(X, Y, reduction="none"),
            ValueError,
            "reduction: expected 'mean' or 'sum', got 'none'",
        ),
        (
            lambda: nn.cross_entropy(X, Y, ignore_index=1.5),
            TypeError,
            "ignore_index: expected an integer",
        ),
        (lambda: nn.cross_entropy(X, Y, batch_first=1), TypeError, "batch_first: expected True"),
        (lambda: nn.linear_cross_entropy(1, X, Y), TypeError, "linear: expected a Linear, got int"),
        (
            lambda: nn.linear_cross_entropy(nn.Linear(4, 2), X, Y, needs="logits"),
            ValueError,
            "needs: expected names",
        ),
        (lambda: nn.mse(X, Y), ValueError, r"y: expected \(3, 2, 4\), got \(3, 2\)"),
        (lambda: nn.mse(X, X, reduction=None), ValueError, "reduction: expected 'mean' or 'sum'"),
        (lambda: nn.binary_cross_entropy(X, 2 * X), ValueError, "y: expected numbers from 0 to 1"),
        (lambda: nn.gaussian(X, Y, X), ValueError, r"log_std: expected \(3, 2, 4\)"),
        (lambda: nn.quantile(X, Y, [0.5]), ValueError, r"prediction: expected \(..., 1\)"),
        (lambda: nn.quantile(X, Y, [0, 1, 0.5, 0.5]), ValueError, "quantiles: expected numbers"),
        (lambda: nn.quantile(X, X, [0.5] * 4), ValueError, r"y: expected \(3, 2\)"),
        (lambda: nn.quantile(X[0], Y[0], [0.5] * 4, [1, 1]), ValueError, "lengths: expected None"),
    ],
)
def test_errors(run: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run()

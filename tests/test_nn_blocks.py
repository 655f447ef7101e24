"""Blocks with parameters, and dropout: values and gradients, errors, copies, sparse gradients."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import fastlstm
import numpy as np
import philox
import pytest
from fastlstm import nn, optim
from fastlstm.optim import SparseRows
from fastlstm.reference import blocks as reference
from finite_differences import relative_error, slope_error
from hypothesis import given
from hypothesis import strategies as st
from tolerances import Tolerance, assert_close

pytestmark = pytest.mark.every_isa

DTYPES = ("float32", "float64")
# Sums of at most some thousand products, in units of the largest result.
TOLERANCES = {
    "float32": Tolerance(2e-6, "roundings of a sum in float32; 4e-7 measured"),
    "float64": Tolerance(1e-14, "roundings of a sum in float64; 1e-15 measured"),
}


def as64(array: Any) -> Any:
    return np.asarray(array, np.float64)


def check_linear(linear: nn.Linear, x: np.ndarray, d_y: np.ndarray) -> None:
    """Values and gradients against the reference."""
    tolerance = TOLERANCES[linear.dtype.name]
    W = as64(linear.params["weight"])
    b = as64(linear.params["bias"]) if linear.bias else np.zeros(linear.n_out)
    rows, d_rows = as64(x).reshape(-1, linear.n_in), as64(d_y).reshape(-1, linear.n_out)
    y, tape = linear.forward(x)
    assert y.dtype == linear.dtype
    assert y.shape == (*x.shape[:-1], linear.n_out)
    np.testing.assert_array_equal(linear(x), y)
    assert_close(y.reshape(-1, linear.n_out), reference.linear(rows, W, b), tolerance, "y")
    grads = tape.backward(d_y)
    d_x, d_W, d_b = reference.linear_backward(d_rows, rows, W)
    assert_close(grads.x, d_x.reshape(x.shape), tolerance, "d_x")
    assert_close(grads.params["weight"], d_W, tolerance, "d_W")
    if linear.bias:
        assert_close(grads.params["bias"], d_b, tolerance, "d_b")


# --- Linear ------------------------------------------------------------------------------------


def test_the_reference_of_linear(rng: np.random.Generator) -> None:
    x, W, b, d_y = (rng.normal(size=s) for s in [(3, 4), (2, 4), (2,), (3, 2)])
    grads = reference.linear_backward(d_y, x, W)
    for array, gradient in zip((x, W, b), grads, strict=True):
        error = slope_error(gradient, lambda: float(np.sum(reference.linear(x, W, b) * d_y)), array)
        assert error < 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_out", [1, 31, 63, 64, 65, 300])
@pytest.mark.parametrize("rows", [0, 1, 63, 65, 200])
def test_linear(rows: int, n_out: int, dtype: str, rng: np.random.Generator) -> None:
    linear = nn.Linear(17, n_out, dtype=dtype, seed=1)
    check_linear(
        linear,
        rng.standard_normal((rows, 17)).astype(dtype),
        rng.standard_normal((rows, n_out)).astype(dtype),
    )


@given(
    st.lists(st.integers(0, 5), max_size=3),
    st.integers(1, 130),
    st.integers(1, 130),
    st.booleans(),
    st.sampled_from(DTYPES),
)
def test_linear_of_any_shape(
    axes: list[int], n_in: int, n_out: int, bias: bool, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    check_linear(
        nn.Linear(n_in, n_out, bias, dtype=dtype, seed=0),
        rng.standard_normal((*axes, n_in)).astype(dtype),
        rng.standard_normal((*axes, n_out)).astype(dtype),
    )


def test_linear_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    linear = nn.Linear(7, 5, dtype="float64", seed=0)
    theirs = torch.nn.Linear(7, 5, dtype=torch.float64)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in linear.state_dict().items()})
    x = rng.normal(size=(4, 3, 7))
    their_x = torch.tensor(x, requires_grad=True)
    their_y = theirs(their_x)
    y, tape = linear.forward(x)
    assert relative_error(y, their_y.detach().numpy()) < 1e-14
    d_y = rng.normal(size=y.shape)
    their_y.backward(torch.tensor(d_y))
    grads = tape.backward(d_y)
    assert relative_error(grads.x, their_x.grad.numpy()) < 1e-14
    for name, parameter in theirs.named_parameters():
        assert relative_error(grads.params[name], parameter.grad.numpy()) < 1e-14


def test_linear_has_the_same_bits_for_any_number_of_threads(rng: np.random.Generator) -> None:
    linear = nn.Linear(120, 500, seed=0)
    x = rng.standard_normal((300, 120)).astype(np.float32)
    results = []
    for threads in (1, 2, 3):
        with fastlstm.num_threads(threads):
            y, tape = linear.forward(x)
            grads = tape.backward(y)
            results.append([y, grads.x, *grads.params.values()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(linear(x[7:9]), results[0][0][7:9])


def test_linear_computes_what_is_asked_for(rng: np.random.Generator) -> None:
    linear = nn.Linear(3, 2, dtype="float64", seed=0)
    y, tape = linear.forward(rng.normal(size=(4, 3)))
    all_of_it = tape.backward(y)
    only = tape.backward(y, needs="bias")
    assert only.x is None
    assert list(only.params) == ["bias"]
    np.testing.assert_array_equal(only.params["bias"], all_of_it.params["bias"])
    twice = tape.backward(y, accumulate=tape.backward(y))
    np.testing.assert_allclose(twice.params["weight"], 2 * all_of_it.params["weight"], rtol=1e-14)
    np.testing.assert_array_equal(twice.x, all_of_it.x)


def test_what_is_added_to_has_memory_of_its_own() -> None:
    linear = nn.Linear(2, 2, dtype="float64", seed=0)
    d_y = np.ones((2, 2))
    _, tape = linear.forward(np.ones((2, 2)))
    grads = tape.backward(d_y)
    grads.params["weight"] = d_y
    text = r"accumulate.params\['weight'\]: expected memory of its own, got some of d_y's"
    with pytest.raises(ValueError, match=text):
        tape.backward(d_y, accumulate=grads)
    np.testing.assert_array_equal(d_y, np.ones((2, 2)))


def test_linear_lets_nan_flow() -> None:
    linear = nn.Linear(3, 2, seed=0)
    x = np.zeros((2, 3), np.float32)
    x[1, 0] = np.nan
    y = linear(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


def test_a_tape_keeps_the_parameters_of_its_call(rng: np.random.Generator) -> None:
    linear = nn.Linear(3, 2, dtype="float64", seed=0)
    x, d_y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    W = linear.params["weight"]
    _, tape = linear.forward(x)
    linear.update({"weight": np.zeros((2, 3))})
    assert relative_error(tape.backward(d_y).x, d_y @ W) < 1e-14
    np.testing.assert_array_equal(linear(x), np.broadcast_to(linear.params["bias"], (4, 2)))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.Linear(0, 2), ValueError, "n_in: expected an integer from 1"),
        (lambda: nn.Linear(2, 1.5), TypeError, "n_out: expected an integer, got float"),
        (lambda: nn.Linear(2, 1, 1), TypeError, "bias: expected True or False"),
        (lambda: nn.Linear(2, 1, dtype="int8"), ValueError, "dtype: expected float32"),
        (lambda: nn.Linear(2, 1, seed=-1), ValueError, "seed: expected an integer from 0"),
        (lambda: nn.Linear(2, 1)(np.ones((3, 4))), ValueError, r"x: expected \(..., 2\), got"),
        (lambda: nn.Linear(2, 1)(1.0), ValueError, r"x: expected \(..., 2\), got \(\)"),
        (lambda: nn.Linear(2, 1)("ab"), TypeError, "x: expected real numbers"),
        (lambda: nn.Linear(2, 1).update({"W": 1}), ValueError, "values: expected names"),
        (lambda: nn.Linear(2, 1).update({"bias": [1, 2]}), ValueError, r"bias: expected \(1,\)"),
        (lambda: nn.Linear(2, 1).load_state_dict({}), ValueError, "missing: weight, bias"),
        (
            lambda: nn.Linear(2, 1).forward(np.ones((3, 2)))[1].backward(np.ones((3, 2))),
            ValueError,
            r"d_y: expected \(3, 1\), got \(3, 2\)",
        ),
        (
            lambda: nn.Linear(2, 1).forward(np.ones((3, 2)))[1].backward(0, needs="y"),
            ValueError,
            "needs: expected names of x, params, weight, bias, got 'y'",
        ),
        (
            lambda: (
                nn.Linear(2, 1).forward(np.ones((1, 2)))[1].backward(np.ones((1, 1)), accumulate=1)
            ),
            TypeError,
            "accumulate: expected Gradients",
        ),
    ],
)
def test_errors_of_linear(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_refused_update_changes_nothing() -> None:
    linear = nn.Linear(2, 1, seed=0)
    before = linear.state_dict()
    with pytest.raises(ValueError, match="bias"):
        linear.update({"weight": np.zeros((1, 2)), "bias": np.zeros(3)})
    for name, value in before.items():
        np.testing.assert_array_equal(linear.params[name], value)


@pytest.mark.parametrize(
    "block",
    [nn.Linear(3, 2, False, dtype="float64", seed=0), nn.Embedding(5, 2, padding=1, seed=0)],
    ids=["Linear", "Embedding"],
)
def test_copies(block: Any) -> None:
    for made in (
        copy.copy(block),
        copy.deepcopy(block),
        pickle.loads(pickle.dumps(block, protocol=5)),
    ):
        assert repr(made) == repr(block)
        np.testing.assert_array_equal(made.params["weight"], block.params["weight"])
        made.update({"weight": np.zeros(block.params["weight"].shape)})
        assert block.params["weight"].any()
        with pytest.raises(ValueError, match="read-only"):
            made.params["weight"][0] = 1
    assert block.num_parameters == block.params["weight"].size


def test_shown_options() -> None:
    assert repr(nn.Linear(3, 2)) == "Linear(3, 2)"
    assert repr(nn.Linear(3, 2, False, dtype="float64")) == (
        "Linear(3, 2, bias=False, dtype='float64')"
    )
    assert repr(nn.Embedding(5, 2, padding=1)) == "Embedding(5, 2, padding=1)"
    assert repr(nn.Dropout(0.5)) == "Dropout(0.5)"


# --- Embedding ---------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6), max_size=40),
    st.integers(1, 40),
    st.none() | st.integers(0, 6),
    st.sampled_from(DTYPES),
)
def test_embedding(tokens: list[int], D: int, padding: int | None, dtype: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((7, D))
    embedding = nn.Embedding(7, D, weight, padding, dtype=dtype)
    table = weight.astype(dtype)
    if padding is not None:
        table[padding] = 0
    indices = np.array(tokens, np.int64).reshape(-1, 1)
    y, tape = embedding.forward(indices)
    np.testing.assert_array_equal(y, table[indices])
    np.testing.assert_array_equal(embedding(indices), y)
    d_y = rng.standard_normal(y.shape).astype(dtype)
    grads = tape.backward(d_y)
    rows = grads.params["weight"]
    assert grads.x is None
    assert isinstance(rows, SparseRows)
    np.testing.assert_array_equal(rows.indices, sorted({*tokens} - {padding}))
    expected = reference.embedding_backward(as64(d_y), indices, 7, padding)
    assert_close(rows.to_dense(), expected, TOLERANCES[dtype], "d_weight")
    twice = tape.backward(d_y, accumulate=grads).params["weight"]
    assert_close(twice.to_dense(), 2 * expected, TOLERANCES[dtype], "twice")
    assert tape.backward(d_y, needs=()).params == {}


def test_the_reference_of_embedding(rng: np.random.Generator) -> None:
    weight, indices, d_y = rng.normal(size=(4, 3)), np.array([[2, 0], [2, 1]]), np.ones((2, 2, 3))
    gradient = reference.embedding_backward(d_y, indices, 4)
    assert slope_error(gradient, lambda: float(weight[indices].sum()), weight) < 1e-9


def test_embedding_of_loaded_vectors() -> None:
    vectors = fastlstm.embeddings.Embeddings(["yes", "no"], np.eye(2, 3))
    embedding = nn.Embedding(len(vectors), vectors.dim, vectors, dtype="float64")
    np.testing.assert_array_equal(embedding(vectors.indices(["no"])), [[0, 1, 0]])
    embedding.update({"weight": np.zeros((2, 3))})
    assert vectors["no"].any()


def test_embedding_has_the_same_bits_for_any_number_of_threads(rng: np.random.Generator) -> None:
    embedding = nn.Embedding(500, 64, seed=0)
    _, tape = embedding.forward(rng.integers(0, 500, (100, 64)))
    d_y = rng.standard_normal((100, 64, 64)).astype(np.float32)
    results = []
    for threads in (1, 2, 3):
        with fastlstm.num_threads(threads):
            results.append(tape.backward(d_y).params["weight"].values)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_embedding_takes_rows() -> None:
    embedding = nn.Embedding(5, 2, padding=0, seed=0)
    before = embedding.state_dict()["weight"]
    embedding.update({"weight": SparseRows([0, 3], np.ones((2, 2), np.float32), 5)})
    assert not embedding.params["weight"][0].any()
    np.testing.assert_array_equal(embedding.params["weight"][3], [1, 1])
    np.testing.assert_array_equal(embedding.params["weight"][[1, 2, 4]], before[[1, 2, 4]])
    with pytest.raises(ValueError, match=r"weight: expected rows of float32 \(5, 2\), got float64"):
        embedding.update({"weight": SparseRows([0], np.ones((1, 2)), 5)})


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.Embedding(0, 2), ValueError, "V: expected an integer from 1"),
        (lambda: nn.Embedding(3, 2, padding=3), ValueError, "padding: expected a token below 3"),
        (lambda: nn.Embedding(3, 2, np.ones((2, 2))), ValueError, r"weight: expected \(3, 2\)"),
        (lambda: nn.Embedding(3, 2)([3]), ValueError, "indices: expected tokens from 0 to 2"),
        (lambda: nn.Embedding(3, 2)([-1]), ValueError, "indices: expected tokens from 0 to 2"),
        (lambda: nn.Embedding(3, 2)([0.5]), TypeError, "indices: expected integers"),
        (lambda: nn.Embedding(3, 2)(["a"]), TypeError, "indices: expected integers"),
        (
            lambda: nn.Embedding(3, 2).forward([1])[1].backward(np.ones((1, 3))),
            ValueError,
            r"d_y: expected \(1, 2\)",
        ),
    ],
)
def test_errors_of_embedding(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# --- sparse gradients --------------------------------------------------------------------------


def sparse(rows: list[int], rng: np.random.Generator, dtype: str = "float64") -> SparseRows:
    return SparseRows(rows, rng.standard_normal((len(rows), 3)).astype(dtype), 6)


OPTIMIZERS = {
    "SGD": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda: optim.Adam(0.1),
    "AdamW": lambda: optim.AdamW(0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_sparse_steps_are_dense_steps_of_their_rows(
    make: Any, dtype: str, rng: np.random.Generator
) -> None:
    """Where every step has all rows it is the same step; else rows stay as they are."""
    p = {"w": rng.standard_normal((6, 3)).astype(dtype)}
    of_all, dense, q = make(), make(), dict(p)
    for _ in range(3):
        g = sparse(list(range(6)), rng, dtype)
        p, q = of_all.step(p, {"w": g}), dense.step(q, {"w": g.to_dense()})
        np.testing.assert_array_equal(p["w"], q["w"])
    before = p["w"].copy()
    moments = of_all.state_dict()["state"]["w"]
    new = of_all.step(p, {"w": sparse([1, 4], rng, dtype)})
    np.testing.assert_array_equal(new["w"][[0, 2, 3, 5]], before[[0, 2, 3, 5]])
    assert (new["w"][[1, 4]] != before[[1, 4]]).all()
    np.testing.assert_array_equal(p["w"], before)
    for name, value in of_all.state_dict()["state"]["w"].items():
        if name != "step":
            np.testing.assert_array_equal(value[[0, 2, 3, 5]], moments[name][[0, 2, 3, 5]])
            assert (value[[1, 4]] != moments[name][[1, 4]]).all()


def test_sparse_adam_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    p = {"w": rng.standard_normal((6, 3))}
    theirs = torch.tensor(p["w"], requires_grad=True)
    optimizer, peer = optim.Adam(0.1, eps=1e-99), torch.optim.SparseAdam([theirs], 0.1, eps=1e-99)
    for rows in ([1, 4], [0, 1], [4], [2, 3]):
        g = sparse(rows, rng)
        p = optimizer.step(p, {"w": g})
        theirs.grad = torch.sparse_coo_tensor(
            torch.tensor([rows]), torch.tensor(g.values), (6, 3), check_invariants=True
        )
        peer.step()
        assert relative_error(p["w"], theirs.detach().numpy()) < 1e-14


def test_step_rows_and_clipping(rng: np.random.Generator) -> None:
    g = {"w": sparse([1, 4], rng), "b": rng.standard_normal(2)}
    p = {"w": rng.standard_normal((6, 3)), "b": np.zeros(2)}
    clipped, norm = optim.clip_by_global_norm(g, 0.5)
    dense, same = optim.clip_by_global_norm({"w": g["w"].to_dense(), "b": g["b"]}, 0.5)
    assert norm == pytest.approx(same, rel=1e-14)
    np.testing.assert_allclose(clipped["w"].to_dense(), dense["w"], rtol=1e-13)
    optimizer = optim.SGD(1.0)
    rows = optimizer.step_rows(p, clipped)
    np.testing.assert_array_equal(rows["w"].indices, [1, 4])
    np.testing.assert_array_equal(rows["w"].values, p["w"][[1, 4]] - clipped["w"].values)
    np.testing.assert_array_equal(rows["b"], -clipped["b"])
    with pytest.raises(ValueError, match=r"grads\['w'\]: expected \(5, 3\), got \(6, 3\)"):
        optimizer.step({"w": np.zeros((5, 3))}, {"w": g["w"]})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([1, 1], np.ones((2, 3)), 4), ValueError, "indices: expected ascending rows of 4"),
        (([0, 4], np.ones((2, 3)), 4), ValueError, "indices: expected ascending rows of 4"),
        (([-1], np.ones((1, 3)), 4), ValueError, "indices: expected ascending rows of 4"),
        (([0.5], np.ones((1, 3)), 4), TypeError, "indices: expected integers"),
        (([0], np.ones((2, 3)), 4), ValueError, r"values: expected \(1, D\), got \(2, 3\)"),
        (([0], np.ones((1, 3), int), 4), TypeError, "values: expected float32 or float64"),
        (([0], np.ones((1, 3)), -1), ValueError, "num_rows: expected an integer from 0"),
    ],
)
def test_errors_of_sparse_rows(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SparseRows(*arguments)


def test_sums_of_sparse_rows(rng: np.random.Generator) -> None:
    a, b = sparse([0, 2, 5], rng), sparse([2, 3], rng)
    np.testing.assert_array_equal((a + b).to_dense(), a.to_dense() + b.to_dense())
    with pytest.raises(ValueError, match="expected float64"):
        a + sparse([1], rng, "float32")
    with pytest.raises(TypeError, match="unsupported operand"):
        a + 1


# --- Dropout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(), (5,), (4, 3, 37), (0, 3), (3, 0), (700, 100)])
def test_dropout(shape: tuple[int, ...], p: float, dtype: str, rng: np.random.Generator) -> None:
    x, d_y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    y, tape = nn.Dropout(p).forward(x, seed=7)
    width = shape[-1] if shape else 1
    rows = x.size // max(width, 1)
    mask = philox.dropout_mask(p, 7, philox.DROPOUT, 0, np.arange(rows), width).reshape(shape)
    np.testing.assert_array_equal(y, x * mask.astype(dtype))
    np.testing.assert_array_equal(tape.backward(d_y).x, d_y * mask.astype(dtype))
    assert y.dtype == x.dtype


def test_dropout_and_threads(rng: np.random.Generator) -> None:
    x = rng.standard_normal((300, 500))
    results = []
    for threads in (1, 2):
        with fastlstm.num_threads(threads):
            results.append(nn.Dropout(0.5, seed=1).forward(x)[0])
    np.testing.assert_array_equal(*results)


def test_dropout_draws_anew_for_each_call() -> None:
    first, second = nn.Dropout(0.5, seed=1), nn.Dropout(0.5, seed=1)
    x = np.ones((10, 10))
    a, b = first.forward(x)[0], first.forward(x)[0]
    assert (a != b).any()
    np.testing.assert_array_equal(a, second.forward(x)[0])
    np.testing.assert_array_equal(b, copy.deepcopy(second).forward(x)[0])
    first.training = False
    y, tape = first.forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(tape.backward(x).x, x)


def test_errors_of_dropout() -> None:
    with pytest.raises(ValueError, match=r"p: expected a number from 0 to 1, got 1\.5"):
        nn.Dropout(1.5)
    with pytest.raises(TypeError, match="x: expected real numbers"):
        nn.Dropout(0.5).forward("a")
    _, tape = nn.Dropout(0.5).forward(np.ones(3))
    with pytest.raises(ValueError, match=r"d_y: expected \(3,\), got \(4,\)"):
        tape.backward(np.ones(4))

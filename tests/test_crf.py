"""The linear-chain CRF: against its reference, all paths, finite differences and PyTorch."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn, reference
from finite_differences import numerical_gradient, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, assert_same_bits
from tolerances import CRF as TOLERANCE
from tolerances import assert_close

pytestmark = pytest.mark.every_isa

NAMES = ("start_transitions", "end_transitions", "transitions")


def problem(T: int, B: int, n: int, seed: int = 0, spread: float = 2.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, T + 1, B)
    if B:
        lengths[0] = T
    return {
        "emissions": random.normal(0, spread, (T, B, n)),
        "tags": random.integers(0, n, (T, B)),
        "lengths": lengths,
        "params": {
            "start_transitions": random.normal(0, spread, n),
            "end_transitions": random.normal(0, spread, n),
            "transitions": random.normal(0, spread, (n, n)),
        },
    }


def make(params: dict[str, Any], dtype: str = "float64", **options: Any) -> nn.CRF:
    crf = nn.CRF(len(params["transitions"]), dtype=dtype, **options)
    crf.update(params)
    return crf


def of_reference(p: dict[str, Any]) -> dict[str, Any]:
    """Losses, gradients of their sum, marginals and tags, a sequence at a time."""
    start, end, transitions = (p["params"][name] for name in NAMES)
    T, B, n = p["emissions"].shape
    losses = np.zeros(B)
    d = {name: np.zeros_like(p["params"][name]) for name in NAMES}
    d_x, marginals = np.zeros((T, B, n)), np.zeros((T, B, n))
    tags = np.full((T, B), -1)
    for b, length in enumerate(p["lengths"]):
        if length == 0:
            continue
        x = p["emissions"][:length, b]
        losses[b], g = reference.crf_loss(x, p["tags"][:length, b], start, end, transitions)
        d_x[:length, b] = g.emissions
        for name, value in zip(NAMES, (g.start, g.end, g.transitions), strict=True):
            d[name] += value
        marginals[:length, b] = reference.crf_marginals(x, start, end, transitions)
        tags[:length, b] = reference.crf_decode(x, start, end, transitions)
    return {"loss": losses.sum(), "x": d_x, "params": d, "marginals": marginals, "tags": tags}


# --- the reference ------------------------------------------------------------------------------


def test_the_reference_sums_over_all_paths() -> None:
    p = problem(4, 1, 3)
    x, tags = p["emissions"][:, 0], p["tags"][:, 0]
    scores = (p["params"][name] for name in NAMES)
    start, end, transitions = scores
    paths = [np.array(path) for path in itertools.product(range(3), repeat=4)]
    of_paths = np.array([reference.crf.crf_score(x, y, start, end, transitions) for y in paths])
    p_of_paths = np.exp(of_paths - np.log(np.exp(of_paths).sum()))
    loss, _ = reference.crf_loss(x, tags, start, end, transitions)
    place = next(k for k, path in enumerate(paths) if (path == tags).all())
    assert loss == pytest.approx(-np.log(p_of_paths[place]))
    marginals = np.zeros((4, 3))
    for path, probability in zip(paths, p_of_paths, strict=True):
        marginals[np.arange(4), path] += probability
    assert np.allclose(reference.crf_marginals(x, start, end, transitions), marginals, atol=1e-14)
    best = paths[of_paths.argmax()]
    assert (reference.crf_decode(x, start, end, transitions) == best).all()


def test_the_references_gradients_by_finite_differences() -> None:
    p = problem(5, 1, 3, seed=1)
    values = [p["emissions"][:, 0], *(p["params"][name] for name in NAMES)]
    tags = p["tags"][:, 0]
    _, gradients = reference.crf_loss(values[0], tags, *values[1:])
    for actual, value in zip(gradients, values, strict=True):
        wanted = numerical_gradient(
            lambda: reference.crf_loss(values[0], tags, *values[1:])[0], value
        )
        assert relative_error(actual, wanted) < 1e-9


# --- against the reference ----------------------------------------------------------------------

SIZES = [(1, 1, 1), (6, 3, 2), (7, 20, 9), (12, 5, 17), (5, 4, 33), (4, 2, 70), (3, 2, 200)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "B", "n"), SIZES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_values_and_gradients(T: int, B: int, n: int, batch_first: bool, dtype: str) -> None:
    p = problem(T, B, n)
    want = of_reference(p)
    crf = make(p["params"], dtype, batch_first=batch_first)
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    x = turn(p["emissions"]).astype(dtype)
    loss, grads = crf.loss(x, turn(p["tags"]), p["lengths"], reduction="sum")
    tolerance = TOLERANCE[dtype]
    assert isinstance(loss, float)
    assert_close(np.array(loss), np.array(want["loss"]), tolerance, "loss")
    assert_close(turn(grads.x), want["x"], tolerance, "x")
    assert grads.x.dtype == dtype
    assert list(grads.params) == list(NAMES)
    for name in NAMES:
        assert_close(grads.params[name], want["params"][name], tolerance, name)
    assert_close(turn(crf.marginals(x, p["lengths"])), want["marginals"], tolerance, "marginals")
    assert (turn(crf.decode(x, p["lengths"])) == want["tags"]).all()


def test_the_mean_is_over_sequences_with_steps() -> None:
    p = problem(5, 4, 3)
    p["lengths"] = np.array([5, 0, 2, 0])
    crf = make(p["params"])
    total, sums = crf.loss(p["emissions"], p["tags"], p["lengths"], reduction="sum")
    mean, means = crf.loss(p["emissions"], p["tags"], p["lengths"])
    assert mean == pytest.approx(total / 2)
    assert np.allclose(means.x, sums.x / 2)
    assert np.allclose(means.params["transitions"], sums.params["transitions"] / 2)


@pytest.mark.parametrize("spread", [30.0, 1000.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_far_apart(spread: float, dtype: str) -> None:
    """Where exponentials underflow, logarithms are used."""
    p = problem(20, 6, 5, seed=3, spread=spread)
    p["emissions"] = p["emissions"].astype(dtype).astype(float)
    p["params"] = {k: v.astype(dtype).astype(float) for k, v in p["params"].items()}
    want = of_reference(p)
    crf = make(p["params"], dtype)
    loss, grads = crf.loss(p["emissions"], p["tags"], p["lengths"], reduction="sum")
    assert loss == pytest.approx(want["loss"], rel=1e-6)
    # The gradients are of the order of 1, with the scores' roundings in the exponents.
    atol = spread * float(np.finfo(dtype).eps) * 100
    assert np.allclose(grads.x, want["x"], rtol=0, atol=atol)
    for name in NAMES:
        assert np.allclose(grads.params[name], want["params"][name], rtol=0, atol=20 * atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_only_path_is_one_that_nothing_spoke_for(dtype: str) -> None:
    """Each step is e^7 against the tag that alone leads on: in the end it is all that counts."""
    T, never = 60, -np.inf
    transitions = np.array([[-7.0, never], [never, 0.0]])
    params = {
        "start_transitions": np.array([0.0, -120.0]),
        "end_transitions": np.zeros(2),
        "transitions": transitions,
    }
    crf = make(params, dtype)
    loss, grads = crf.loss(np.zeros((T, 1, 2)), np.ones((T, 1), int))
    assert loss == pytest.approx(0.0, abs=1e-5)
    assert np.allclose(grads.x, 0, atol=1e-5)
    assert np.allclose(crf.marginals(np.zeros((T, 1, 2)))[:, 0], [0, 1])


# --- what may be special ------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "B"), [(0, 3), (3, 0), (0, 0)])
def test_nothing(T: int, B: int) -> None:
    crf = nn.CRF(4, seed=0)
    x = np.zeros((T, B, 4), np.float32)
    loss, grads = crf.loss(x, np.zeros((T, B), int))
    assert loss == 0
    assert grads.x.shape == x.shape
    assert all((g == 0).all() for g in grads.params.values())
    assert crf.decode(x).shape == (T, B)
    assert crf.marginals(x).shape == x.shape


def test_padding_is_not_read() -> None:
    p = problem(6, 3, 4)
    p["lengths"] = np.array([6, 2, 0])
    crf = make(p["params"])
    plain = crf.loss(p["emissions"], p["tags"], p["lengths"])
    x, tags = p["emissions"].copy(), p["tags"].copy()
    for b, length in enumerate(p["lengths"]):
        x[length:, b], tags[length:, b] = np.nan, -100
    loss, grads = crf.loss(x, tags, p["lengths"])
    assert loss == plain[0]
    assert_same_bits(grads.x, plain[1].x)
    assert (grads.x[2:, 1] == 0).all()
    assert (crf.decode(x, p["lengths"])[2:, 1] == -1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_forbidden_transitions(dtype: str) -> None:
    p = problem(8, 5, 4, seed=5)
    p["params"]["transitions"][1, 2] = p["params"]["transitions"][:, 3] = -np.inf
    p["params"]["start_transitions"][0] = -np.inf
    p["tags"][:] = 1
    p["lengths"][:] = 8
    want = of_reference(p)
    crf = make(p["params"], dtype)
    loss, grads = crf.loss(p["emissions"], p["tags"])
    assert loss == pytest.approx(want["loss"] / 5, rel=1e-5)
    assert np.allclose(grads.x, want["x"] / 5, atol=1e-6)
    transitions = grads.params["transitions"]
    assert np.allclose(transitions, want["params"]["transitions"] / 5, atol=1e-5)
    assert (transitions[:, 3] == 0).all()
    p["tags"][3] = 3
    assert crf.loss(p["emissions"], p["tags"])[0] == np.inf
    tags = crf.decode(p["emissions"])
    assert not (tags[1:] == 3).any()
    assert not (tags[0] == 0).any()


def test_no_path_at_all() -> None:
    crf = make({name: np.full(s, -np.inf) for name, s in zip(NAMES, (2, 2, (2, 2)), strict=True)})
    loss, grads = crf.loss(np.zeros((3, 1, 2)), np.zeros((3, 1), int))
    assert np.isnan(loss)
    assert grads.x.shape == (3, 1, 2)
    assert set(np.unique(crf.decode(np.zeros((3, 1, 2))))) <= {0, 1}


def test_nan_stays_in_its_sequence() -> None:
    p = problem(5, 3, 4)
    p["lengths"][:] = 5
    crf = make(p["params"])
    clean = crf.loss(p["emissions"], p["tags"])[1]
    p["emissions"][2, 1, 3] = np.nan
    loss, grads = crf.loss(p["emissions"], p["tags"])
    assert np.isnan(loss)
    assert np.isnan(grads.x[:, 1]).any()
    assert_same_bits(grads.x[:, [0, 2]], clean.x[:, [0, 2]])
    tags = crf.decode(p["emissions"])
    assert tags.min() >= 0
    assert tags.max() < 4


def test_equal_paths_give_the_lowest_tags() -> None:
    params = {"start_transitions": np.zeros(5), "end_transitions": np.zeros(5)}
    crf = make({**params, "transitions": np.zeros((5, 5))})
    assert (crf.decode(np.zeros((4, 2, 5))) == 0).all()


def test_threads_make_no_difference() -> None:
    p = problem(40, 37, 12)
    crf = make(p["params"], "float32")
    results = []
    for n in (1, 2, 3):
        with fastlstm.num_threads(n):
            results.append(crf.loss(p["emissions"], p["tags"], p["lengths"]))
    for loss, grads in results[1:]:
        assert loss == results[0][0]
        for name, value in grads.params.items():
            assert_same_bits(value, results[0][1].params[name])
        assert_same_bits(grads.x, results[0][1].x)


@settings(max_examples=40, deadline=None)
@given(
    T=st.integers(1, 6),
    B=st.integers(1, 4),
    n=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_marginals_are_probabilities_and_the_best_path_is_best(
    T: int, B: int, n: int, seed: int
) -> None:
    p = problem(T, B, n, seed)
    crf = make(p["params"])
    marginals = crf.marginals(p["emissions"], p["lengths"])
    inside = np.arange(T)[:, None] < p["lengths"]
    assert np.allclose(marginals.sum(-1), inside)
    best = crf.decode(p["emissions"], p["lengths"])
    loss = crf.loss(p["emissions"], best, p["lengths"])[0]
    assert loss <= crf.loss(p["emissions"], p["tags"], p["lengths"])[0] + 1e-12


# --- against PyTorch ----------------------------------------------------------------------------


def of_torch(torch: Any, p: dict[str, Any], dtype: str = "float64") -> tuple[Any, ...]:
    """The loss as pytorch-crf computes it, step by step over a batch, and its gradients."""
    x, start, end, transitions = (
        torch.tensor(a, dtype=getattr(torch, dtype), requires_grad=True)
        for a in (p["emissions"], *(p["params"][name] for name in NAMES))
    )
    tags, lengths = torch.tensor(p["tags"]), torch.tensor(p["lengths"])
    B = x.shape[1]
    rows = torch.arange(B)
    mask = torch.arange(len(x))[:, None] < lengths
    alpha = start + x[0]
    score = start[tags[0]] + x[0, rows, tags[0]]
    for t in range(1, len(x)):
        alive = mask[t][:, None]
        new = torch.logsumexp(alpha[:, :, None] + transitions, dim=1) + x[t]
        alpha = torch.where(alive, new, alpha)
        step = transitions[tags[t - 1], tags[t]] + x[t, rows, tags[t]]
        score = score + step * mask[t]
    score = score + end[tags[lengths - 1, rows]]
    loss = (torch.logsumexp(alpha + end, dim=1) - score).sum()
    loss.backward()
    return loss.item(), x.grad.numpy(), *(v.grad.numpy() for v in (start, end, transitions))


@pytest.mark.parametrize(("T", "B", "n"), [(9, 4, 3), (15, 7, 20)])
def test_against_torch(T: int, B: int, n: int) -> None:
    torch = pytest.importorskip("torch")
    p = problem(T, B, n)
    p["lengths"] = np.maximum(p["lengths"], 1)
    loss, grads = make(p["params"]).loss(p["emissions"], p["tags"], p["lengths"], reduction="sum")
    wanted = of_torch(torch, p)
    actual = (np.array(loss), grads.x, *(grads.params[name] for name in NAMES))
    for a, w in zip(actual, wanted, strict=True):
        assert_close(a, np.asarray(w), TOLERANCE["float64"], "torch")


# --- the block ----------------------------------------------------------------------------------


def test_parameters() -> None:
    crf = nn.CRF(5, seed=1)
    assert {name: a.shape for name, a in crf.params.items()} == {
        "start_transitions": (5,),
        "end_transitions": (5,),
        "transitions": (5, 5),
    }
    assert crf.num_parameters == 35
    assert all(a.dtype == np.float32 and np.abs(a).max() <= 0.1 for a in crf.params.values())
    assert_same_bits(crf.params["transitions"], nn.CRF(5, seed=1).params["transitions"])
    with pytest.raises(ValueError, match="read-only"):
        crf.params["transitions"][0, 0] = 1
    assert repr(crf) == "CRF(5)"
    for other in (copy.deepcopy(crf), copy.copy(crf), pickle.loads(pickle.dumps(crf))):
        assert_same_bits(other.params["transitions"], crf.params["transitions"])
        with pytest.raises(ValueError, match="read-only"):
            other.params["transitions"][0, 0] = 1
    other = nn.CRF(5)
    other.load_state_dict(crf.state_dict())
    assert_same_bits(other.params["transitions"], crf.params["transitions"])
    other.update({"end_transitions": np.ones(5)})
    assert (other.params["end_transitions"] == 1).all()
    assert_same_bits(other.params["transitions"], crf.params["transitions"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: nn.CRF(0), ValueError, "n: expected"),
        (lambda c: nn.CRF(2.5), TypeError, "n: expected"),
        (lambda c: nn.CRF(3, dtype="int8"), ValueError, "dtype: expected"),
        (lambda c: nn.CRF(3, seed=-1), ValueError, "seed: expected"),
        (lambda c: c.decode(np.zeros((4, 2))), ValueError, r"emissions: expected \(T, B, 3\)"),
        (lambda c: c.decode(np.zeros((4, 2, 5))), ValueError, r"emissions: expected \(T, B, 3\)"),
        (lambda c: c.decode(np.zeros((4, 2, 3), complex)), TypeError, "emissions: expected real"),
        (lambda c: c.decode(np.zeros((4, 2, 3)), [5, 1]), ValueError, "lengths: expected values"),
        (lambda c: c.decode(np.zeros((4, 2, 3)), [1]), ValueError, "lengths: expected"),
        (
            lambda c: c.loss(np.zeros((4, 2, 3)), np.zeros((2, 4), int)),
            ValueError,
            r"tags: expected \(4, 2\), got \(2, 4\)",
        ),
        (
            lambda c: c.loss(np.zeros((4, 2, 3)), np.full((4, 2), 3)),
            ValueError,
            "tags: expected values from 0 to 2, got 3 to 3",
        ),
        (
            lambda c: c.loss(np.zeros((4, 2, 3)), np.zeros((4, 2))),
            TypeError,
            "tags: expected integers",
        ),
        (
            lambda c: c.loss(np.zeros((4, 2, 3)), np.zeros((4, 2), int), reduction="none"),
            ValueError,
            "reduction: expected",
        ),
        (lambda c: c.update({"transition": 1}), ValueError, "values: expected names"),
        (lambda c: c.update({"transitions": np.zeros(3)}), ValueError, r"transitions: expected"),
        (lambda c: c.load_state_dict({}), ValueError, "state_dict: expected the parameters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(nn.CRF(3))

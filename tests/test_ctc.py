"""CTC: against its reference, all paths, finite differences and PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn, reference
from finite_differences import numerical_gradient, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, assert_same_bits
from tolerances import CTC as TOLERANCE
from tolerances import CTC_LONG, assert_close

pytestmark = pytest.mark.every_isa


def problem(T: int, B: int, V: int, S: int, seed: int = 0, spread: float = 2.0) -> dict[str, Any]:
    """Logits, lengths and targets, of which the first and some others have a path."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, T + 1, B)
    labels = random.integers(0, S + 1, B)
    if B:
        lengths[0], labels[0] = T, S
    return {
        "logits": random.normal(0, spread, (T, B, V)),
        "lengths": lengths,
        "targets": random.integers(1, V, (B, S)),
        "target_lengths": labels,
    }


def of_reference(p: dict[str, Any], blank: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Each sequence's loss and gradient."""
    B = p["logits"].shape[1]
    losses, d = np.zeros(B), np.zeros(p["logits"].shape)
    for b in range(B):
        T, S = p["lengths"][b], p["target_lengths"][b]
        losses[b], d[:T, b] = reference.ctc_loss(p["logits"][:T, b], p["targets"][b, :S], blank)
    return losses, d


# --- the reference ------------------------------------------------------------------------------


def labels_of(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    merged = [c for c, _ in itertools.groupby(path)]
    return tuple(c for c in merged if c != blank)


@pytest.mark.parametrize("target", [(), (1,), (1, 2), (1, 1), (2, 1, 2), (1, 1, 1)])
def test_the_reference_sums_over_all_paths(target: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total = sum(
        np.prod(p[np.arange(4), list(path)])
        for path in itertools.product(range(3), repeat=4)
        if labels_of(path, 0) == target
    )
    loss, d = reference.ctc_loss(logits, target)
    if total == 0:
        assert loss == np.inf
        assert (d == 0).all()
    else:
        assert loss == pytest.approx(-np.log(total))


@pytest.mark.parametrize("target", [(), (1, 2), (2, 2)])
def test_the_references_gradient_by_finite_differences(target: tuple[int, ...]) -> None:
    logits = np.random.default_rng(1).normal(size=(5, 4))
    _, d = reference.ctc_loss(logits, target)
    wanted = numerical_gradient(lambda: reference.ctc_loss(logits, target)[0], logits)
    assert relative_error(d, wanted) < 1e-9


# --- against the reference ----------------------------------------------------------------------

SIZES = [
    (1, 1, 2, 1),
    (6, 4, 3, 2),
    (20, 9, 5, 7),
    (40, 3, 17, 15),
    (50, 3, 30, 16),
    (70, 2, 9, 33),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "B", "V", "S"), SIZES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_values_and_gradients(
    T: int, B: int, V: int, S: int, batch_first: bool, dtype: str
) -> None:
    p = problem(T, B, V, S)
    losses, wanted = of_reference(p)
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    p["logits"] = turn(p["logits"]).astype(dtype)
    loss, d = nn.ctc(**p, batch_first=batch_first, reduction="sum", zero_infinity=True)
    possible = losses[np.isfinite(losses)]
    assert_close(np.array(loss), possible.sum(), TOLERANCE[dtype], "loss")
    assert_close(turn(d), wanted, TOLERANCE[dtype], "d_logits")
    assert d.dtype == dtype
    loss, again = nn.ctc(**p, batch_first=batch_first, reduction="sum")
    assert_same_bits(again, d)
    if possible.size < losses.size:
        assert loss == np.inf


def test_another_blank() -> None:
    p = problem(12, 4, 6, 4)
    p["targets"] -= 1
    losses, wanted = of_reference(p, blank=5)
    loss, d = nn.ctc(**p, blank=5, reduction="sum", zero_infinity=True)
    assert loss == pytest.approx(losses[np.isfinite(losses)].sum())
    assert np.allclose(d, wanted)


def test_the_mean_is_pytorchs() -> None:
    p = problem(30, 4, 6, 5)
    p["lengths"][:] = 30
    p["target_lengths"] = np.array([5, 0, 1, 3])
    losses, wanted = of_reference(p)
    parts = np.array([5, 1, 1, 3]) * 4
    loss, d = nn.ctc(**p)
    assert loss == pytest.approx((losses / parts).sum())
    assert np.allclose(d, wanted / parts[:, None])


def test_targets_one_after_the_other_and_without_lengths() -> None:
    p = problem(30, 3, 6, 5)
    wanted = nn.ctc(**p, zero_infinity=True)
    joined = np.concatenate(
        [row[:n] for row, n in zip(p["targets"], p["target_lengths"], strict=True)]
    )
    loss, d = nn.ctc(p["logits"], p["lengths"], joined, p["target_lengths"], zero_infinity=True)
    assert loss == wanted[0]
    assert_same_bits(d, wanted[1])
    whole = nn.ctc(p["logits"], None, p["targets"])
    same = nn.ctc(p["logits"], [30, 30, 30], p["targets"], [5, 5, 5])
    assert whole[0] == same[0]
    assert_same_bits(whole[1], same[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_logits_far_apart(spread: float, dtype: str) -> None:
    p = problem(40, 6, 8, 7, seed=3, spread=spread)
    p["logits"] = p["logits"].astype(dtype)
    losses, wanted = of_reference({**p, "logits": p["logits"].astype(float)})
    loss, d = nn.ctc(**p, reduction="sum", zero_infinity=True)
    assert loss == pytest.approx(losses[np.isfinite(losses)].sum(), rel=1e-6)
    assert np.allclose(d, wanted, rtol=0, atol=spread * float(np.finfo(dtype).eps) * 100)


# --- what may be special ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("T", "target", "possible"),
    [
        (2, [1, 2], True),
        (1, [1, 2], False),
        (2, [1, 1], False),
        (3, [1, 1], True),
        (0, [1], False),
        (0, [], True),
    ],
)
def test_targets_without_a_path(T: int, target: list[int], possible: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 1, 4))
    arguments = (logits, [T], np.array([target], int), [len(target)])
    loss, d = nn.ctc(*arguments)
    assert np.isfinite(loss) == possible
    assert (d[T:] == 0).all()
    if not possible:
        assert (d == 0).all()
        loss, d = nn.ctc(*arguments, zero_infinity=True)
        assert loss == 0
        assert (d == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_minus_infinity(dtype: str) -> None:
    p = problem(12, 2, 5, 3)
    p["lengths"][:] = 12
    p["targets"] = np.array([[1, 2, 3], [1, 2, 3]])
    p["target_lengths"][:] = 3
    p["logits"][:4, :, 1] = -np.inf  # late
    p["logits"][:, 1, 2] = -np.inf  # never: the second has no path
    losses, wanted = of_reference(p)
    assert np.isfinite(losses).tolist() == [True, False]
    p["logits"] = p["logits"].astype(dtype)
    assert nn.ctc(**p)[0] == np.inf
    loss, d = nn.ctc(**p, reduction="sum", zero_infinity=True)
    assert loss == pytest.approx(losses[0], rel=1e-6)
    assert_close(d, wanted, TOLERANCE[dtype], "d_logits")


def test_nan_stays_in_its_sequence() -> None:
    p = problem(20, 3, 5, 3)
    p["lengths"][:] = 20
    clean = nn.ctc(**p)[1]
    p["logits"][7, 1, 4] = np.nan
    loss, d = nn.ctc(**p)
    assert np.isnan(loss)
    assert np.isnan(d[:, 1]).any()
    assert_same_bits(d[:, [0, 2]], clean[:, [0, 2]])


@pytest.mark.parametrize(("T", "B", "S"), [(0, 2, 0), (3, 0, 2), (3, 2, 0), (0, 0, 0)])
def test_nothing(T: int, B: int, S: int) -> None:
    loss, d = nn.ctc(np.zeros((T, B, 4), np.float32), None, np.zeros((B, S), int))
    assert d.shape == (T, B, 4)
    assert d.dtype == np.float32
    assert loss == pytest.approx(T * np.log(4) if B else 0)


def test_padding_is_not_read() -> None:
    p = problem(15, 4, 5, 4)
    plain = nn.ctc(**p, zero_infinity=True)
    for b in range(4):
        p["logits"][p["lengths"][b] :, b] = np.nan
        p["targets"][b, p["target_lengths"][b] :] = -1
    loss, d = nn.ctc(**p, zero_infinity=True)
    assert loss == plain[0]
    assert_same_bits(d, plain[1])


def test_threads_make_no_difference() -> None:
    p = problem(60, 13, 40, 20)
    p["logits"] = p["logits"].astype(np.float32)
    results = []
    for n in (1, 2, 3):
        with fastlstm.num_threads(n):
            results.append(nn.ctc(**p, zero_infinity=True))
    for loss, d in results[1:]:
        assert loss == results[0][0]
        assert_same_bits(d, results[0][1])


def test_a_long_sequence_in_float32() -> None:
    """Rounding hardly adds up over the frames, and never to what is no gradient of a softmax."""
    p = problem(3000, 1, 6, 300)
    wide = nn.ctc(**p)
    loss, d = nn.ctc(**{**p, "logits": p["logits"].astype(np.float32)})
    assert loss == pytest.approx(wide[0], rel=1e-6)
    assert_close(d, wide[1], CTC_LONG, "d_logits")
    assert np.abs(d.sum(axis=-1)).max() < 1e-5 / 300


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(0, 9),
    B=st.integers(1, 3),
    V=st.integers(2, 5),
    S=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_any_shape(T: int, B: int, V: int, S: int, seed: int) -> None:
    p = problem(T, B, V, S, seed)
    losses, wanted = of_reference(p)
    loss, d = nn.ctc(**p, reduction="sum", zero_infinity=True)
    assert loss == pytest.approx(losses[np.isfinite(losses)].sum(), abs=1e-10)
    assert np.allclose(d, wanted)


# --- against PyTorch ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_against_torch(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    p = problem(50, 8, 12, 10, seed=2)
    p["lengths"] = np.maximum(p["lengths"], 25)
    logits = torch.tensor(p["logits"], requires_grad=True)
    wanted = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1),
        torch.tensor(p["targets"]),
        torch.tensor(p["lengths"]),
        torch.tensor(p["target_lengths"]),
        reduction=reduction,
    )
    wanted.backward()
    loss, d = nn.ctc(**p, reduction=reduction)
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    assert_close(d, logits.grad.numpy(), TOLERANCE["float64"], "d_logits")


# --- errors -------------------------------------------------------------------------------------

ARGUMENTS: dict[str, Any] = {
    "logits": np.zeros((4, 2, 3)),
    "lengths": [4, 3],
    "targets": [[1, 2], [1, 0]],
    "target_lengths": [2, 1],
}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logits": np.zeros((4, 2))}, ValueError, r"logits: expected \(T, B, V\), got \(4, 2\)"),
        ({"logits": np.zeros((4, 2, 0))}, ValueError, "logits: expected at least one class"),
        ({"logits": np.zeros((4, 2, 3), complex)}, TypeError, "logits: expected real numbers"),
        ({"lengths": [5, 0]}, ValueError, "lengths: expected values from 0 to 4, got 0 to 5"),
        ({"lengths": [4.0, 0]}, TypeError, "lengths: expected integers"),
        ({"targets": [[1, 3], [1, 0]]}, ValueError, "targets: expected labels from 0 to 2"),
        ({"targets": [[1, 0], [1, 0]]}, ValueError, "without the blank, 0, got 0 to 1 and"),
        ({"targets": [[-1, 1], [1, 0]]}, ValueError, "targets: expected labels"),
        ({"targets": [[1.0, 1], [1, 0]]}, TypeError, "targets: expected integers"),
        ({"targets": [1, 2]}, ValueError, r"targets: expected \(3,\), got \(2,\)"),
        ({"targets": [[1, 2]]}, ValueError, r"targets: expected \(2, S\), got \(1, 2\)"),
        ({"targets": [1, 2, 1], "target_lengths": None}, ValueError, r"targets: expected \(2, S\)"),
        ({"target_lengths": [3, 1]}, ValueError, "target_lengths: expected values from 0 to 2"),
        ({"target_lengths": [2]}, ValueError, r"target_lengths: expected \(2,\)"),
        ({"blank": 3}, ValueError, "blank: expected an integer from 0 to 2"),
        ({"blank": True}, TypeError, "blank: expected an integer"),
        ({"reduction": "none"}, ValueError, "reduction: expected 'mean' or 'sum'"),
        ({"zero_infinity": 1}, TypeError, "zero_infinity: expected True or False"),
        ({"batch_first": "yes"}, TypeError, "batch_first: expected True or False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.ctc(**{**ARGUMENTS, **changed})

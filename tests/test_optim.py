"""The optimisers: against torch.optim, their errors, resuming, and clipping."""

from __future__ import annotations

import contextlib
import copy
import doctest
import math
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import numpy.typing as npt
import pytest
from fastlstm import optim
from fastlstm.optim import SGD, Adam, AdamW, Optimizer, clip_by_global_norm
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.every_isa

Arrays = dict[str, npt.NDArray[Any]]

SHAPES: dict[str, tuple[int, ...]] = {"weight": (3, 4), "bias": (5,), "scalar": (), "none": (0, 2)}

# Class, our arguments, and PyTorch's where they differ.
OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SGD": (SGD, {}),
    "SGD lr": (SGD, {"lr": 0.1}),
    "SGD momentum": (SGD, {"lr": 0.05, "momentum": 0.9}),
    "SGD nesterov": (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "SGD weight_decay": (SGD, {"lr": 0.05, "weight_decay": 0.3}),
    "SGD all": (SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.3}),
    "Adam": (Adam, {}),
    "Adam all": (Adam, {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
    "Adam no averages": (Adam, {"lr": 0.02, "betas": (0.0, 0.0)}),
    "AdamW": (AdamW, {}),
    "AdamW all": (AdamW, {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
    "AdamW no weight_decay": (AdamW, {"lr": 0.02, "weight_decay": 0.0}),
}
every_optimizer = pytest.mark.parametrize(
    ("kind", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys()
)


def arrays(rng: np.random.Generator, dtype: str = "float64") -> Arrays:
    return {name: np.asarray(rng.normal(size=s), dtype=dtype) for name, s in SHAPES.items()}


def run(optimizer: Optimizer, params: Arrays, steps: int, seed: int = 1) -> Arrays:
    """Make some steps with random gradients."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        params = optimizer.step(params, arrays(rng, params["weight"].dtype.name))
    return params


def assert_same(actual: Arrays, expected: Arrays) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(actual[name], np.ndarray)
        assert actual[name].dtype == value.dtype
        np.testing.assert_array_equal(actual[name], value)


# --- PyTorch -----------------------------------------------------------------------------------


# Some roundings of the dtype, whose epsilon is 2e-16 or 1e-7, gathered in 20 steps.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 2e-15), ("float32", 1e-6)])
@every_optimizer
def test_torch(
    kind: type[Optimizer], options: dict[str, Any], dtype: str, tolerance: float
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = arrays(rng, dtype)
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    peer = getattr(torch.optim, kind.__name__)(theirs.values(), **options)
    optimizer = kind(**options)
    for step in range(20):
        if step == 10:  # a schedule
            optimizer.lr *= 0.5
            peer.param_groups[0]["lr"] *= 0.5
        grads = arrays(rng, dtype)
        for name, value in grads.items():
            theirs[name].grad = torch.tensor(value)
        peer.step()
        params = optimizer.step(params, grads)
    for name, value in theirs.items():
        assert params[name].dtype == dtype
        np.testing.assert_allclose(
            params[name], value.detach().numpy(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_defaults_are_those_of_torch(kind: type[Optimizer]) -> None:
    torch = pytest.importorskip("torch")
    defaults = getattr(torch.optim, kind.__name__)([torch.zeros(1)]).defaults
    options = kind().state_dict()  # type: ignore[call-arg]
    assert not options.pop("state")
    assert options == {name: defaults[name] for name in options}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [0.5, 2.0, 100.0])
def test_clip_torch(max_norm: float, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    grads = arrays(np.random.default_rng(0), dtype)
    tensors = [torch.zeros(value.shape, dtype=getattr(torch, dtype)) for value in grads.values()]
    for tensor, value in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(value)
    expected_norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm).item()
    clipped, norm = clip_by_global_norm(grads, max_norm)
    assert norm == pytest.approx(expected_norm, rel=1e-6 if dtype == "float32" else 1e-14)
    for tensor, value in zip(tensors, clipped.values(), strict=True):
        # PyTorch divides by norm + 1e-6; the norm is about 4.
        np.testing.assert_allclose(value, tensor.grad.numpy(), rtol=1e-6)


# --- Laws --------------------------------------------------------------------------------------


def test_one_step_of_each_by_hand() -> None:
    params, grads = {"w": np.array([1.0, -2.0])}, {"w": np.array([0.5, 0.25])}
    step = SGD(lr=0.1).step(params, grads)["w"]
    np.testing.assert_allclose(step, [0.95, -2.025], rtol=1e-15)
    # The first step of Adam is lr against the sign of the gradient, whatever its size.
    step = Adam(lr=0.1, eps=0.0).step(params, grads)["w"]
    np.testing.assert_allclose(step, [0.9, -2.1], rtol=1e-15)
    step = AdamW(lr=0.1, eps=0.0, weight_decay=0.5).step(params, grads)["w"]
    np.testing.assert_allclose(step, [0.85, -2.0], rtol=1e-15)


def adam_in_numpy(
    p: np.ndarray, grads: list[np.ndarray], decay: float, shrink: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The formula, pass by pass, with Adam's default hyperparameters."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step, g in enumerate(grads, 1):
        if decay:
            g = g + decay * p
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        denominator = np.sqrt(v) / math.sqrt(1 - 0.999**step) + 1e-8
        p = p * shrink - 1e-3 / (1 - 0.9**step) * (m / denominator)
    return p, m, v


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("optimizer", "decay", "shrink"),
    [(Adam(), 0, 1), (Adam(weight_decay=0.1), 0.1, 1), (AdamW(weight_decay=0.1), 0, 1 - 1e-4)],
    ids=["Adam", "decay", "AdamW"],
)
def test_adam_has_the_bits_of_numpy_for_any_number_of_threads(
    optimizer: Adam, decay: float, shrink: float, dtype: str, threads: int
) -> None:
    optimizer = copy.deepcopy(optimizer)
    rng = np.random.default_rng(0)
    p = rng.standard_normal(200_001).astype(dtype)
    grads = [rng.standard_normal(p.shape).astype(dtype) for _ in range(3)]
    p_want, m_want, v_want = adam_in_numpy(p, grads, decay, shrink)
    params = {"w": p}
    with fastlstm.num_threads(threads):
        for g in grads:
            params = optimizer.step(params, {"w": g})
    state = optimizer.state_dict()["state"]["w"]
    np.testing.assert_array_equal(params["w"], p_want)
    np.testing.assert_array_equal(state["m"], m_want)
    np.testing.assert_array_equal(state["v"], v_want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_has_the_same_bits_for_any_number_of_threads(dtype: str) -> None:
    g = np.random.default_rng(0).standard_normal((501, 401)).astype(dtype)
    results = []
    for n in (1, 2, 3):
        with fastlstm.num_threads(n):
            results.append(clip_by_global_norm({"w": g, "transposed": g.T}, 0.3))
    for clipped, norm in results[1:]:
        assert norm == results[0][1]
        assert_same(clipped, results[0][0])


def test_a_step_that_fails_changes_no_moment() -> None:
    optimizer, params = Adam(), {"a": np.ones(3), "b": np.ones(3)}
    optimizer.step(params, params)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match="b"):
        optimizer.step(params, {"a": np.ones(3), "b": np.ones(4)})
    after = optimizer.state_dict()
    for name in params:
        for moment in ("m", "v"):
            np.testing.assert_array_equal(
                after["state"][name][moment], before["state"][name][moment]
            )


@every_optimizer
def test_inputs_are_not_changed(kind: type[Optimizer], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    optimizer = kind(**options)
    params, grads = arrays(rng), arrays(rng)
    for array in (*params.values(), *grads.values()):
        array.flags.writeable = False
    new = optimizer.step(params, grads)
    first = copy.deepcopy(new)
    for name in new:
        assert not np.shares_memory(new[name], params[name])
        assert not np.shares_memory(new[name], grads[name])
    # The optimiser keeps nothing that it has given away or was given.
    following = kind(**options)
    following.load_state_dict(optimizer.state_dict())
    expected = following.step(first, grads)
    for array in new.values():
        array[...] = np.nan
    assert_same(optimizer.step(first, grads), expected)


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_have_the_dtype_of_the_parameter(
    kind: type[Optimizer], options: dict[str, Any], dtype: str
) -> None:
    optimizer = kind(**options)
    rng = np.random.default_rng(0)
    params = arrays(rng, dtype)
    for _ in range(2):
        params = optimizer.step(params, arrays(rng, "float64"))
    assert {value.dtype.name for value in params.values()} == {dtype}
    for name, entry in optimizer.state_dict()["state"].items():
        assert entry.pop("step") == 2
        for moment in entry.values():
            assert moment.dtype == dtype
            assert moment.shape == SHAPES[name]


@every_optimizer
@pytest.mark.parametrize("how", ["state_dict", "pickle", "deepcopy"])
def test_resuming(kind: type[Optimizer], options: dict[str, Any], how: str) -> None:
    start = arrays(np.random.default_rng(0))
    whole = kind(**options)
    expected = run(whole, run(whole, start, 3), 4, seed=2)

    optimizer = kind(**options)
    middle = run(optimizer, start, 3)
    if how == "state_dict":
        resumed = kind(lr=9.0)  # type: ignore[call-arg]
        state = optimizer.state_dict()
        resumed.load_state_dict(state)
        for entry in state["state"].values():  # both ends copied
            for moment in entry.values():
                if isinstance(moment, np.ndarray):
                    moment[...] = np.nan
    else:
        ways: dict[str, Callable[[Optimizer], Optimizer]] = {
            "pickle": lambda o: pickle.loads(pickle.dumps(o)),
            "deepcopy": copy.deepcopy,
        }
        resumed = ways[how](optimizer)
    assert_same(run(resumed, middle, 4, seed=2), expected)
    assert_same(run(optimizer, middle, 4, seed=2), expected)
    assert repr(resumed) == repr(optimizer)


@every_optimizer
def test_names_are_independent(kind: type[Optimizer], options: dict[str, Any]) -> None:
    """A parameter that joins late or pauses is treated as if it had an optimiser of its own."""
    rng = np.random.default_rng(0)
    a, b = np.ones(3), np.ones(2)
    together, alone_a, alone_b = (kind(**options) for _ in range(3))
    for names in ["a", "ab", "b", "ab"]:
        grads = {name: rng.normal(size=3 if name == "a" else 2) for name in names}
        new = together.step({name: {"a": a, "b": b}[name] for name in names}, grads)
        if "a" in names:
            a = alone_a.step({"a": a}, {"a": grads["a"]})["a"]
            np.testing.assert_array_equal(new["a"], a)
        if "b" in names:
            b = alone_b.step({"b": b}, {"b": grads["b"]})["b"]
            np.testing.assert_array_equal(new["b"], b)


def test_lr_may_be_a_numpy_number() -> None:
    """As schedules compute it; NumPy 2 would go from float32 to float64 with it."""
    params = arrays(np.random.default_rng(0), "float32")
    for kind in (SGD, Adam, AdamW):
        optimizer = kind()
        optimizer.lr = np.float64(0.1)
        assert_same(run(optimizer, params, 3), run(kind(lr=0.1), params, 3))
        assert type(optimizer.lr) is float


def test_lr_zero_changes_nothing() -> None:
    params = arrays(np.random.default_rng(0))
    for kind in (SGD, Adam, AdamW):
        assert_same(run(kind(lr=0.0), params, 3), params)


def test_repr() -> None:
    assert repr(SGD(0.1, 0.9)) == "SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)"
    expected = "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    assert repr(AdamW()) == expected


def test_examples() -> None:
    assert doctest.testmod(optim).failed == 0


# --- Clipping ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["float32", "float64"]),
    st.floats(1e-10, 1e10),
    st.floats(1e-10, 1e10),
)
def test_clip(seed: int, dtype: str, scale: float, max_norm: float) -> None:
    rng = np.random.default_rng(seed)
    grads = {name: np.asarray(g * scale, dtype=dtype) for name, g in arrays(rng).items()}
    flat = np.concatenate([g.ravel() for g in grads.values()]).astype(np.float64)
    clipped, norm = clip_by_global_norm(grads, max_norm)
    assert isinstance(norm, float)
    assert norm == pytest.approx(np.linalg.norm(flat), rel=1e-14)
    if norm <= max_norm:
        assert_same(clipped, grads)
    else:
        new = np.concatenate([g.ravel() for g in clipped.values()]).astype(np.float64)
        eps = float(np.finfo(dtype).eps)
        assert np.linalg.norm(new) == pytest.approx(max_norm, rel=4 * eps)
        np.testing.assert_allclose(new, flat * (max_norm / norm), rtol=4 * eps)
    for name, g in grads.items():
        assert clipped[name].dtype == dtype
        assert clipped[name].shape == g.shape
        assert not np.shares_memory(clipped[name], g)


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_clip_where_squares_leave_the_range(value: float) -> None:
    clipped, norm = clip_by_global_norm({"w": np.array([3 * value, 4 * value])}, value)
    assert norm == pytest.approx(5 * value, rel=1e-15)
    np.testing.assert_allclose(clipped["w"], [0.6 * value, 0.8 * value], rtol=1e-15)


def test_clip_computes_in_float64() -> None:
    """A float32 sum of these squares would lose the 1 beside 2**24, or overflow."""
    grads = {"w": np.array([2.0**12, 1.0], dtype=np.float32)}
    assert clip_by_global_norm(grads, math.inf)[1] == pytest.approx(math.sqrt(2**24 + 1), rel=1e-15)
    large = np.full(4, 3e38, dtype=np.float32)
    clipped, norm = clip_by_global_norm({"w": large}, 1.0)
    assert norm == 2 * float(large[0])
    np.testing.assert_array_equal(clipped["w"], np.full(4, 0.5, dtype=np.float32))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("max_norm", [1.0, math.inf])
def test_clip_of_a_norm_that_is_not_finite(value: float, max_norm: float) -> None:
    grads = {"a": np.array([1.0, value]), "b": np.array([2.0])}
    clipped, norm = clip_by_global_norm(grads, max_norm)
    assert math.isnan(norm) if math.isnan(value) else norm == math.inf
    assert_same(clipped, grads)


def test_clip_of_nothing() -> None:
    assert clip_by_global_norm({}, 1.0) == ({}, 0.0)
    zeros = {"w": np.zeros(3)}
    clipped, norm = clip_by_global_norm(zeros, 0.0)
    assert norm == 0.0
    assert_same(clipped, zeros)
    clipped, norm = clip_by_global_norm({"w": np.ones(4)}, 0.0)
    assert norm == 2.0
    assert_same(clipped, {"w": np.zeros(4)})


# --- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SGD, "lr"),
        (SGD, "momentum"),
        (SGD, "weight_decay"),
        (Adam, "lr"),
        (Adam, "eps"),
        (Adam, "weight_decay"),
        (AdamW, "weight_decay"),
    ],
)
def test_bad_hyperparameters(kind: Callable[..., Optimizer], name: str, value: float) -> None:
    message = f"{name}: expected a finite number of at least 0, got"
    with pytest.raises(ValueError, match=message):
        kind(**{name: value})
    with pytest.raises(TypeError, match=f"{name}: expected a number, got str"):
        kind(**{name: "1"})


def test_bad_lr_is_not_assigned() -> None:
    optimizer = Adam(lr=0.5)
    with pytest.raises(ValueError, match="lr: expected a finite number"):
        optimizer.lr = math.nan
    assert optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (1.0, 0.9)}, r"betas: expected numbers below 1, got \(1.0, 0.9\)"),
        ({"betas": (0.9, 1.5)}, "betas: expected numbers below 1"),
        ({"betas": (-0.1, 0.9)}, r"betas\[0\]: expected a finite number of at least 0"),
        ({"betas": (0.9, math.nan)}, r"betas\[1\]: expected a finite number of at least 0"),
        ({"betas": (0.9,)}, "betas: expected two numbers"),
    ],
)
def test_bad_betas(options: dict[str, Any], message: str) -> None:
    for kind in (Adam, AdamW):
        with pytest.raises(ValueError, match=message):
            kind(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": 0.9}, "betas: expected two numbers, got 0.9"),
        ({"betas": None}, "betas: expected two numbers, got None"),
        ({"betas": "ab"}, r"betas\[0\]: expected a number, got str"),
        ({"betas": (0.9, None)}, r"betas\[1\]: expected a number, got NoneType"),
        ({"lr": True}, "lr: expected a number, got bool"),
        ({"lr": [0.1]}, "lr: expected a number, got list"),
    ],
)
def test_hyperparameters_of_wrong_types(options: dict[str, Any], message: str) -> None:
    for kind in (Adam, AdamW):
        with pytest.raises(TypeError, match=message):
            kind(**options)


def test_nesterov_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="nesterov: expected True or False, got 'no'"):
        SGD(momentum=0.9, nesterov="no")  # type: ignore[arg-type]


def test_what_has_params_is_no_mapping() -> None:
    layer = fastlstm.RNN(2, 3)
    grads: Any = layer.forward(np.ones((4, 2), np.float32))[2].backward()
    hint = "expected a mapping, got {}: pass its params"
    with pytest.raises(TypeError, match="grads: " + hint.format("Gradients")):
        Adam().step(layer.params, grads)
    with pytest.raises(TypeError, match="params: " + hint.format("RNN")):
        Adam().step(layer, grads.params)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="grads: " + hint.format("Gradients")):
        clip_by_global_norm(grads, 1.0)
    with pytest.raises(TypeError, match="values: " + hint.format("Gradients")):
        layer.update(grads)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov: expected a momentum above 0"):
        SGD(nesterov=True)


W, V = np.ones((2, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("error", "message", "params", "grads"),
    [
        (ValueError, r"grads: missing \['v'\], unknown \[\]", {"w": W, "v": V}, {"w": W}),
        (ValueError, r"grads: missing \[\], unknown \['v'\]", {"w": W}, {"w": W, "v": V}),
        (ValueError, r"grads\['w'\]: expected \(2, 3\), got \(4,\)", {"w": W}, {"w": V}),
        (ValueError, r"grads\['w'\]: expected \(2, 3\), got \(3, 2\)", {"w": W}, {"w": W.T}),
        (ValueError, r"params\['w'\]: expected float64 \(2, 3\) as .*, got float64 \(4,\)",
         {"w": V}, {"w": V}),
        (ValueError, r"params\['w'\]: expected float64 \(2, 3\) as .*, got float32 \(2, 3\)",
         {"w": W.astype("f")}, {"w": W}),
        (TypeError, r"params\['w'\]: expected float32 or float64, got int64",
         {"w": W.astype(np.int64)}, {"w": W}),
        (TypeError, r"grads\['w'\]: expected float32 or float64, got complex128",
         {"w": W}, {"w": W + 0j}),
        (TypeError, r"grads\['v'\]: expected float32 or float64, got object",
         {"w": W, "v": V}, {"w": W, "v": None}),
    ],
)  # fmt: skip
def test_step_errors(error: type[Exception], message: str, params: Any, grads: Any) -> None:
    for optimizer in (SGD(momentum=0.5), Adam(), AdamW()):
        optimizer.step({"w": W}, {"w": W})
        before = pickle.dumps(optimizer)
        with pytest.raises(error, match=message):
            optimizer.step(params, grads)
        assert pickle.dumps(optimizer) == before


def changed(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state | changes


def changed_entry(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state | {"state": {"w": state["state"]["w"] | changes}}


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, r"state_dict: expected the keys \['betas', ", lambda state: {}),
        (ValueError, "state_dict: expected the keys", changed(momentum=0.5)),
        (ValueError, "state_dict: expected the keys", lambda state: SGD().state_dict()),
        (ValueError, "lr: expected a finite number", changed(lr=-1.0)),
        (TypeError, r"\['state'\]: expected a mapping, got int", changed(state=3)),
        (TypeError, r"\['w'\]: expected a mapping, got int", changed(state={"w": 3})),
        (TypeError, "state_dict: expected a mapping, got NoneType", lambda state: None),
        (ValueError, "state_dict: expected the keys", lambda state: {**state, 3: 4}),
        (ValueError, r"\['w'\]: expected the keys \['m', 'step', 'v'\]", changed_entry(x=1)),
        (ValueError, r"\['w'\]\['step'\]: expected a positive integer", changed_entry(step=0)),
        (ValueError, r"\['w'\]\['step'\]: expected a positive integer", changed_entry(step=1.5)),
        (TypeError, r"\['w'\]\['m'\]: expected float32 or float64", changed_entry(m="text")),
        (ValueError, r"\['w'\]: expected moments of one shape", changed_entry(m=np.ones(3))),
    ],
)
def test_load_state_dict_errors(
    error: type[Exception], message: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    optimizer = Adam(lr=0.5)
    optimizer.step({"w": W}, {"w": W})
    before = pickle.dumps(optimizer)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(change(optimizer.state_dict()))
    assert pickle.dumps(optimizer) == before


@pytest.mark.parametrize("max_norm", [-1.0, math.nan])
def test_bad_max_norm(max_norm: float) -> None:
    with pytest.raises(ValueError, match="max_norm: expected a number of at least 0"):
        clip_by_global_norm({"w": W}, max_norm)


def test_clip_type_errors() -> None:
    with pytest.raises(TypeError, match=r"max_norm: expected a number, got NoneType"):
        clip_by_global_norm({"w": W}, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"grads\['w'\]: expected float32 or float64, got int64"):
        clip_by_global_norm({"w": np.arange(3)}, 1.0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_step_in_the_middle_of_a_step_is_refused() -> None:
    optimizer = Adam()
    params = {f"w{k}": np.ones((400, 300), np.float32) for k in range(200)}
    refusals: list[str] = []

    def handle(*_: object) -> None:
        try:
            optimizer.step({"w": np.ones(2)}, {"w": np.ones(2)})
        except RuntimeError as error:
            refusals.append(str(error))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while not refusals:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            optimizer.step(params, params)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    optimizer.step({"w": np.ones(2)}, {"w": np.ones(2)})
    assert "in use" in refusals[0]


def test_steps_of_several_threads_are_made_or_refused() -> None:
    """Without the interpreter's lock a step may end between any two looks at whether it has."""
    optimizer = SGD()
    params = {"w": np.ones(2)}
    made: list[int] = []
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def work() -> None:
        try:
            start.wait()
            for _ in range(1000):
                with contextlib.suppress(RuntimeError):  # in use
                    optimizer.step(params, params)
                    made.append(1)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert optimizer.state_dict()["state"]["w"]["step"] == len(made)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_large_arrays_go_in_pieces(options: dict[str, Any]) -> None:
    """With the bits of small ones."""
    values = np.random.default_rng(0).standard_normal((700, 4000), np.float32)
    large, small = SGD(0.1, weight_decay=0.1, **options), SGD(0.1, weight_decay=0.1, **options)
    params, first = {"w": values}, {"w": values[:5]}
    for _ in range(3):
        params = large.step(params, {"w": values})
        first = small.step(first, {"w": values[:5]})
        large.load_state_dict(large.state_dict())
    np.testing.assert_array_equal(params["w"][:5], first["w"])
    assert params["w"].shape == values.shape

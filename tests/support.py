"""Layers and calls to test, and the same calls made by the reference and by PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import reference
from fastlstm._activations import as_activation
from fastlstm.layers import spec_of
from fastlstm.layers.states import as_tuple, from_tuple
from tolerances import assert_close

DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Case:
    """A layer and the shape of a call."""

    T: int = 6
    B: int = 3
    I: int = 5
    H: int = 7
    options: Mapping[str, Any] = field(default_factory=dict)
    lengths: Sequence[int] | None = None
    state: bool = True
    batched: bool = True
    scale: float = 1.0  # of the parameters; those of a new layer are small
    cell: str = "LSTM"


# Sizes around the widths of vectors (1, w - 1, w, w + 1, 3w + 5 for w = 4, 8, 16).
_WIDTHS = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 29, 53)

CASES: dict[str, Case] = {
    "plain": Case(),
    "no state": Case(state=False),
    "large weights": Case(scale=4.0),
    **{f"H={n}": Case(H=n, I=3, T=4) for n in _WIDTHS},
    **{f"I={n}": Case(I=n, H=5, T=4) for n in _WIDTHS},
    **{f"B={n}": Case(B=n, H=9, T=4) for n in _WIDTHS},
    "one of everything": Case(T=1, B=1, I=1, H=1),
    "T=1": Case(T=1),
    "B=1": Case(B=1),
    "B=0": Case(B=0),
    "B=0, two layers, both directions": Case(
        B=0, options={"num_layers": 2, "bidirectional": True, "proj_size": 2}
    ),
    "no bias": Case(options={"bias": False}),
    "two layers": Case(options={"num_layers": 2}),
    "three layers": Case(options={"num_layers": 3}),
    "bidirectional": Case(options={"bidirectional": True}),
    "two layers bidirectional": Case(options={"num_layers": 2, "bidirectional": True}),
    "reverse": Case(options={"reverse": True}),
    "two layers reverse": Case(options={"num_layers": 2, "reverse": True}),
    "batch first": Case(options={"batch_first": True}),
    "batch first, B=1": Case(B=1, options={"batch_first": True}),
    "batch first, T=1": Case(T=1, options={"batch_first": True}),
    "batch first, two layers bidirectional": Case(
        options={"batch_first": True, "num_layers": 2, "bidirectional": True}
    ),
    "unbatched": Case(batched=False),
    "unbatched, no state": Case(batched=False, state=False),
    "unbatched, batch first": Case(batched=False, options={"batch_first": True}),
    "unbatched, two layers bidirectional": Case(
        batched=False, options={"num_layers": 2, "bidirectional": True, "proj_size": 3}
    ),
    "projection": Case(options={"proj_size": 3}),
    "projection to one": Case(options={"proj_size": 1}),
    "wide projection": Case(H=18, options={"proj_size": 17}),
    "projection, no bias": Case(options={"proj_size": 3, "bias": False}),
    "projection, reverse": Case(options={"proj_size": 3, "reverse": True}),
    "projection, two layers bidirectional": Case(
        options={"proj_size": 3, "num_layers": 2, "bidirectional": True}
    ),
    "lengths": Case(lengths=(4, 6, 1)),
    "lengths, no state": Case(lengths=(4, 6, 1), state=False),
    "lengths with zeros": Case(B=6, lengths=(0, 4, 6, 0, 1, 4)),
    "lengths, sorted": Case(B=4, lengths=(6, 5, 3, 0)),
    "lengths, rising": Case(B=4, lengths=(0, 2, 4, 6)),
    "lengths all full": Case(lengths=(6, 6, 6)),
    "lengths all short of T": Case(lengths=(3, 2, 3)),
    "lengths all zero": Case(lengths=(0, 0, 0)),
    "lengths, reverse": Case(B=5, lengths=(2, 6, 0, 3, 5), options={"reverse": True}),
    "lengths, bidirectional": Case(B=5, lengths=(2, 6, 0, 3, 5), options={"bidirectional": True}),
    "lengths, batch first": Case(B=4, lengths=(2, 6, 0, 3), options={"batch_first": True}),
    "lengths, projection": Case(B=4, lengths=(2, 6, 0, 3), options={"proj_size": 3}),
    "lengths, everything": Case(
        B=6,
        lengths=(3, 0, 6, 1, 6, 2),
        options={
            "num_layers": 3,
            "bidirectional": True,
            "proj_size": 4,
            "batch_first": True,
        },
    ),
    # More rows than one block of time steps has (1024 forward, 256 backward;
    # csrc/runtime/tuning.hpp).
    "blocks": Case(T=60, B=50, I=4, H=9),
    "blocks, bidirectional": Case(
        T=70, B=33, I=3, H=6, options={"num_layers": 2, "bidirectional": True}
    ),
    "blocks, batch first, projection": Case(
        T=45, B=60, I=3, H=6, options={"batch_first": True, "proj_size": 2}
    ),
    "blocks, one step each": Case(T=3, B=1100, I=2, H=3),
    "blocks, ragged": Case(
        T=90,
        B=40,
        I=3,
        H=5,
        lengths=tuple((37 * b) % 91 for b in range(40)),
        options={"bidirectional": True},
    ),
    "blocks, ragged, reverse projection": Case(
        T=90,
        B=40,
        I=3,
        H=5,
        lengths=tuple((53 * b) % 91 for b in range(40)),
        options={"reverse": True, "proj_size": 2, "num_layers": 2},
    ),
    "blocks, one row": Case(T=1500, B=1, I=2, H=3),
}


@dataclass
class Problem:
    """A layer, the arguments of a call and gradients for its results, all in the layer's dtype."""

    layer: Any
    x: np.ndarray
    state: Any  # as the layer has it, a tuple or one array; or None
    lengths: np.ndarray | None
    d_output: np.ndarray
    d_state: Any


def make_layer(case: Case, dtype: str, seed: int = 0) -> Any:
    cls = getattr(fastlstm, case.cell)
    layer = cls(case.I, case.H, dtype=dtype, seed=seed, **case.options)
    if case.scale != 1.0:
        layer.update({name: case.scale * value for name, value in layer.params.items()})
    return layer


def make_problem(case: Case, dtype: str, seed: int = 0) -> Problem:
    """The problem of a case; its random numbers follow from the seed alone."""
    rng = np.random.default_rng(seed)
    layer = make_layer(case, dtype, seed)
    spec = spec_of(layer)
    D, P, cells = spec.directions, spec.output_size, spec.cells

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    def sequence(width: int) -> np.ndarray:
        if not case.batched:
            return normal(case.T, width)
        return normal(*((case.B, case.T) if layer.batch_first else (case.T, case.B)), width)

    def state() -> Any:
        batch = (case.B,) if case.batched else ()
        return from_tuple(tuple(normal(cells, *batch, width) for _, width in spec.state_parts))

    return Problem(
        layer=layer,
        x=sequence(layer.input_size),
        state=state() if case.state else None,
        lengths=None if case.lengths is None else np.array(case.lengths, dtype=np.int64),
        d_output=sequence(D * P if layer.merge == "concat" else P),
        d_state=state(),
    )


def output_size(layer: Any) -> int:
    """P, the width of h."""
    return getattr(layer, "proj_size", 0) or layer.hidden_size


def map_state(function: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """The state, or None, with every array changed."""
    if state is None:
        return None
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


def as_float64(arrays: Any) -> Any:
    """The same numbers in float64: arrays, None, or tuples and dicts of these."""
    if arrays is None:
        return None
    if isinstance(arrays, (tuple, list)):
        return tuple(as_float64(a) for a in arrays)
    if isinstance(arrays, Mapping):
        return {name: as_float64(a) for name, a in arrays.items()}
    return np.asarray(arrays, dtype=np.float64)


def time_major(layer: Any, sequence: np.ndarray) -> np.ndarray:
    """A sequence in the layer's layout with time first, or the other way round."""
    return sequence.swapaxes(0, 1) if layer.batch_first and sequence.ndim == 3 else sequence


def reference_forward(
    layer: Any,
    x: np.ndarray,
    state: Any = None,
    *,
    lengths: Any = None,
    masks: Any = None,
    params: Mapping[str, np.ndarray] | None = None,
    **regularisation: Any,
) -> tuple[np.ndarray, Any, Any]:
    """The call of a layer, made by the float64 reference."""
    forward = getattr(reference, f"{type(layer).__name__.lower()}_forward")
    output, final, tape = forward(
        as_float64(layer.params if params is None else params),
        time_major(layer, as_float64(x)),
        as_float64(state),
        lengths=lengths,
        reverse=layer.reverse,
        masks=masks,
        **reference_options(layer),
        merge=layer.merge,
        **regularisation,
    )
    return time_major(layer, output), final, tape


def reference_options(layer: Any) -> dict[str, Any]:
    """The options of a layer that change its equations, as the reference takes them."""
    functions = tuple(as_activation("", function) for function in layer.activations)
    clip = np.inf if layer.clip is None else layer.clip
    if isinstance(layer, fastlstm.RNN):
        return {"options": reference.RNNOptions(functions[0], clip)}
    if isinstance(layer, fastlstm.GRU):
        options = reference.GRUOptions(functions[:2], clip)
        return {"options": options, "reset_after": layer.reset_after}
    return {"options": reference.LSTMOptions(functions[:3], clip, layer.input_forget)}


def reference_backward(layer: Any, tape: Any, d_output: Any, d_state: Any) -> Any:
    """The reference's gradients; those of x are in the layer's layout."""
    if d_output is not None:
        d_output = time_major(layer, as_float64(d_output))
    backward = getattr(reference, f"{type(layer).__name__.lower()}_backward")
    grads = backward(tape, d_output, as_float64(d_state))
    state = grads.state if len(grads.state) > 1 else grads.state[0]
    return fastlstm.Gradients(time_major(layer, grads.x), state, grads.params, -1)


@dataclass
class Expected:
    """What the reference makes of a problem."""

    output: np.ndarray
    state: Any
    grads: fastlstm.Gradients
    tape: Any


def solve(p: Problem, masks: Any = None, **regularisation: Any) -> Expected:
    """The reference's results and gradients."""
    output, state, tape = reference_forward(
        p.layer, p.x, p.state, lengths=p.lengths, masks=masks, **regularisation
    )
    grads = reference_backward(p.layer, tape, p.d_output, p.d_state)
    return Expected(output, state, grads, tape)


@functools.cache
def solve_case(name: str, dtype: str) -> Expected:
    """The reference's results for one of CASES; nobody changes them."""
    return solve(make_problem(CASES[name], dtype))


def make_long_problem(dtype: str) -> Problem:
    """Ten thousand steps. Its numbers are those of float32 in both dtypes."""
    p = make_problem(Case(T=10_000, B=2, I=3, H=5), "float32")
    if dtype == "float32":
        return p
    layer = fastlstm.LSTM(3, 5, dtype=dtype)
    layer.update(p.layer.params)
    return Problem(
        layer, *map(as_float64, (p.x, p.state)), None, *map(as_float64, (p.d_output, p.d_state))
    )


@functools.cache
def solve_long_problem() -> Expected:
    """The same for both dtypes, as their numbers are the same."""
    return solve(make_long_problem("float64"))


def named_states(state: Any, suffix: str = "_n") -> dict[str, np.ndarray]:
    """The arrays of a state: h_n, and c_n where there is one."""
    parts = as_tuple(state)
    return {f"{letter}{suffix}": a for letter, a in zip("hc"[: len(parts)], parts, strict=True)}


def assert_states_close(actual: Any, expected: Any, tolerance: Any, suffix: str = "_n") -> None:
    """Compare all arrays of two states."""
    exact = named_states(expected, suffix)
    assert named_states(actual, suffix).keys() == exact.keys()
    for name, array in named_states(actual, suffix).items():
        assert_close(array, exact[name], tolerance, name)


def assert_gradients_close(actual: Any, expected: Any, tolerance: Any) -> None:
    """Compare all gradients, each array by itself."""
    assert_close(actual.x, expected.x, tolerance, "x")
    assert_states_close(actual.state, expected.state, tolerance, "_0")
    assert actual.params.keys() == expected.params.keys()
    for name in expected.params:
        assert_close(actual.params[name], expected.params[name], tolerance, name)


def gradient_arrays(grads: fastlstm.Gradients) -> dict[str, np.ndarray]:
    return {"x": grads.x, **named_states(grads.state, "_0"), **grads.params}


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    """Fail unless both have the same shape, dtype and bits."""
    assert actual.dtype == expected.dtype, what
    assert actual.shape == expected.shape, what
    if np.ascontiguousarray(actual).tobytes() != np.ascontiguousarray(expected).tobytes():
        different = np.sum(actual != expected)
        raise AssertionError(f"{what}: {different} of {actual.size} values have other bits")


def assert_same_states(actual: Any, expected: Any, what: str = "") -> None:
    """The same of all arrays of two states."""
    for (name, a), b in zip(named_states(actual).items(), as_tuple(expected), strict=True):
        assert_same_bits(a, b, f"{name} {what}")


def torch_module(layer: fastlstm.LSTM) -> Any:
    """The torch.nn.LSTM of the same configuration and parameters."""
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        layer.bias,
        layer.batch_first,
        layer.dropout,
        layer.bidirectional,
        layer.proj_size,
        dtype=getattr(torch, layer.dtype.name),
    )
    module.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return module

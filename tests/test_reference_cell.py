"""A cell that the library does not have, to prove that the references' shell knows no cell.

The sLSTM of xLSTM (M. Beck et al., NeurIPS 2024): a state of four parts, and R is block-diagonal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from fastlstm.reference import HiddenMasks, sigmoid
from fastlstm.reference._cell import Cell, Parameter, read_step
from fastlstm.reference._layers import Gradients, Tape, backward, forward, read_call
from fastlstm.reference._masks import dropped
from finite_differences import numerical_gradient, relative_error

Array = npt.NDArray[np.float64]


class Step(NamedTuple):
    i: Array  # exp(a_i - m), and f alike
    f: Array
    z: Array
    o: Array
    h: Array
    c: Array
    n: Array
    m: Array
    kept: Array  # where m comes from the old one


class StepGradients(NamedTuple):
    d_x: Array
    d_h: Array
    d_c: Array
    d_n: Array
    d_m: Array
    d_W: Array
    d_R: Array
    d_b: Array


class Trace(NamedTuple):
    i: Array
    f: Array
    h: Array
    c: Array
    n: Array
    m: Array


def slstm_cell(
    x: Any, h: Any, c: Any, n: Any, m: Any, W: Any, R: Any, b: Any, *, masks: Any
) -> Step:
    (x, h, c, n, m, W, R, b), _ = read_step(
        CELL, {"x": x, "h": h, "c": c, "n": n, "m": m, "W": W, "R": R, "b": b}, {}
    )
    a = x @ W.T + b
    from_h = np.einsum("nrs,bns->bnr", R, heads(dropped(masks.h, h), len(R)))
    a_i, a_f, a_z, a_o = (
        a_k + r_k.reshape(h.shape)
        for a_k, r_k in zip(np.split(a, 4, axis=1), np.split(from_h, 4, axis=2), strict=True)
    )
    m_new = np.maximum(a_f + m, a_i)
    i, f = np.exp(a_i - m_new), np.exp(a_f + m - m_new)
    z, o = np.tanh(a_z), sigmoid(a_o)
    c_new, n_new = f * c + i * z, f * n + i
    return Step(i, f, z, o, o * c_new / n_new, c_new, n_new, m_new, a_f + m >= a_i)


def slstm_cell_backward(
    step: Step,
    x: Any,
    h: Any,
    c: Any,
    n: Any,
    m: Any,
    W: Any,
    R: Any,
    d_h: Any,
    d_c: Any,
    d_n: Any,
    d_m: Any,
    *,
    masks: Any,
) -> StepGradients:
    i, f, z, o, _, c_new, n_new, _, kept = step
    d_c = d_c + d_h * o / n_new
    d_n = d_n - d_h * o * c_new / n_new**2
    d_i, d_f = (d_c * z + d_n) * i, (d_c * c + d_n * n) * f
    d_m = d_m - d_i - d_f
    d_a_i, d_a_f = d_i + d_m * ~kept, d_f + d_m * kept
    d_a_z, d_a_o = d_c * i * (1 - z**2), d_h * c_new / n_new * o * (1 - o)
    d_a = (d_a_i, d_a_f, d_a_z, d_a_o)
    by_head = np.concatenate([heads(d, len(R)) for d in d_a], axis=2)
    d_sums = np.concatenate(d_a, axis=1)
    return StepGradients(
        d_x=d_sums @ W,
        d_h=dropped(masks.h, np.einsum("nrs,bnr->bns", R, by_head).reshape(h.shape)),
        d_c=d_c * f,
        d_n=d_n * f,
        d_m=d_a_f,
        d_W=d_sums.T @ x,
        d_R=np.einsum("bnr,bns->nrs", by_head, heads(dropped(masks.h, h), len(R))),
        d_b=d_sums.sum(axis=0),
    )


def heads(h: Array, N: int) -> Array:
    return h.reshape(len(h), N, h.shape[1] // N)


CELL = Cell(
    parameters=(
        Parameter("W", "weight_ih", ("4H", "I")),
        Parameter("R", "weight_hh", ("N", "4S", "S")),  # N heads of size S
        Parameter("b", "bias", ("4H",), read_backward=False),
    ),
    state={"h": "H", "c": "H", "n": "H", "m": "H"},
    step=slstm_cell,
    step_backward=slstm_cell_backward,
    trace=Trace,
    masks=HiddenMasks,
    sized_by="W",
)


def run(p: dict[str, Array], x: Array, state: Any, **more: Any) -> Any:
    arguments = {"lengths": None, "reverse": False, "masks": None, "merge": "concat", **more}
    arguments = {"step_masks": {}, "options": {}, **arguments}
    return forward(read_call(CELL, p, x, state, **arguments), Tape[Trace])


@pytest.mark.parametrize(
    ("L", "D", "more"),
    [
        (1, 1, {}),
        (2, 1, {"reverse": True, "lengths": [3, 0, 2]}),
        (2, 2, {"merge": "mul", "lengths": [1, 3, 2]}),
    ],
)
def test_a_cell_with_four_states_by_finite_differences(
    L: int, D: int, more: dict[str, Any]
) -> None:
    rng = np.random.default_rng(4)
    T, B, I, N, S = 3, 3, 2, 2, 2
    H = N * S
    params = {}
    for k in range(L):
        for suffix in (f"_l{k}", f"_l{k}_reverse")[:D]:
            params["weight_ih" + suffix] = rng.uniform(-0.9, 0.9, (4 * H, I if k == 0 else D * H))
            params["weight_hh" + suffix] = rng.uniform(-0.9, 0.9, (N, 4 * S, S))
            params["bias" + suffix] = rng.uniform(-0.9, 0.9, 4 * H)
    x = rng.normal(size=(T, B, I))
    state = [rng.normal(size=(L * D, B, H)) for _ in CELL.state]
    state[2] = abs(state[2]) + 0.5  # n is a sum of positive numbers
    masks = {"h": rng.choice([0, 1.5], size=(L * D, B, H))}
    output, final, tape = run(params, x, state, step_masks=masks, **more)
    assert tape.traces[-1][0].m.shape == (T, B, H)
    d_output = rng.normal(size=output.shape)
    d_state = [rng.normal(size=s.shape) for s in final]

    def loss() -> float:
        output, final, _ = run(params, x, state, step_masks=masks, **more)
        parts = zip((output, *final), (d_output, *d_state), strict=True)
        return sum(float((a * b).sum()) for a, b in parts)

    grads: Gradients = backward(tape, d_output, d_state)
    found = {"x": grads.x, **dict(zip(CELL.state, grads.state, strict=True)), **grads.params}
    arrays = {"x": x, **dict(zip(CELL.state, state, strict=True)), **params}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        error = relative_error(found[name], numerical_gradient(loss, array, step=1e-4))
        assert error < 1e-8, (name, error)


def test_sizes_of_its_own() -> None:
    params = {"weight_ih_l0": np.zeros((8, 1)), "weight_hh_l0": np.zeros((2, 4, 1))}
    params["bias_l0"] = np.zeros(8)
    state = [np.zeros((1, 1, 2))] * 2
    with pytest.raises(ValueError, match=r"state: expected \(h_0, c_0, n_0, m_0\), got 2 arrays"):
        run(params, np.zeros((1, 1, 1)), state)
    params["weight_hh_l0"] = np.zeros((2, 4, 2))
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected \(2, 8, 2\), got \(2, 4, 2\)"):
        run(params, np.zeros((1, 1, 1)), None)

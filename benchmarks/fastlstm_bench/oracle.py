"""The right results of a case, in float64.

The LSTM is `fastlstm.reference`'s, which is proven by finite differences. GRU and RNN are here, in
PyTorch's definition, by the same formulas as in the textbook, and are proven the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastlstm import reference

from fastlstm_bench.cases import (
    BETAS,
    CHECKED_UPDATES,
    EPSILON,
    LEARNING_RATE,
    MAX_NORM,
    Case,
)
from fastlstm_bench.problem import Array, Arrays, Problem, parameter_names

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Step:
    """One step of a cell: what its backward needs. For the GRU `gates` is (r, z, n) and `hn` is the
    recurrent part of n before the reset gate; for the RNN `gates` is the new h."""

    h_before: Float64
    gates: tuple[Float64, ...]
    hn: Float64


def _sigmoid(a: Float64) -> Float64:
    result: Float64 = 0.5 * (1.0 + np.tanh(0.5 * a))
    return result


def _gru(gx: Float64, gh: Float64, h: Float64) -> tuple[Float64, _Step]:
    xr, xz, xn = np.split(gx, 3, axis=1)
    hr, hz, hn = np.split(gh, 3, axis=1)
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h, _Step(h, (r, z, n), hn)


def _gru_backward(step: _Step, d_h: Float64) -> tuple[Float64, Float64, Float64]:
    r, z, n = step.gates
    d_n = d_h * (1 - z) * (1 - n**2)
    d_z = d_h * (step.h_before - n) * z * (1 - z)
    d_r = d_n * step.hn * r * (1 - r)
    d_gx = np.concatenate([d_r, d_z, d_n], axis=1)
    d_gh = np.concatenate([d_r, d_z, d_n * r], axis=1)
    return d_gx, d_gh, d_h * z


def _rnn(gx: Float64, gh: Float64, h: Float64) -> tuple[Float64, _Step]:
    new = np.tanh(gx + gh)
    return new, _Step(h, (new,), gh)


def _rnn_backward(step: _Step, d_h: Float64) -> tuple[Float64, Float64, Float64]:
    (new,) = step.gates
    d_a = d_h * (1 - new**2)
    return d_a, d_a, np.zeros_like(d_h)


# gx = x W' + b_W, gh = h R' + b_R, h -> new h, step;  step, d_h -> d_gx, d_gh, d_h without the
# product
_FORWARD: dict[str, Callable[[Float64, Float64, Float64], tuple[Float64, _Step]]] = {
    "gru": _gru,
    "rnn": _rnn,
}
_BACKWARD: dict[str, Callable[[_Step, Float64], tuple[Float64, Float64, Float64]]] = {
    "gru": _gru_backward,
    "rnn": _rnn_backward,
}


class _Walk:
    """One layer in one direction over the whole sequence; finished sequences keep their state."""

    def __init__(
        self, cell: str, weights: list[Float64], x: Float64, h: Float64, live: Array, reverse: bool
    ) -> None:
        W, R, b_W, b_R = weights
        self.cell, self.W, self.R, self.x, self.live = cell, W, R, x, live
        self.times = range(len(x))[:: -1 if reverse else 1]
        self.steps: dict[int, _Step] = {}
        self.output = np.zeros((*x.shape[:2], R.shape[1]))
        for t in self.times:
            new, self.steps[t] = _FORWARD[cell](x[t] @ W.T + b_W, h @ R.T + b_R, h)
            h = np.where(live[t], new, h)
            self.output[t] = np.where(live[t], h, 0)
        self.h_n = h

    def backward(self, d_output: Float64) -> tuple[Float64, list[Float64]]:
        d_x = np.zeros_like(self.x)
        d_W, d_R = np.zeros_like(self.W), np.zeros_like(self.R)
        d_b_W, d_b_R = np.zeros(len(self.W)), np.zeros(len(self.R))
        d_h = np.zeros_like(self.h_n)
        for t in reversed(self.times):
            live, step = self.live[t], self.steps[t]
            d_new = np.where(live, d_h + d_output[t], 0)
            d_gx, d_gh, d_through = _BACKWARD[self.cell](step, d_new)
            d_h = np.where(live, d_through + d_gh @ self.R, d_h)
            d_x[t] = d_gx @ self.W
            d_W += d_gx.T @ self.x[t]
            d_R += d_gh.T @ step.h_before
            d_b_W += d_gx.sum(axis=0)
            d_b_R += d_gh.sum(axis=0)
        return d_x, [d_W, d_R, d_b_W, d_b_R]


def _stack(case: Case, problem: Problem, h_0: Float64 | None) -> Arrays:
    """GRU or RNN through all layers and directions, and back for training."""
    x = problem.x.astype(np.float64)
    T, B, _ = x.shape
    L, D = case.layers, case.directions
    lengths = np.full(B, T) if problem.lengths is None else problem.lengths
    live = (np.arange(T)[:, np.newaxis] < lengths)[:, :, np.newaxis]
    h = np.zeros((L * D, B, case.H)) if h_0 is None else h_0
    names = [[parameter_names(layer, d) for d in range(D)] for layer in range(L)]

    walks: list[list[_Walk]] = []
    for layer in range(L):
        weights = [
            [problem.params[n].astype(np.float64) for n in names[layer][d]] for d in range(D)
        ]
        pair = [
            _Walk(case.cell, weights[d], x, h[layer * D + d], live, reverse=d == 1)
            for d in range(D)
        ]
        walks.append(pair)
        x = np.concatenate([walk.output for walk in pair], axis=2)
    results: Arrays = {"output": x, "h_n": np.stack([w.h_n for pair in walks for w in pair])}

    if case.trains:
        d_y = problem.d_output.astype(np.float64)
        for layer in reversed(range(L)):
            parts = np.split(d_y, D, axis=2)
            d_y = np.zeros_like(walks[layer][0].x)
            for d in range(D):
                d_x, d_params = walks[layer][d].backward(parts[d])
                d_y += d_x
                for name, gradient in zip(names[layer][d], d_params, strict=True):
                    results[f"d_{name}"] = gradient
        results["d_x"] = d_y
    return results


def _lstm(case: Case, problem: Problem, state: tuple[Array, Array] | None) -> Arrays:
    output, (h_n, c_n), tape = reference.lstm_forward(
        problem.params, problem.x, state, lengths=problem.lengths
    )
    results: Arrays = {"output": output, "h_n": h_n, "c_n": c_n}
    if case.trains:
        gradients: Any = reference.lstm_backward(tape, problem.d_output, None)
        results["d_x"] = gradients.x
        results |= {f"d_{name}": gradient for name, gradient in gradients.params.items()}
    return results


def solve(case: Case, problem: Problem, state: tuple[Array, ...] | None = None) -> Arrays:
    """Compute the results that every system must give.

    Parameters
    ----------
    case : Case
    problem : Problem
    state : tuple of ndarray, (L*D, B, H) each
        Initial h (and c for the LSTM); None: zeros.

    Returns
    -------
    dict of str to ndarray of float64
        output, h_n, c_n (LSTM), and for training d_x and d_<parameter>. For an optimiser, after
        CHECKED_UPDATES of its steps: output and states of the last, and moved_<parameter>, how far
        a parameter has gone.
    """
    if case.task == "optimiser":
        updates = Updates(case, problem)
        for _ in range(CHECKED_UPDATES):
            updates.step()
        return updates.results
    return _pass(case, problem, state)


def _pass(case: Case, problem: Problem, state: tuple[Array, ...] | None) -> Arrays:
    """One pass: forward, and backward where the case has it."""
    if case.cell == "lstm":
        return _lstm(case, problem, None if state is None else (state[0], state[1]))
    return _stack(case, problem, None if state is None else state[0])


class Updates:
    """A case's parameters under Adam, step by step (Kingma and Ba 2015, algorithm 1), from
    gradients clipped to a common norm (Pascanu, Mikolov, Bengio 2013)."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.problem = case, problem
        self.start = {name: value.astype(np.float64) for name, value in problem.params.items()}
        self.params = dict(self.start)
        self.m = {name: np.zeros_like(value) for name, value in self.start.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.start.items()}
        self.steps = 0
        self.results: Arrays = {}

    def step(self) -> None:
        """Forward, backward, and a step from the gradients."""
        made = _pass(self.case, dataclasses.replace(self.problem, params=self.params), None)
        gradients = {name: made.pop(f"d_{name}") for name in self.params}
        del made["d_x"]
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, MAX_NORM / norm)
        self.steps += 1
        beta1, beta2 = BETAS
        for name, gradient in gradients.items():
            g = scale * gradient
            self.m[name] = beta1 * self.m[name] + (1 - beta1) * g
            self.v[name] = beta2 * self.v[name] + (1 - beta2) * g**2
            m = self.m[name] / (1 - beta1**self.steps)
            v = self.v[name] / (1 - beta2**self.steps)
            self.params[name] = self.params[name] - LEARNING_RATE * m / (np.sqrt(v) + EPSILON)
            made[f"moved_{name}"] = self.params[name] - self.start[name]
        self.results = made

"""The right results of a case, in float64: those of `fastlstm.reference`, which is proven by finite
differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from fastlstm import reference
from fastlstm.reference import blocks

from fastlstm_bench.cases import (
    BETAS,
    BLOCKS,
    CHECKED_UPDATES,
    EPSILON,
    JOBS,
    LEARNING_RATE,
    MAX_NORM,
    Case,
)
from fastlstm_bench.oracle_jobs import block_pass, cross_entropy, job_pass
from fastlstm_bench.problem import Array, Arrays, Problem, ends

_FORWARD: dict[str, Callable[..., Any]] = {
    "lstm": reference.lstm_forward,
    "gru": reference.gru_forward,
    "rnn": reference.rnn_forward,
}
_BACKWARD: dict[str, Callable[..., Any]] = {
    "lstm": reference.lstm_backward,
    "gru": reference.gru_backward,
    "rnn": reference.rnn_backward,
}


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
        output, h_n, c_n (LSTM), and for training d_x and d_<parameter>. Of a model, what its head
        gives as output, and no state. Of a job the loss, or what it answers to a request; of a
        block its output or loss. For an optimiser, after
        CHECKED_UPDATES of its steps: output and states of the last, moved_<parameter>, how far a
        parameter has gone, and slope_<parameter>, the derivative of that by the logarithm of the
        clipped gradients' norm.
    """
    if case.task == "optimiser":
        updates = Updates(case, problem)
        for _ in range(CHECKED_UPDATES):
            updates.step()
        return updates.results
    return _pass(case, problem, state)


def _pass(case: Case, problem: Problem, state: tuple[Array, ...] | None) -> Arrays:
    """One pass: forward, and backward where the case has it."""
    if case.use == "model":
        return _model_pass(case, problem)
    if case.use in JOBS:
        return job_pass(case, problem)
    if case.use in BLOCKS:
        return block_pass(case, problem)
    has_c = case.cell == "lstm"  # without c, h alone is the state
    given = state if state is None or has_c else state[0]
    output, final, tape = _FORWARD[case.cell](
        problem.params, problem.x, given, lengths=problem.lengths
    )
    results: Arrays = {"output": output, "h_n": final[0] if has_c else final}
    if has_c:
        results["c_n"] = final[1]
    if case.trains:
        gradients = _BACKWARD[case.cell](tape, problem.d_output, None)
        results["d_x"] = gradients.x
        results |= {f"d_{name}": gradient for name, gradient in gradients.params.items()}
    return results


def _model_pass(case: Case, problem: Problem) -> Arrays:
    """The same of a model: embedding, layer, linear head, cross entropy of their softmax."""
    assert problem.targets is not None
    rnn = {name: value for name, value in problem.params.items() if "." not in name}
    embedding, W, b = (
        problem.params[name].astype(np.float64)
        for name in ("embedding.weight", "head.weight", "head.bias")
    )
    hidden, _, tape = _FORWARD[case.cell](rnn, embedding[problem.x], None, lengths=problem.lengths)
    rows = hidden.reshape(-1, hidden.shape[-1])
    scores = blocks.linear(rows, W, b).reshape(*hidden.shape[:2], -1)
    results: Arrays = {"output": scores}
    if case.trains:
        lengths = ends(case.T, case.B, problem.lengths)
        _, d_scores = cross_entropy(scores, problem.targets, lengths)
        d_rows, d_W, d_b = blocks.linear_backward(d_scores.reshape(-1, len(b)), rows, W)
        gradients = _BACKWARD[case.cell](tape, d_rows.reshape(hidden.shape), None)
        results |= {f"d_{name}": gradient for name, gradient in gradients.params.items()}
        results["d_embedding.weight"] = blocks.embedding_backward(
            gradients.x, problem.x, len(embedding)
        )
        results |= {"d_head.weight": d_W, "d_head.bias": d_b}
    return results


class Updates:
    """A case's parameters under Adam, step by step (Kingma and Ba 2015, algorithm 1), from
    gradients clipped to a common norm (Pascanu, Mikolov, Bengio 2013)."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.problem = case, problem
        self.start = {name: value.astype(np.float64) for name, value in problem.params.items()}
        self.params = dict(self.start)
        self.m = {name: np.zeros_like(value) for name, value in self.start.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.start.items()}
        self.slope = {name: np.zeros_like(value) for name, value in self.start.items()}
        self.steps = 0
        self.results: Arrays = {}

    def norm(self, gradients: Arrays) -> float:
        """What the gradients are clipped by: the norm of all of them."""
        return float(np.sqrt(sum((g**2).sum() for g in gradients.values())))

    def step(self) -> None:
        """Forward, backward, and a step from the gradients."""
        made = _pass(self.case, dataclasses.replace(self.problem, params=self.params), None)
        gradients = {name: made.pop(f"d_{name}") for name in self.params}
        made.pop("d_x", None)
        scale = min(1.0, MAX_NORM / self.norm(gradients))
        self.steps += 1
        beta1, beta2 = BETAS
        for name, gradient in gradients.items():
            g = scale * gradient
            self.m[name] = beta1 * self.m[name] + (1 - beta1) * g
            self.v[name] = beta2 * self.v[name] + (1 - beta2) * g**2
            m = self.m[name] / (1 - beta1**self.steps)
            v = self.v[name] / (1 - beta2**self.steps)
            root = np.sqrt(v) + EPSILON
            self.params[name] = self.params[name] - LEARNING_RATE * m / root
            # m and sqrt(v) are both as the gradients: their factor cancels but for epsilon's part.
            self.slope[name] = self.slope[name] - LEARNING_RATE * m * EPSILON / root**2
            made[f"moved_{name}"] = self.params[name] - self.start[name]
            made[f"slope_{name}"] = self.slope[name]
        self.results = made

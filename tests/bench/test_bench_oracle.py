"""The oracle's GRU and RNN, by finite differences and against PyTorch; and the check itself."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from fastlstm_bench.cases import (
    BETAS,
    CELLS,
    CHECKED_UPDATES,
    EPSILON,
    LEARNING_RATE,
    MAX_NORM,
    Case,
    Cell,
)
from fastlstm_bench.check import check, relative_error
from fastlstm_bench.oracle import solve
from fastlstm_bench.problem import Array, Problem, make_problem

FORMS = [
    {},
    {"layers": 2, "bidirectional": True, "lengths": True},
]


@pytest.mark.parametrize("cell", ["gru", "rnn"])
@pytest.mark.parametrize("form", FORMS, ids=["plain", "all"])
def test_gradients_by_finite_differences(cell: Cell, form: dict[str, object]) -> None:
    case = Case("training", cell, 5, 3, 2, dtype="float64", **form)  # type: ignore[arg-type]
    problem = make_problem(case)
    gradients = solve(case, problem)

    def loss(problem: Problem) -> float:
        output = solve(dataclasses.replace(case, task="inference"), problem)["output"]
        return float((output * problem.d_output).sum())

    def derivative(change: Array, name: str | None) -> float:
        values = []
        for sign in (1, -1):
            if name is None:
                moved = dataclasses.replace(problem, x=problem.x + sign * change)
            else:
                params = problem.params | {name: problem.params[name] + sign * change}
                moved = dataclasses.replace(problem, params=params)
            values.append(loss(moved))
        return (values[0] - values[1]) / 2

    rng = np.random.default_rng(0)
    for name in (None, *problem.params):
        want = gradients["d_x" if name is None else f"d_{name}"]
        direction = rng.standard_normal(want.shape)
        slope = derivative(1e-5 * direction, name) / 1e-5
        assert slope == pytest.approx(float((want * direction).sum()), rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("form", FORMS, ids=["plain", "all"])
def test_agrees_with_pytorch(cell: Cell, form: dict[str, object]) -> None:
    torch = pytest.importorskip("torch")
    case = Case("inference", cell, 7, 4, 3, dtype="float64", **form)  # type: ignore[arg-type]
    problem = make_problem(case)
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](
        3, 3, case.layers, bidirectional=case.bidirectional, dtype=torch.float64
    )
    layer.load_state_dict({n: torch.from_numpy(v) for n, v in problem.params.items()})
    x = torch.from_numpy(problem.x)
    with torch.no_grad():
        if problem.lengths is None:
            output, _ = layer(x)
        else:
            pack = torch.nn.utils.rnn.pack_padded_sequence
            packed, _ = layer(pack(x, torch.from_numpy(problem.lengths), enforce_sorted=False))
            output, _ = torch.nn.utils.rnn.pad_packed_sequence(packed)
    assert relative_error(output.numpy(), solve(case, problem)["output"]) < 1e-12


def test_an_optimisers_steps_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    case = Case("optimiser", "lstm", 7, 4, 3, layers=2, dtype="float64")
    problem = make_problem(case)
    layer = torch.nn.LSTM(3, 3, 2, dtype=torch.float64)
    layer.load_state_dict({n: torch.from_numpy(v) for n, v in problem.params.items()})
    optimizer = torch.optim.Adam(layer.parameters(), LEARNING_RATE, BETAS, EPSILON)
    for _ in range(CHECKED_UPDATES):
        optimizer.zero_grad()
        output, _ = layer(torch.from_numpy(problem.x))
        output.backward(torch.from_numpy(problem.d_output))
        norm = torch.nn.utils.clip_grad_norm_(layer.parameters(), MAX_NORM)
        assert norm > MAX_NORM
        optimizer.step()
    results = solve(case, problem)
    assert relative_error(output.detach().numpy(), results["output"]) < 1e-6
    for name, value in layer.named_parameters():
        moved = value.detach().numpy() - problem.params[name]
        # No closer, because PyTorch adds 1e-6 to the norm that it divides by.
        assert relative_error(moved, results[f"moved_{name}"]) < 1e-6
        assert np.abs(moved).max() > 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_steps_with_carried_state_are_the_sequence(cell: Cell) -> None:
    case = Case("inference", cell, 6, 2, 3, layers=2)
    problem = make_problem(case)
    whole = solve(case, problem)
    state: tuple[Array, ...] | None = None
    for t in range(case.T):
        step = solve(case, dataclasses.replace(problem, x=problem.x[t : t + 1]), state)
        state = (step["h_n"], step["c_n"]) if cell == "lstm" else (step["h_n"],)
        np.testing.assert_allclose(step["output"][0], whole["output"][t], rtol=0, atol=1e-14)


def test_check_accepts_rounding() -> None:
    want = {"output": np.linspace(-1, 1, 50)}
    got = {"output": want["output"].astype(np.float32)}
    verdict = check(got, want, "float32")
    assert verdict.complaint == ""
    assert 0 < verdict.errors["output"] < 1e-7


@pytest.mark.parametrize(
    ("got", "complaint"),
    [
        ({}, "output is missing"),
        ({"output": np.zeros((2, 3), np.float32)}, r"shape \(2, 3\), expected \(3, 2\)"),
        ({"output": np.ones((3, 2))}, "is float64, expected float32"),
        ({"output": np.full((3, 2), 1.001, np.float32)}, "off by 1.0e-03"),
        ({"output": np.full((3, 2), np.nan, np.float32)}, "off by inf"),
    ],
)
def test_check_says_what_is_wrong(got: dict[str, Array], complaint: str) -> None:
    verdict = check(got, {"output": np.ones((3, 2))}, "float32")
    assert re.search(complaint, verdict.complaint)

"""The oracle's GRU and RNN, by finite differences and against PyTorch; and the check itself."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from fastlstm_bench import oracle
from fastlstm_bench.cases import (
    BETAS,
    CELLS,
    CHECKED_UPDATES,
    EPSILON,
    JOBS,
    LEARNING_RATE,
    MAX_NORM,
    Case,
    Cell,
    Job,
)
from fastlstm_bench.check import NORM_TOLERANCE, check, relative_error
from fastlstm_bench.oracle import Updates, solve
from fastlstm_bench.oracle_jobs import job_pass
from fastlstm_bench.problem import Array, Arrays, Problem, make_problem

FORMS = [
    {},
    {"layers": 2, "bidirectional": True, "lengths": True},
]


@pytest.mark.parametrize("padded", [False, True], ids=["told", "padded"])
@pytest.mark.parametrize("use", JOBS)
def test_gradients_of_jobs_by_finite_differences(use: Job, padded: bool) -> None:
    case = Case("optimiser", "lstm", 9, 3, 2, 1, True, True, "float64", use, V=6)
    problem = make_problem(case)
    if padded:
        assert not np.array_equal(problem.lengths, np.full(case.B, case.T))
        problem = problem.as_padded()
    results = job_pass(case, problem)
    rng = np.random.default_rng(0)
    for name, value in problem.params.items():
        direction = rng.standard_normal(value.shape)
        direction[...] = direction if name != "words.weight" else direction * (value != 0)
        losses = [
            job_pass(
                case,
                dataclasses.replace(
                    problem, params=problem.params | {name: value + sign * 1e-5 * direction}
                ),
            )["loss"]
            for sign in (1, -1)
        ]
        slope = float((results[f"d_{name}"] * direction).sum())
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-6), name


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


# One whose gradients are above epsilon, and one where they are far below, as in most of the grid.
OPTIMISERS = (
    Case("optimiser", "lstm", 7, 4, 3),
    Case("optimiser", "gru", 5, 8, 48),
)


def moved(case: Case, kind: type[Updates] = Updates) -> Arrays:
    """The results of an optimiser's steps, in float32."""
    updates = kind(case, make_problem(case))
    for _ in range(CHECKED_UPDATES):
        updates.step()
    return {name: value.astype(np.float32) for name, value in updates.results.items()}


@pytest.mark.parametrize("case", OPTIMISERS, ids=lambda case: case.name)
def test_a_norm_that_is_rounded_is_one_factor(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    want = solve(case, make_problem(case))
    monkeypatch.setattr(oracle, "MAX_NORM", MAX_NORM * (1 + 5e-4))
    got = moved(case)
    plain = {name: value for name, value in want.items() if not name.startswith("slope")}
    assert "moved_weight_hh_l0 is off" in check(got, plain, "float32").complaint
    verdict = check(got, want, "float32")
    assert verdict.complaint == ""
    assert verdict.errors.pop("norm") == pytest.approx(5e-4, rel=0.01)
    assert set(verdict.errors) == set(plain)
    assert max(verdict.errors.values()) < 1e-5


class WithoutBiases(Updates):
    def norm(self, gradients: Arrays) -> float:
        return super().norm({n: g for n, g in gradients.items() if n.startswith("weight")})


class OfEachMatrix(Updates):
    """A norm of the first matrix alone, as if each had its own."""

    def norm(self, gradients: Arrays) -> float:
        return super().norm({"weight_ih_l0": gradients["weight_ih_l0"]})


class Forgetful(Updates):
    """Moments are lost after each step."""

    def step(self) -> None:
        self.m = {name: np.zeros_like(m) for name, m in self.m.items()}
        super().step()


class Uncorrected(Updates):
    """The moments' start from zero is not corrected."""

    def step(self) -> None:
        self.steps = 1000
        super().step()


@pytest.mark.parametrize("case", OPTIMISERS, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", [WithoutBiases, OfEachMatrix, Forgetful, Uncorrected])
def test_a_wrong_optimiser_is_caught(case: Case, kind: type[Updates]) -> None:
    want = solve(case, make_problem(case))
    assert check(moved(case), want, "float32").complaint == ""
    assert check(moved(case, kind), want, "float32").complaint


@pytest.mark.parametrize("case", OPTIMISERS, ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MAX_NORM", MAX_NORM * 1.0015),
        ("LEARNING_RATE", LEARNING_RATE * 1.01),
        ("BETAS", (0.9, 0.9)),
        ("BETAS", (0.89, 0.999)),
        ("EPSILON", 1.01 * EPSILON),
    ],
)
def test_a_wrong_setting_of_an_optimiser_is_caught(
    case: Case, setting: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = solve(case, make_problem(case))
    monkeypatch.setattr(oracle, setting, value)
    assert check(moved(case), want, "float32").complaint


def test_one_wrong_parameter_is_not_taken_for_the_norm() -> None:
    case = OPTIMISERS[1]
    want = solve(case, make_problem(case))
    got = moved(case)
    got["moved_bias_hh_l0"] = got["moved_bias_hh_l0"] * np.float32(1.0005)
    verdict = check(got, want, "float32")
    assert "moved_bias_hh_l0 is off by" in verdict.complaint
    assert verdict.errors["norm"] < NORM_TOLERANCE["float32"]
    got["moved_bias_hh_l0"] = np.full_like(got["moved_bias_hh_l0"], np.nan)
    assert "moved_bias_hh_l0 is off by inf" in check(got, want, "float32").complaint


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

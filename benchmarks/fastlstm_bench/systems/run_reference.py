"""The reference: NumPy in float64, one loop over time. Timed to show what plain Python costs."""

from __future__ import annotations

import dataclasses

import numpy as np

from fastlstm_bench.cases import Case
from fastlstm_bench.oracle import Updates, solve
from fastlstm_bench.problem import Array, Arrays, Problem
from fastlstm_bench.roofline import flop
from fastlstm_bench.systems import Call, UnsupportedError

USES = ("layer", "cells", "model")

# Larger cases take it seconds, and show nothing that smaller ones do not.
_MOST_GFLOP = 10.0


def start(threads: int) -> dict[str, str]:
    return {"numpy": np.__version__, "computes in": "float64"}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if flop(case) > _MOST_GFLOP * 1e9:
        raise UnsupportedError(f"not timed above {_MOST_GFLOP:g} GFLOP")
    if case.task == "step":
        return _Steps(case, problem)
    return _Optimiser(case, problem) if case.task == "optimiser" else _Sequence(case, problem)


class _Sequence(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.problem = case, problem
        self.results: Arrays = {}

    def run(self) -> None:
        self.results = solve(self.case, self.problem)

    def fetch(self) -> Arrays:
        return {name: array.astype(self.case.dtype) for name, array in self.results.items()}


class _Optimiser(_Sequence):
    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.updates = Updates(case, problem)

    def run(self) -> None:
        self.updates.step()
        self.results = self.updates.results


class _Steps(_Sequence):
    def feed(self, x: Array) -> None:
        self.problem = dataclasses.replace(self.problem, x=x[np.newaxis])

    def run(self) -> None:
        names = ("h_n", "c_n") if self.case.cell == "lstm" else ("h_n",)
        state = tuple(self.results[name] for name in names) if self.results else None
        self.results = solve(self.case, self.problem, state)

    def fetch(self) -> Arrays:
        return {"output": self.results["output"][0].astype(self.case.dtype)}

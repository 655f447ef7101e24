"""Gives numbers that are wrong in the third digit."""

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Arrays, Problem
from fastlstm_bench.systems import Call, run_reference

start = run_reference.start


class _Wrong(Call):
    def __init__(self, call: Call) -> None:
        self.call = call
        self.feed = call.feed  # type: ignore[method-assign]

    def run(self) -> None:
        self.call.run()

    def fetch(self) -> Arrays:
        results = self.call.fetch()
        return results | {"output": results["output"] * 1.001}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    return _Wrong(run_reference.prepare(case, problem, threads))

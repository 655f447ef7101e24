"""Gives the right results, far slower than the reference."""

import time

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Arrays, Problem
from fastlstm_bench.systems import Call, run_reference

start = run_reference.start


class _Slow(Call):
    def __init__(self, call: Call) -> None:
        self.call = call

    def run(self) -> None:
        time.sleep(0.05)
        self.call.run()

    def fetch(self) -> Arrays:
        return self.call.fetch()


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    return _Slow(run_reference.prepare(case, problem, threads))

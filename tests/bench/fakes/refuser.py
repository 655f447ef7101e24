"""Cannot do the case, and says why."""

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import Call, UnsupportedError, run_reference

start = run_reference.start


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    raise UnsupportedError("no such cell")

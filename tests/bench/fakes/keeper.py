"""Keeps 64 MB of each case for ever."""

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import Call, run_reference

start = run_reference.start
kept: list[bytes] = []


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    kept.append(b"x" * 64_000_000)
    return run_reference.prepare(case, problem, threads)

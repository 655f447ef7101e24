"""Raises an exception, and prints to standard output, where only replies may go."""

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import Call, run_reference

start = run_reference.start


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    print("a library that talks")
    raise RuntimeError("no such kernel")

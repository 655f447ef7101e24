"""fastlstm with small weights alone, which multiply inputs and h as they are."""

from __future__ import annotations

from fastlstm_bench.cases import SMALL, Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import WEIGHTS, Call, run_fastlstm

DTYPES = SMALL


def start(threads: int) -> dict[str, str]:
    versions = run_fastlstm.start(threads)
    return {WEIGHTS: versions["fastlstm"], **versions}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    return run_fastlstm.prepare(case, problem, threads, activations="float32")

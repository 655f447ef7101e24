"""PyTorch with padded batches as they are: jobs of uneven lengths, whose layer is told nothing."""

from __future__ import annotations

from fastlstm_bench.cases import JOBS, Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import PADDED, Call, UnsupportedError, run_torch

USES = JOBS


def start(threads: int) -> dict[str, str]:
    versions = run_torch.start(threads)
    return {PADDED: versions["torch"], **versions}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if not case.lengths:
        raise UnsupportedError("nothing is padded")
    return run_torch.prepare(case, problem.as_padded(), threads)

"""PyTorch with torch.compile, as its documentation has it: cells, and whole models.

Dynamo does not look into nn.LSTM, GRU and RNN: what is around them in a model is compiled, and a
layer alone is not.
"""

from __future__ import annotations

import torch

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import Call, run_torch

USES = ("cells", "model")


def start(threads: int) -> dict[str, str]:
    versions = run_torch.start(threads)
    return {"torch-compiled": versions["torch"], **versions}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    torch.compiler.reset()  # what was compiled for earlier cases counts against a limit
    return run_torch.prepare(case, problem, threads, torch.compile)

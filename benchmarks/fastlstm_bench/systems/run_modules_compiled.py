"""fastlstm.torch under torch.compile: cells and models as in `run_torch_compiled`, accelerated."""

from __future__ import annotations

from typing import Any

import fastlstm.torch
import torch

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import COMPILED, Call, run_modules, run_torch, run_torch_compiled

USES = run_torch_compiled.USES


def start(threads: int) -> dict[str, str]:
    versions = run_modules.start(threads)
    return {COMPILED: fastlstm.__version__, **versions}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    torch.compiler.reset()
    return run_torch.prepare(case, problem, threads, _accelerated_and_compiled)


def _accelerated_and_compiled(module: Any) -> Any:
    return torch.compile(fastlstm.torch.accelerate(module))

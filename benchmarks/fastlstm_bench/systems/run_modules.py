"""fastlstm.torch: the modules of `run_torch`, accelerated by one line each."""

from __future__ import annotations

import fastlstm
import fastlstm.torch

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Problem
from fastlstm_bench.systems import MODULES, Call, run_torch

USES = ("layer", "cells", "model")


def start(threads: int) -> dict[str, str]:
    about = {MODULES: fastlstm.__version__, "isa": fastlstm.isa()}
    return about | run_torch.start(threads)


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    return run_torch.prepare(case, problem, threads, fastlstm.torch.accelerate)

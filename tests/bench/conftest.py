"""A made-up run, for the tests of what is done with results."""

from __future__ import annotations

import pytest
from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Level, Limits
from fastlstm_bench.results import Result, Run

STEP = Case("step", "lstm", 1, 1, 64)
BATCH = Case("inference", "lstm", 100, 32, 256)
TRAINING = Case("training", "gru", 50, 8, 128)


def make_run(fastlstm: float = 1e-3, machine: float = 1.0, noise: float = 0.01) -> Run:
    """fastlstm takes `fastlstm` seconds, torch 2 ms, onnxruntime 3 ms, all times `machine`; the
    times of seven rounds lie within ± `noise`."""
    run = Run(
        machine={"cpu": "Made <up> CPU", "governor": "performance"},
        settings={"suite": "quick"},
        systems={"fastlstm": {"fastlstm": "1"}, "torch": {"torch": "2"}, "onnxruntime": {"x": "3"}},
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T04:04:05+00:00",
    )
    levels = (
        Level("L1", 32768, False, 200e9),
        Level("L2", 1 << 20, False, 100e9),
        Level("L3", 32 << 20, True, 50e9),
        Level("memory", float("inf"), True, 10e9),
    )
    flops = {"float32": 100e9, "float64": 50e9}
    run.limits[1] = Limits("avx2", flops, {"float32": 90e9, "float64": 45e9}, levels)
    # The same deviations in another order for each system, or the ratios would have no spread.
    deviations = [-1.0, 0.3, -0.2, 0.0, 0.1, -0.4, 1.0]
    for case in (STEP, BATCH, TRAINING):
        for shift, (system, seconds) in enumerate(
            {"fastlstm": fastlstm, "torch": 2e-3, "onnxruntime": 3e-3}.items()
        ):
            result = Result(case, 1, system)
            if case.task == "training" and system == "onnxruntime":
                result.fail("unsupported", "inference only")
            else:
                turned = deviations[shift:] + deviations[:shift]
                times = [seconds * machine * (1 + noise * d) for d in turned]
                result.rounds = dict(enumerate(times))
                result.errors = {"output": 1e-7}
                result.calls = 7
            if case.task == "step":
                result.keep_latencies([seconds * machine * (1 + i / 2000) for i in range(2000)])
            run.results.append(result)
    return run


@pytest.fixture
def run() -> Run:
    return make_run()

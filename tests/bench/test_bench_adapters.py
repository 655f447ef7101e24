"""Every installed system gives the reference's results, in every form that it supports."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fastlstm_bench.cases import BLOCKS, CELLS, JOBS, SMALL, Case
from fastlstm_bench.check import check
from fastlstm_bench.oracle import solve
from fastlstm_bench.problem import make_problem
from fastlstm_bench.systems import PADDED, SYSTEMS, WEIGHTS
from fastlstm_bench.workers import Worker, WorkerError

LIBRARIES = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "keras": ("keras", "tensorflow"),
    "reference": ("numpy",),
    "fastlstm-torch": ("torch",),
    "fastlstm-torch-compiled": ("torch",),
    "torch-compiled": ("torch",),
    PADDED: ("torch",),
    WEIGHTS: ("fastlstm",),
}

# What a system may refuse, by a part of the case's name.
REFUSALS = {
    "onnxruntime": ("training", "optimiser", "float64"),
    "openvino": ("training", "optimiser", "float64"),
    "keras": ("optimiser",),
    PADDED: ("inference", "forecaster", "tagger"),
    "torch": ("tagger", "crf"),  # without pytorch-crf
}
# Who has which small weights.
WITH_SMALL: dict[str, Callable[[Case], bool]] = {
    "fastlstm": lambda _: True,
    WEIGHTS: lambda _: True,
    "torch": lambda case: case.dtype == "bfloat16" or case.cell != "rnn" or case.task == "step",
    "onnxruntime": lambda case: case.dtype == "int8" and case.cell == "lstm",
}
# Who knows uses of a layer other than by itself.
USES = {
    **dict.fromkeys(("fastlstm-torch", "reference"), ("layer", "cells", "model")),
    "torch": ("layer", "cells", "model", *JOBS, *BLOCKS),
    "fastlstm": ("layer", *JOBS, *BLOCKS),
    PADDED: JOBS,
    **dict.fromkeys(("torch-compiled", "fastlstm-torch-compiled"), ("cells", "model")),
}

# Odd sizes, so that a transposition or a wrong axis cannot go unseen.
CASES = [
    Case("step", cell, 1, B, 5, layers) for cell in CELLS for B, layers in ((1, 1), (3, 2))
] + [
    Case(task, cell, 7, 3, 5, **form)  # type: ignore[arg-type]
    for cell in CELLS
    for task in ("inference", "training", "optimiser")
    for form in (
        {},
        {"layers": 2, "bidirectional": True},
        {"layers": 2, "bidirectional": True, "lengths": True},
        {"dtype": "float64"},
    )
]
CASES += [
    Case(task, cell, T, 3, 5, dtype=dtype, **form)  # type: ignore[arg-type]
    for dtype in SMALL
    for cell in CELLS
    for task, T, form in (
        ("step", 1, {"layers": 2}),
        ("inference", 7, {}),
        ("inference", 7, {"layers": 2, "bidirectional": True, "lengths": True}),
    )
]
USED = [
    Case(task, cell, 7, 3, 5, use="cells") for cell in CELLS for task in ("inference", "training")
]
USED += [
    Case(task, cell, 7, 3, 5, use="model", **form)  # type: ignore[arg-type]
    for cell in CELLS
    for task in ("inference", "optimiser")
    for form in ({}, {"layers": 2, "bidirectional": True, "lengths": True})
]
USED += [
    Case("optimiser", "lstm", 9, 3, 5, 1, use != "language", use != "forecaster", use=use, V=6)
    for use in JOBS
]
USED += [Case("inference", "lstm", 9, 1, 5, bidirectional=True, use=use, V=6) for use in JOBS]
USED += [
    Case("training", "lstm", 9, 3, 5, lengths=True, dtype=dtype, use=use, V=V)  # type: ignore[arg-type]
    for use, V in zip(BLOCKS, (6, 7, 0, 0, 0, 0), strict=True)
    for dtype in ("float32", "float64")
]


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, Worker]]:
    name: str = request.param
    for library in LIBRARIES.get(name, (name,)):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    worker = Worker(SYSTEMS[name], 1, timeout=120.0)
    yield name, worker
    worker.close()


def prepare(name: str, worker: Worker, case: Case, path: Path) -> None:
    """Prepare a case; skip the test where the system may refuse it, and does."""
    used = case.use in USES.get(name, ("layer",))
    if case.dtype in SMALL:
        used &= WITH_SMALL.get(name, lambda _: False)(case)
    elif name == WEIGHTS:
        used = False
    try:
        worker.ask("prepare", case=asdict(case), results=str(path))
    except WorkerError as error:
        may_refuse = not used or any(part in case.name for part in REFUSALS.get(name, ()))
        if may_refuse and error.status == "unsupported":
            pytest.skip(error.reason)
        raise


@pytest.mark.parametrize("case", [*CASES, *USED], ids=lambda case: case.name)
def test_agrees_with_the_reference(system: tuple[str, Worker], case: Case, tmp_path: Path) -> None:
    name, worker = system
    if name.endswith("compiled") and case.cell != "lstm":
        pytest.skip("torch.compile takes seconds, and what is ours of it knows no cell")
    path = tmp_path / "results.npz"
    prepare(name, worker, case, path)
    problem = make_problem(case)
    want = solve(case, problem.as_padded() if name == PADDED else problem)
    if case.task == "step":
        want = {"output": want["output"]}
    with np.load(path) as results:
        assert check(results, want, case.dtype).complaint == ""
    reply = worker.ask("measure", seconds=0.001)
    assert min(reply["times_ns"]) > 0


def test_versions_are_recorded(system: tuple[str, Worker]) -> None:
    name, worker = system
    assert worker.versions.get("numpy" if name == "reference" else name)

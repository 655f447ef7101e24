"""What is particular to the suite "jobs": padded batches, and how much of a step is Python."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fastlstm import _core
from fastlstm_bench import python_share, schedule
from fastlstm_bench.cases import Case
from fastlstm_bench.check import check
from fastlstm_bench.limits import Limits
from fastlstm_bench.oracle import solve
from fastlstm_bench.problem import make_problem
from fastlstm_bench.results import Run
from fastlstm_bench.schedule import Plan, execute
from fastlstm_bench.systems import PADDED, SUBJECT, SYSTEMS

TINY = Case("optimiser", "lstm", 9, 3, 5, 1, True, True, use="classifier", V=4)


class Silent:
    def status(self, text: str) -> None: ...

    def message(self, text: str) -> None: ...

    def group_done(self, run: Run, group: object) -> None: ...


def test_who_pads_is_checked_by_what_padding_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    problem, run = make_problem(TINY), Run()
    told, padded = solve(TINY, problem), solve(TINY, problem.as_padded())
    as_float32 = {name: array.astype(np.float32) for name, array in padded.items()}
    assert check(as_float32, told, TINY.dtype).complaint
    systems = {name: SYSTEMS[name] for name in (SUBJECT, PADDED)}
    execute(Plan([TINY], systems, [1], rounds=1, turn=0.002), run, Silent())
    assert {r.system: r.status for r in run.results} == dict.fromkeys(systems, "ok")


def test_the_share_of_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(python_share, "_TURN", 0.01)
    monkeypatch.setattr(python_share.machine, "pin", lambda _: None)
    before = (_core.adam, _core.PackedMatrixFloat32.multiply)
    assert python_share.main(["--case", "forecaster"]) == 0
    assert (_core.adam, _core.PackedMatrixFloat32.multiply) == before
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("-")[1] for line in lines] == ["forecaster", "forecaster"]
    for line in lines:
        share = re.search(r"([0-9.]+) %$", line)
        assert share is not None
        assert 0 < float(share[1]) < 100

"""The suite "scaling", and whether plans are the best ones."""

from __future__ import annotations

import json
from pathlib import Path

import fastlstm
import pytest
from fastlstm_bench import cli, plans, schedule, tables
from fastlstm_bench.cases import SUITES, Case
from fastlstm_bench.results import Result, Run

CASE = Case("inference", "lstm", 50, 64, 512)


@pytest.fixture
def scaled() -> Run:
    """A case on 1, 2 and 4 threads: 1.9 and 3 times as fast; of a peer on two of them."""
    run = Run(settings={"suite": "scaling"})
    for system, times in (
        ("fastlstm", {1: 60e-3, 4: 20e-3, 2: 60e-3 / 1.9}),
        ("torch", {1: 80e-3, 4: 40e-3}),
    ):
        for threads, seconds in times.items():
            result = Result(CASE, threads, system)
            result.rounds = dict.fromkeys(range(3), seconds)
            run.results.append(result)
    return run


def test_the_suite_goes_from_one_row_to_many() -> None:
    cases = SUITES["scaling"]
    assert {case.task for case in cases} == {"step", "inference", "training"}
    assert {case.B for case in cases if case.task == "inference"} >= {1, 8, 32, 64, 128, 512}


def test_threads_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[schedule.Plan] = []
    monkeypatch.setattr(cli, "execute", lambda plan, *_: made.append(plan))
    monkeypatch.setattr(cli.machine, "available_cpus", lambda: list(range(12)))
    for suite in ("scaling", "quick"):
        cli.main(["--suite", suite, "--out", str(tmp_path)])
    cli.main(["--suite", "scaling", "--threads", "1,3", "--out", str(tmp_path)])
    assert [plan.threads for plan in made] == [[1, 2, 4, 8, 12], [1, 12], [1, 3]]


def test_speed_up_and_efficiency(scaled: Run) -> None:
    table = tables.scaling_table(scaled)
    own, peer = (line for line in table.splitlines() if CASE.name in line)
    assert "1.90x" in own
    assert "95 %" in own
    assert "3.00x" in own
    assert "75 %" in own
    assert own.rstrip(" |").endswith("20 ms on 4")
    assert "2.00x" in peer
    assert "50 %" in peer


def test_the_plot(scaled: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm_bench.plots import save_plots

    assert tmp_path / "scaling.png" in save_plots(scaled, tmp_path)
    scaled.settings["suite"] = "quick"
    assert "scaling" not in {path.stem for path in save_plots(scaled, tmp_path)}


def test_divisions_are_of_powers_of_two_and_all() -> None:
    found = plans.divisions(Case("inference", "lstm", 10, 2, 64, bidirectional=True), 6)
    assert {(1, 1, 1, 1), (2, 1, 1, 2), (2, 2, 1, 1), (1, 1, 1, 6), (1, 2, 1, 2)} <= set(found)
    assert all(rows <= 2 and layers == 1 for rows, _, layers, _ in found)
    assert len(found) == len(set(found))
    assert (1, 1, 2, 1) in plans.divisions(Case("inference", "lstm", 10, 1, 64, layers=2), 2)


def test_every_plan_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plans.json"
    argv = ["--suite", "sequences", "--case", "gru-inference-T100-B1-H64", "--threads", "2"]
    argv += ["--rounds", "1", "--turn", "0.0001", "--out", str(out)]
    pytest.importorskip("matplotlib")
    assert plans.main([*argv, "--plot", str(tmp_path / "plans.png")]) == 0
    found = json.loads(out.read_text())
    assert {tuple(timed["division"]) for timed in found} == {(1, 1, 1, 1), (1, 1, 1, 2)}
    assert sum(timed["chosen"] for timed in found) == 1
    assert all(timed["seconds"] > 0 and timed["expected"] > 0 for timed in found)
    printed = capsys.readouterr().out
    assert "gru-inference-T100-B1-H64" in printed
    assert "of 2 plans" in printed
    assert (tmp_path / "plans.png").stat().st_size > 0
    assert fastlstm.LSTM(256, 256).plan(100, threads=1).threads == 1  # nothing is forced


def test_no_case_begins_after_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert plans.main(["--minutes", "0"]) == 0
    assert "0 of 0 plans" in capsys.readouterr().out

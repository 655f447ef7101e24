"""The command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastlstm_bench import callgrind, cli, schedule
from fastlstm_bench.limits import Limits
from fastlstm_bench.results import Run
from fastlstm_bench.systems import BY_SUITE, EVERYWHERE

from .conftest import make_run


def test_list_prints_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list", "--suite", "streaming", "--case", "lstm-*-H64"]) == 0
    assert capsys.readouterr().out.split() == ["lstm-step-B1-H64"]


def test_list_of_types(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--list", "--suite", "streaming", "--case", "lstm-*-H64*", "--dtype", "bfloat16,int8"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.split() == ["lstm-step-B1-H64-bfloat16", "lstm-step-B1-H64-int8"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dtype", "int4"], "expected some of float32, float64, bfloat16, int8, got 'int4'"),
        (["--suite", "quik"], "invalid choice: 'quik'"),
        (["--peer", "tensorrt"], "invalid choice: 'tensorrt'"),
        (["--threads", "0"], "expected 1 to"),
        (["--threads", "many"], "expected numbers, got 'many'"),
        (["--rounds", "0"], "expected at least 1, got 0"),
        (["--minutes", "0"], "expected at least 1, got 0"),
        (["--case", "H65"], "nothing in the suite 'quick' matches 'H65'"),
        (["--compare", "/nowhere/a.json", "/nowhere/b.json"], "No such file"),
    ],
)
def test_mistakes_are_explained(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    make_run(1e-3).write(paths[0])
    make_run(0.5e-3).write(paths[1])
    assert cli.main(["--compare", *map(str, paths)]) == 0
    shown = capsys.readouterr().out
    assert "-50.0 %" in shown
    assert "3 of 8 results changed beyond noise" in shown


def test_report_of_an_earlier_run(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run.write(tmp_path / "a.json")
    out = tmp_path / "out"
    assert cli.main(["--report", str(tmp_path / "a.json"), "--out", str(out)]) == 0
    assert (out / "report.html").exists()


def test_a_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    argv = ["--case", "lstm-step-B1-H64", "--peer", "reference", "--threads", "1"]
    status = cli.main([*argv, "--rounds", "2", "--turn", "0.01", "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "lstm-step-B1-H64, 1 thread" in captured.out
    record = json.loads((tmp_path / "results.json").read_text())
    assert {r["system"]: r["status"] for r in record["results"]} == {
        "fastlstm": "ok",
        "reference": "ok",
    }
    assert record["settings"]["command"].startswith("fastlstm bench --case lstm-step")
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("argv", "turn"),
    [
        ([], 0.2),
        # A fifth of 45 minutes, over 216 cases on two numbers of threads, 7 systems, 3 rounds.
        (["--minutes", "45"], 0.06),
        (["--minutes", "1"], 0.05),
        (["--minutes", "10000"], 0.5),
        (["--minutes", "45", "--turn", "0.3"], 0.3),
    ],
)
def test_a_budget_picks_the_length_of_a_turn(
    argv: list[str], turn: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[schedule.Plan] = []
    monkeypatch.setattr(cli.machine, "available_cpus", lambda: [0, 1])
    monkeypatch.setattr(cli, "execute", lambda plan, *_: plans.append(plan))
    cli.main(["--suite", "full", "--out", str(tmp_path), *argv])
    assert plans[0].turn == turn
    assert plans[0].minutes == (float(argv[1]) if argv else None)


@pytest.mark.parametrize(
    ("argv", "systems"),
    [
        (["--suite", "quick"], EVERYWHERE),
        (["--suite", "torch"], BY_SUITE["torch"]),
        (["--suite", "jobs"], ("fastlstm", "torch", "torch-padded")),
        (["--suite", "torch", "--peer", "torch"], ("fastlstm", "torch")),
        (["--peer", "fastlstm-torch"], ("fastlstm", "fastlstm-torch")),
    ],
)
def test_a_suite_has_its_systems(
    argv: list[str], systems: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[schedule.Plan] = []
    monkeypatch.setattr(cli, "execute", lambda plan, *_: plans.append(plan))
    cli.main(["--out", str(tmp_path), *argv])
    assert set(plans[0].systems) == set(systems)
    assert "fastlstm-torch" not in EVERYWHERE


def test_an_interruption_keeps_what_is_measured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(plan: schedule.Plan, made: Run, listener: schedule.Listener) -> None:
        made.results = run.results
        made.machine = run.machine
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "execute", interrupted)
    assert cli.main(["--out", str(tmp_path)]) == 130
    assert len(Run.read(tmp_path / "results.json").results) == len(run.results)


def test_instruction_counts_are_compared_with_a_tolerance() -> None:
    baseline = {"step": 100_000, "training": 100_000}
    counts = {"step": 100_400, "training": 102_000, "new": 5}
    assert callgrind.changes(counts, baseline) == {"training": pytest.approx(0.02)}

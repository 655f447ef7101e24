"""tools/compare_versions.py: finds no difference where there is none, and one where there is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "compare_versions.py"
Record = dict[str, Any]


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *args], capture_output=True, text=True)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("record") / "a.json"
    result = run("record", "--quick", path)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture
def diff_from(record: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Compare the record with what a function makes of it."""

    def diff(change: Callable[[Record], None], *args: str) -> subprocess.CompletedProcess[str]:
        changed = copy.deepcopy(json.loads(record.read_text()))
        change(changed)
        path = tmp_path / "b.json"
        path.write_text(json.dumps(changed))
        return run("diff", record, path, *args)

    return diff


def test_another_run_on_other_threads_has_the_same_bits(record: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    assert run("record", "--quick", "--threads", "2", again).returncode == 0
    result = run("diff", record, again)
    assert result.returncode == 0, result.stdout
    assert "none" in result.stdout.splitlines()[-1]
    about = json.loads(record.read_text())["about"]
    assert (about["isa"], about["fastlstm"]) == (fastlstm.isa(), fastlstm.__version__)
    assert all(text in result.stdout for text in (about["isa"], about["cpu"], "threads 2"))


def test_a_planted_difference_is_found(diff_from: Any) -> None:
    def plant(record: Record) -> None:
        name = next(name for name in record["cases"] if "bidirectional=True" in name)
        record["cases"][name]["results"]["training: d_weight_hh_l0"][0] = "other bits"
        planted.append(name)

    planted: list[str] = []
    result = diff_from(plant)
    assert result.returncode == 1
    assert "Cases that differ: 1\n" in result.stdout
    assert f"{planted[0]}: training: d_weight_hh_l0" in result.stdout
    assert "bidirectional=True" in result.stdout.partition("by what they have")[2]
    # No number differs: its projections are as they were.
    assert diff_from(plant, "--close", "1e-12").returncode == 0


def test_how_far_numbers_may_be_apart(diff_from: Any) -> None:
    def move(record: Record) -> None:
        name = next(iter(record["cases"]))
        array = record["cases"][name]["results"]["output"]
        array[0] = "other bits"
        array[3] += 1e-4 * array[2]

    assert diff_from(move).returncode == 1
    assert diff_from(move, "--close", "1e-5").returncode == 1
    result = diff_from(move, "--close", "1e-3")
    assert result.returncode == 0
    assert "Other bits: 1 arrays; largest relative difference about 1.0e-04" in result.stdout


def test_what_one_record_lacks_is_a_difference(diff_from: Any) -> None:
    def lose_case(record: Record) -> None:
        record["cases"].popitem()

    def lose_result(record: Record) -> None:
        del next(iter(record["cases"].values()))["results"]["output"]

    assert "In one record alone: 1 cases" in diff_from(lose_case).stdout
    assert diff_from(lose_case).returncode == 1
    assert diff_from(lose_result, "--close", "1").returncode == 1

    def lose_case_of_all(record: Record) -> None:
        lose_case(record)
        record["about"]["quick"] = False

    def add_case_of_all(record: Record) -> None:
        record["cases"]["another"] = next(iter(record["cases"].values()))
        record["about"]["quick"] = False

    # A quick record beside one of all cases: its own cases count.
    assert diff_from(lose_case_of_all).returncode == 1
    assert diff_from(add_case_of_all).returncode == 0


def test_speed_times_two_workers_in_turns(tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    path = str(Path(fastlstm.__file__).parents[1])
    result = run(
        *("speed", "--a", sys.executable, "--a-path", path, "--minutes", "0", "--threads", "1"),
        *("--exact", "lstm-step-T1-B1-H16", "lstm-training-T20-B1-H8", "--out", times),
    )
    assert result.returncode in (0, 1), result.stderr  # of so few turns anything may come
    assert "geometric mean" in result.stdout
    found = json.loads(times.read_text())["turns"]
    assert {turn["point"] for turn in found} == {"lstm-step-T1-B1-H16", "lstm-training-T20-B1-H8"}
    assert all(len(turn["a"]) == len(turn["b"]) >= 6 for turn in found)
    unknown = run("speed", "--a", sys.executable, "--exact", "nothing")
    assert unknown.returncode == 2
    assert "no point 'nothing'" in unknown.stdout

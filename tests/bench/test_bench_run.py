"""A whole run with systems that lie, crash, hang, fail or are absent: each harms itself only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from fastlstm_bench import oracle, schedule
from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Limits
from fastlstm_bench.problem import Arrays, Problem, make_problem
from fastlstm_bench.results import Group, Result, Run
from fastlstm_bench.schedule import Plan, execute
from fastlstm_bench.systems import SYSTEMS, UnsupportedError, run_reference
from fastlstm_bench.workers import Worker, WorkerError

FAKES = ("liar", "crasher", "raiser", "refuser", "absent")
CASES = (
    Case("inference", "rnn", 3, 2, 2),
    Case("inference", "gru", 3, 2, 2),
)


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.groups: list[Group] = []

    def status(self, text: str) -> None:
        assert text

    def message(self, text: str) -> None:
        self.messages.append(text)

    def group_done(self, run: Run, group: Group) -> None:
        self.groups.append(group)


@pytest.fixture(autouse=True)
def _fakes_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def finished() -> tuple[Run, Recorder]:
    """One run of all fakes next to two honest systems. The limits are not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setattr(schedule, "_measure_limits", lambda *_: Limits())
        systems = {"reference": SYSTEMS["reference"]}
        systems |= {name: f"fakes.{name}" for name in FAKES}
        systems["second"] = SYSTEMS["reference"]
        run, recorder = Run(), Recorder()
        execute(Plan(CASES, systems, [1], rounds=2, turn=0.002), run, recorder)
    return run, recorder


def results_of(finished: tuple[Run, Recorder], system: str) -> list[Result]:
    return [result for result in finished[0].results if result.system == system]


@pytest.mark.parametrize("system", ["reference", "second"])
def test_honest_systems_are_timed_next_to_the_broken(
    finished: tuple[Run, Recorder], system: str
) -> None:
    for result in results_of(finished, system):
        assert result.timed
        assert sorted(result.rounds) == [0, 1]
        assert result.calls >= 2
        assert 0 <= result.errors["output"] < 1e-6


def test_wrong_numbers_are_caught_and_not_timed(finished: tuple[Run, Recorder]) -> None:
    for result in results_of(finished, "liar"):
        assert result.status == "disagrees"
        assert "output is off by 1.0e-03" in result.reason
        assert result.calls == 0
        assert not result.rounds


def test_a_killed_worker_costs_one_case_and_starts_again(finished: tuple[Run, Recorder]) -> None:
    killed, next_case = results_of(finished, "crasher")
    assert killed.status == "died"
    assert "signal 9" in killed.reason
    assert not killed.timed
    assert next_case.timed


def test_a_hanging_worker_is_killed() -> None:
    worker = Worker("fakes.hanger", 1, timeout=120.0)
    worker.timeout = 0.5
    with pytest.raises(WorkerError, match=r"no answer for 0\.5 s") as caught:
        worker.ask("prepare", case=asdict(CASES[0]), results="never written")
    assert caught.value.status == "timeout"
    assert not worker.alive
    worker.close()


def test_an_exception_is_a_result(finished: tuple[Run, Recorder]) -> None:
    for result in results_of(finished, "raiser"):
        assert (result.status, result.reason) == ("failed", "RuntimeError: no such kernel")


def test_a_refusal_keeps_its_reason(finished: tuple[Run, Recorder]) -> None:
    for result in results_of(finished, "refuser"):
        assert (result.status, result.reason) == ("unsupported", "no such cell")


def test_an_absent_system_is_named_once_and_left_out(finished: tuple[Run, Recorder]) -> None:
    run, recorder = finished
    assert results_of(finished, "absent") == []
    assert "a_library_that_nobody_has" in run.systems["absent"]["absent"]
    assert len([m for m in recorder.messages if "absent is skipped" in m]) == 1


def test_the_listener_hears_of_every_case(finished: tuple[Run, Recorder]) -> None:
    run, recorder = finished
    assert [group.case for group in recorder.groups] == list(CASES)
    assert [g.case for g in run.groups()] == list(CASES)
    assert run.machine["cpu"]
    assert run.started <= run.finished


def test_a_worker_that_dies_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    monkeypatch.setattr(schedule, "_MOST_DEATHS", 1)
    case = CASES[0]
    run = Run()
    plan = Plan([case, case], {"crasher": "fakes.crasher"}, [1], rounds=1, turn=0.002)
    execute(plan, run, Recorder())
    assert [r.status for r in run.results] == ["died", "died"]
    assert "given up" in run.results[1].reason


@pytest.mark.parametrize(("share", "processes"), [(1.0, 1), (-1.0, 3)])
def test_a_process_that_keeps_memory_is_replaced(
    share: float, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    class Counted(Worker):
        def __init__(self, module: str, threads: int, timeout: float) -> None:
            started.append(module)
            super().__init__(module, threads, timeout)

    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    monkeypatch.setattr(schedule, "_KEPT_SHARE", share)
    monkeypatch.setattr(schedule, "_MOST_DEATHS", 1)
    monkeypatch.setattr(schedule, "Worker", Counted)
    run = Run()
    case = CASES[0]
    plan = Plan([case] * 3, {"reference": SYSTEMS["reference"]}, [1], rounds=1, turn=0.002)
    execute(plan, run, Recorder())
    assert len(started) == processes
    assert [r.status for r in run.results] == ["ok"] * 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_a_worker_says_what_memory_it_keeps(tmp_path: Path) -> None:
    kept: dict[str, int] = {}
    for name, module in {"reference": SYSTEMS["reference"], "keeper": "fakes.keeper"}.items():
        worker = Worker(module, 1, timeout=120.0)
        for _ in range(2):
            worker.ask("prepare", case=asdict(CASES[0]), results=str(tmp_path / "results.npz"))
            kept[name] = worker.ask("release")["kept_bytes"]
        worker.close()
    assert kept["keeper"] - kept["reference"] == pytest.approx(128e6, rel=0.2)


def run_two(
    monkeypatch: pytest.MonkeyPatch, other: str, rounds: int = 5, **settings: float
) -> dict[str, Result]:
    """One case with the reference and another system, by name."""
    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    systems = {"reference": SYSTEMS["reference"], other: f"fakes.{other}"}
    run = Run()
    plan = Plan(CASES[:1], systems, [1], rounds=rounds, turn=0.002, **settings)
    execute(plan, run, Recorder())
    return {result.system: result for result in run.results}


def test_a_slow_system_sits_out_later_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_two(monkeypatch, "refuser", patience=0.0)
    assert sorted(results["reference"].rounds) == [0, 1, 2]
    assert results["reference"].sat_out == "took 0 s"


def test_a_system_far_behind_has_two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_two(monkeypatch, "sleeper")
    assert sorted(results["sleeper"].rounds) == [0, 1]
    assert "times slower than the best" in results["sleeper"].sat_out
    assert len(results["reference"].rounds) == 5
    assert results["reference"].sat_out == ""


def test_what_is_ours_has_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "OWN", ("sleeper",))
    sleeper = run_two(monkeypatch, "sleeper")["sleeper"]
    assert len(sleeper.rounds) == 5
    assert sleeper.sat_out == ""


def test_a_system_far_behind_with_long_calls_has_one_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "_HOPELESS_SECONDS", 0.01)
    assert len(run_two(monkeypatch, "sleeper")["sleeper"].rounds) == 1


def test_a_budget_that_is_used_up_leaves_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_two(monkeypatch, "refuser", minutes=0.0)
    assert sorted(results["reference"].rounds) == [0, 1, 2]
    assert results["reference"].sat_out == ""


def test_a_budget_that_is_large_leaves_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(run_two(monkeypatch, "refuser", minutes=10.0)["reference"].rounds) == 5


def test_a_budget_is_shared_by_cost_and_what_is_left_over_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now)
    monkeypatch.setattr(schedule, "_cost", lambda case, threads: float(case.H))
    cases = [Case("inference", "lstm", 3, 2, H) for H in (1, 2, 3)]
    budget = schedule._Budget(Plan(cases, {}, [1], minutes=1.0))
    assert budget.deadline(cases[0], 1) == pytest.approx(10.0)
    now = 5.0
    assert budget.deadline(cases[1], 1) == pytest.approx(5 + 55 * 2 / 5)
    now = 70.0
    assert budget.deadline(cases[2], 1) == 70.0
    assert schedule._Budget(Plan(cases, {}, [1])).deadline(cases[0], 1) == float("inf")


def test_what_is_right_is_computed_once_for_all_numbers_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solved: list[Case] = []

    def solve(case: Case, problem: Problem) -> Arrays:
        solved.append(case)
        return oracle.solve(case, problem)

    monkeypatch.setattr(schedule, "_measure_limits", lambda *_: Limits())
    monkeypatch.setattr(schedule, "solve", solve)
    run, recorder = Run(), Recorder()
    systems = {"reference": SYSTEMS["reference"], "absent": "fakes.absent"}
    # Twice one thread: a machine with one CPU runs this test, too.
    execute(Plan(CASES, systems, [1, 1], rounds=1, turn=0.002), run, recorder)
    assert solved == list(CASES)
    assert [r.case for r in run.results] == [CASES[0], CASES[0], CASES[1], CASES[1]]
    assert len([m for m in recorder.messages if "absent is skipped" in m]) == 1


def test_the_reference_does_no_huge_cases() -> None:
    case = Case("training", "lstm", 20, 128, 1024)
    with pytest.raises(UnsupportedError, match="not timed above 10 GFLOP"):
        run_reference.prepare(case, make_problem(CASES[0]), 1)


def test_a_closed_worker_is_gone() -> None:
    worker = Worker(SYSTEMS["reference"], 1, timeout=120.0)
    assert worker.alive
    worker.close()
    assert not worker.alive


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(WorkerError, match="no_such_module") as caught:
        Worker("no_such_module", 1, timeout=120.0)
    assert caught.value.status == "absent"

"""Who runs what, and when: one process for each system, turn after turn, round after round."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from fastlstm_bench import machine
from fastlstm_bench.cases import JOBS, Case
from fastlstm_bench.check import check
from fastlstm_bench.limits import Limits, best_of
from fastlstm_bench.oracle import solve
from fastlstm_bench.problem import Arrays, make_problem
from fastlstm_bench.results import Group, Result, Run
from fastlstm_bench.roofline import flop
from fastlstm_bench.systems import OWN, PADDED
from fastlstm_bench.workers import PACKAGE_ROOT, Worker, WorkerError, worker_environment

# Variables that change what the libraries do.
_TELLING_VARIABLES = (
    *("FASTLSTM_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_"),
    *(
        "TF_ENABLE_",
        "TF_NUM_",
        "TF_XLA_",
        "XLA_",
        "JAX_",
        "KERAS_",
        "ORT_",
        "OV_",
        "TORCH_",
        "MALLOC_",
        "LD_PRELOAD",
    ),
)
# A load over the last minute above which timings deserve distrust.
_BUSY = 0.5
# A system that dies again and again is not started anew for every case of a long run.
_MOST_DEATHS = 4
# A process that has grown by more than this part of the memory after a case is ended.
# TensorFlow does not return what XLA's calls needed: 14 GB after a Keras case of 2000 steps, in the
# process of each number of threads. clear_session, a reset of its context and malloc_trim did not
# help.
_KEPT_SHARE = 1 / 8
# Rounds that a system which competes always has; further ones as patience and the budget allow.
LEAST_ROUNDS = 3
# A system this many times slower than the best in its fastest round does not compete. It sits out
# after two rounds, or after one that took longer than a second, which no disturbance explains. What
# is ours does not: for short calls, a module may be this much slower than the layer in it.
_HOPELESS = 5.0
_HOPELESS_ROUNDS, _HOPELESS_SECONDS = 2, 1.0
# What LEAST_ROUNDS of a case cost with all systems: compilers and turns, and operations on one
# thread. Measured on a Zen 4; only their ratio counts, which says how a budget is shared.
_SECONDS_PER_CASE, _SECONDS_PER_GFLOP = 4.0, 0.22


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes
    ----------
    cases : sequence of Case
    systems : mapping of str to str
        Adapter modules by name.
    threads : sequence of int
    rounds : int
    turn : float
        Seconds that a system has in a round; a call that takes longer is not cut short.
    patience : float
        Seconds after which a slow system sits out the remaining rounds of a case (but for three).
    timeout : float
        Seconds of silence after which a system is killed.
    minutes : float or None
        What the whole run may take: cases get fewer rounds than `rounds`, but three. None: no
        limit.
    """

    cases: Sequence[Case]
    systems: Mapping[str, str]
    threads: Sequence[int]
    rounds: int = 7
    turn: float = 0.2
    patience: float = 8.0
    timeout: float = 180.0
    minutes: float | None = None


class Listener(Protocol):
    """Who wants to know how a run goes on."""

    def status(self, text: str) -> None:
        """What happens now."""

    def message(self, text: str) -> None:
        """What the reader should know, such as a system that is not installed."""

    def group_done(self, run: Run, group: Group) -> None:
        """All systems are done with a case."""


def execute(plan: Plan, run: Run, listener: Listener) -> None:
    """Run a plan and fill `run` as results come in. An interruption leaves what is there."""
    run.started = _now()
    run.machine = machine.describe()
    run.machine["revision"] = machine.git_revision(PACKAGE_ROOT)
    run.settings |= {k: v for k, v in asdict(plan).items() if k not in ("cases", "systems")}
    run.settings["environment"] = {
        name: value for name, value in os.environ.items() if name.startswith(_TELLING_VARIABLES)
    }
    load = machine.load_average()
    if load is not None and load > _BUSY:
        run.warnings.append(f"the machine was busy at the start: load {load:.1f}")
        listener.message(run.warnings[-1])
    try:
        _run(plan, run, listener)
    finally:
        run.finished = _now()
        run.machine["load_1min_end"] = machine.load_average()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _run(plan: Plan, run: Run, listener: Listener) -> None:
    """All cases, each on every number of threads before the next: what is right is computed once,
    and a run that is cut short has both."""
    budget = _Budget(plan)
    with contextlib.ExitStack() as stack:
        teams = [_Team(plan, threads, run, listener) for threads in plan.threads]
        for team in teams:
            stack.callback(team.close)
            listener.status(f"{team.threads} threads: starting the systems")
            team.start()
        for threads in plan.threads:
            listener.status(f"{threads} threads: measuring the machine's limits")
            run.limits[threads] = _measure_limits(threads, plan.timeout, listener)
        for index, case in enumerate(plan.cases, 1):
            where = f"[{index}/{len(plan.cases)}, {budget.minutes():.0f} min] {case.name}"
            listener.status(f"{where}: computing the reference")
            problem = make_problem(case)
            want = dict.fromkeys(plan.systems, solve(case, problem))
            if PADDED in want and case.use in JOBS and case.lengths:
                want[PADDED] = solve(case, problem.as_padded())
            for team in teams:
                here = f"{where}, {team.threads} threads"
                group = team.run_case(case, want, budget.deadline(case, team.threads), here)
                run.results += group
                listener.group_done(run, group)
        # The clock may have risen or a neighbour gone since: a limit is the best that was seen.
        for threads in plan.threads:
            after = _measure_limits(threads, plan.timeout, listener)
            run.limits[threads] = best_of(run.limits[threads], after)
    for threads in plan.threads:
        for suspicion in run.limits[threads].suspicions():
            run.warnings.append(f"limits of {threads} threads: {suspicion}")
        above = run.above_roofline(threads)
        if above:
            run.warnings.append(
                f"limits of {threads} threads: {len(above)} results are above their roofline, so "
                "the limits were measured in a disturbed moment"
            )


class _Budget:
    """Shares the minutes of a run among its cases by what each costs at least.

    What a case leaves over, or takes too much, is everybody's after it.
    """

    def __init__(self, plan: Plan) -> None:
        self.start = time.monotonic()
        self.seconds = None if plan.minutes is None else 60.0 * plan.minutes
        self.to_come = sum(_cost(case, n) for case in plan.cases for n in plan.threads)

    def minutes(self) -> float:
        """Since the start."""
        return (time.monotonic() - self.start) / 60.0

    def deadline(self, case: Case, threads: int) -> float:
        """When a case that begins now should end, on the monotonic clock."""
        if self.seconds is None:
            return math.inf
        now, cost = time.monotonic(), _cost(case, threads)
        left = max(0.0, self.start + self.seconds - now)
        share = left * cost / self.to_come
        self.to_come -= cost
        return now + share


def _cost(case: Case, threads: int) -> float:
    """Rough seconds of a case with all systems in LEAST_ROUNDS rounds."""
    return _SECONDS_PER_CASE + _SECONDS_PER_GFLOP * flop(case) / 1e9 / threads


def _measure_limits(threads: int, timeout: float, listener: Listener) -> Limits:
    """Measure in a process that is pinned as the systems are; nothing known when that fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastlstm_bench.limits", str(threads)],
            capture_output=True,
            text=True,
            env=worker_environment(threads),
            timeout=timeout,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        listener.message(error.stderr.strip().splitlines()[-1] if error.stderr else str(error))
        return Limits()
    except subprocess.TimeoutExpired:
        listener.message("measuring the limits took too long")
        return Limits()
    return Limits.from_json(json.loads(done.stdout))


@contextlib.contextmanager
def _recorded(result: Result) -> Iterator[None]:
    """What goes wrong with a system's worker is that system's result, and nobody else's."""
    try:
        yield
    except WorkerError as error:
        result.fail(error.status, error.reason)


class _Team:
    """The workers of one number of threads."""

    def __init__(self, plan: Plan, threads: int, run: Run, listener: Listener) -> None:
        self.plan, self.threads, self.run, self.listener = plan, threads, run, listener
        self.workers: dict[str, Worker] = {}
        self.deaths: dict[str, int] = {}
        self.most_kept = _KEPT_SHARE * (machine.memory_bytes() or math.inf)
        self.given_up: dict[str, WorkerError] = {}

    def start(self) -> None:
        for system in self.plan.systems:
            with contextlib.suppress(WorkerError):
                self._worker(system)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def _worker(self, system: str) -> Worker:
        """The living worker of a system, started anew if it died.

        Raises
        ------
        WorkerError
            It cannot be started, or died too often.
        """
        worker = self.workers.get(system)
        if worker is not None and worker.alive:
            return worker
        if worker is not None:
            self.workers.pop(system).close()
            self.deaths[system] = self.deaths.get(system, 0) + 1
        if system in self.given_up:
            raise self.given_up[system]
        try:
            if self.deaths.get(system, 0) >= _MOST_DEATHS:
                raise WorkerError("died", f"given up after {_MOST_DEATHS} processes that died")
            worker = Worker(self.plan.systems[system], self.threads, self.plan.timeout)
        except WorkerError as error:
            self.given_up[system] = error
            # Once, not again for each number of threads.
            if system not in self.run.systems or error.status != "absent":
                self.listener.message(f"{system} is skipped: {error.reason}")
            self.run.systems.setdefault(system, {error.status: error.reason})
            raise
        self.workers[system] = worker
        self.run.systems[system] = worker.versions
        return worker

    def run_case(
        self, case: Case, want: Mapping[str, Arrays], deadline: float, where: str
    ) -> Group:
        """Check by what each must give, then time one case in all systems."""
        group = Group(
            Result(case, self.threads, system)
            for system in self.plan.systems
            if system not in self.given_up or self.given_up[system].status != "absent"
        )
        samples: dict[str, list[float]] = {result.system: [] for result in group}
        for result in group:
            self.listener.status(f"{where}: checking {result.system}")
            with _recorded(result):
                self._prepare(result, want[result.system])
        previous = 0.0
        for turn in range(self.plan.rounds):
            begin = time.monotonic()
            if turn >= LEAST_ROUNDS and begin + previous > deadline:
                break
            self._sit_out(group, samples)
            self.listener.status(f"{where}: round {turn + 1} of {self.plan.rounds}")
            # Another order in each round, so that nobody always follows the same system.
            for result in random.Random(turn).sample(group, len(group)):
                if result.status == "ok" and not result.sat_out:
                    with _recorded(result):
                        samples[result.system] += self._measure(result, turn)
            previous = time.monotonic() - begin
        for result in group:
            if result.timed and case.task == "step":
                result.keep_latencies(samples[result.system])
            self._release(result.system)
        return group

    def _release(self, system: str) -> None:
        """Let a system forget its case, and end its process where that leaves much behind."""
        worker = self.workers.get(system)
        if worker is not None and worker.alive:
            with contextlib.suppress(WorkerError):
                if worker.ask("release")["kept_bytes"] > self.most_kept:
                    self.workers.pop(system).close()

    def _sit_out(self, group: Group, samples: dict[str, list[float]]) -> None:
        """Say who has no further rounds, and why: the time goes to those that compete."""
        fastest = {r.system: min(r.rounds.values()) for r in group if r.timed}
        best = min(fastest.values(), default=0.0)
        for result in group:
            if not result.timed or result.sat_out:
                continue
            rounds, spent = len(result.rounds), sum(samples[result.system])
            times_slower = fastest[result.system] / best
            seen = rounds >= _HOPELESS_ROUNDS or fastest[result.system] > _HOPELESS_SECONDS
            if times_slower > _HOPELESS and seen and result.system not in OWN:
                result.sat_out = f"{times_slower:.1f} times slower than the best"
            elif rounds >= LEAST_ROUNDS and spent > self.plan.patience:
                result.sat_out = f"took {spent:.0f} s"

    def _prepare(self, result: Result, want: Arrays) -> None:
        worker = self._worker(result.system)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.npz"
            worker.ask("prepare", case=asdict(result.case), results=str(path))
            with np.load(path) as arrays:
                got = dict(arrays)
        # The carried state of a stream shows in its outputs.
        compared = {"output": want["output"]} if result.case.task == "step" else want
        verdict = check(got, compared, result.case.dtype)
        result.errors = verdict.errors
        if verdict.complaint:
            result.fail("disagrees", verdict.complaint)

    def _measure(self, result: Result, turn: int) -> list[float]:
        reply = self.workers[result.system].ask("measure", seconds=self.plan.turn)
        times = [nanoseconds * 1e-9 for nanoseconds in reply["times_ns"]]
        result.rounds[turn] = float(np.median(times))
        result.calls += len(times)
        result.until_idle = max(result.until_idle, reply["until_idle_s"])
        return times

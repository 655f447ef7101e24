"""Who runs what, and when: one process for each system, turn after turn, round after round."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from fastlstm_bench import machine
from fastlstm_bench.cases import Case
from fastlstm_bench.check import check
from fastlstm_bench.limits import Limits, best_of
from fastlstm_bench.oracle import solve
from fastlstm_bench.problem import Arrays, make_problem
from fastlstm_bench.results import Group, Result, Run
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
_MOST_STARTS = 4


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
    """

    cases: Sequence[Case]
    systems: Mapping[str, str]
    threads: Sequence[int]
    rounds: int = 7
    turn: float = 0.2
    patience: float = 8.0
    timeout: float = 180.0


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
        for threads in plan.threads:
            _run_threads(plan, threads, run, listener)
    finally:
        run.finished = _now()
        run.machine["load_1min_end"] = machine.load_average()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _run_threads(plan: Plan, threads: int, run: Run, listener: Listener) -> None:
    with contextlib.ExitStack() as stack:
        team = _Team(plan, threads, run, listener)
        stack.callback(team.close)
        listener.status(f"{threads} threads: starting the systems")
        team.start()
        listener.status(f"{threads} threads: measuring the machine's limits")
        before = _measure_limits(threads, plan.timeout, listener)
        run.limits[threads] = before
        for index, case in enumerate(plan.cases, 1):
            where = f"[{index}/{len(plan.cases)}, {threads} threads] {case.name}"
            group = team.run_case(case, where)
            run.results += group
            listener.group_done(run, group)
        # The clock may have risen or a neighbour gone since: a limit is the best that was seen.
        run.limits[threads] = best_of(before, _measure_limits(threads, plan.timeout, listener))
        for suspicion in run.limits[threads].suspicions():
            run.warnings.append(f"limits of {threads} threads: {suspicion}")
        above = run.above_roofline(threads)
        if above:
            run.warnings.append(
                f"limits of {threads} threads: {len(above)} results are above their roofline, so "
                "the limits were measured in a disturbed moment"
            )


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
        self.starts: dict[str, int] = {}
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
        if system in self.given_up:
            raise self.given_up[system]
        self.starts[system] = self.starts.get(system, 0) + 1
        try:
            if self.starts[system] > _MOST_STARTS:
                raise WorkerError("died", f"given up after {_MOST_STARTS} processes that died")
            worker = Worker(self.plan.systems[system], self.threads, self.plan.timeout)
        except WorkerError as error:
            self.given_up[system] = error
            self.listener.message(f"{system} is skipped: {error.reason}")
            self.run.systems.setdefault(system, {error.status: error.reason})
            raise
        self.workers[system] = worker
        self.run.systems[system] = worker.versions
        return worker

    def run_case(self, case: Case, where: str) -> Group:
        """Check, then time one case in all systems."""
        self.listener.status(f"{where}: computing the reference")
        want = solve(case, make_problem(case))
        group = Group(
            Result(case, self.threads, system)
            for system in self.plan.systems
            if system not in self.given_up or self.given_up[system].status != "absent"
        )
        spent = {result.system: 0.0 for result in group}
        samples: dict[str, list[float]] = {result.system: [] for result in group}
        for result in group:
            self.listener.status(f"{where}: checking {result.system}")
            with _recorded(result):
                self._prepare(result, want)
        for turn in range(self.plan.rounds):
            self.listener.status(f"{where}: round {turn + 1} of {self.plan.rounds}")
            # Another order in each round, so that nobody always follows the same system.
            for result in random.Random(turn).sample(group, len(group)):
                slow = turn >= 3 and spent[result.system] > self.plan.patience
                if result.status == "ok" and not slow:
                    with _recorded(result):
                        times = self._measure(result, turn)
                        samples[result.system] += times
                        spent[result.system] += sum(times)
        for result in group:
            if result.timed and case.task == "step":
                result.keep_latencies(samples[result.system])
            worker = self.workers.get(result.system)
            if worker is not None and worker.alive:
                with contextlib.suppress(WorkerError):
                    worker.ask("release")
        return group

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

"""How much of a job's time is Python: ``python -m fastlstm_bench.python_share``.

Every function of the core is wrapped by a clock while a job of the suite "jobs" runs. What is left
of the time of a step is Python and NumPy: checks, arrays, the order of the model. Medians over
steps; a wrapper takes some tenths of a microsecond, which count as Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastlstm import _core

from fastlstm_bench import machine, tables
from fastlstm_bench.cases import JOBS, select
from fastlstm_bench.problem import make_problem
from fastlstm_bench.systems import Call, run_fastlstm

# Seconds of each job.
_TURN = 1.0


class _Clock:
    """Nanoseconds in the core."""

    def __init__(self) -> None:
        self.spent = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter_ns

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent += clock() - begin

        return timed


@contextmanager
def watched_core() -> Iterator[_Clock]:
    """Wrap the core's functions, and the methods of its classes."""
    clock = _Clock()
    owners = [_core, *(value for value in vars(_core).values() if isinstance(value, type))]
    before = []
    for owner in owners:
        for name, value in list(vars(owner).items()):
            static = isinstance(value, staticmethod)
            function = value.__func__ if isinstance(value, staticmethod) else value
            if name.startswith("_") or isinstance(value, type) or not callable(function):
                continue
            before.append((owner, name, value))
            wrapper = clock.around(function)
            setattr(owner, name, staticmethod(wrapper) if static else wrapper)
    try:
        yield clock
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def measure(call: Call, clock: _Clock, seconds: float) -> tuple[float, float]:
    """Return the seconds of a call, and the part of it that is Python."""
    now = time.perf_counter_ns
    for _ in range(3):
        call.run()
    times: list[int] = []
    outside: list[float] = []
    end = now() + int(seconds * 1e9)
    while not times or now() < end:
        clock.spent, begin = 0, now()
        call.run()
        took = now() - begin
        times.append(took)
        outside.append((took - clock.spent) / took)
    return statistics.median(times) * 1e-9, statistics.median(outside)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastlstm_bench.python_share")
    parser.add_argument("--case", action="append", default=[], help="only these (repeatable)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        cases = [case for case in select("jobs", options.case) if case.use in JOBS]
    except ValueError as error:
        parser.error(str(error))
    machine.pin(options.threads)
    run_fastlstm.start(options.threads)
    rows = [["", "time", "Python"]]
    with watched_core() as clock:
        for case in cases:
            call = run_fastlstm.prepare(case, make_problem(case), options.threads)
            took, share = measure(call, clock, _TURN)
            rows.append([case.name, tables.seconds(took), f"{100 * share:.1f} %"])
    print(tables.table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

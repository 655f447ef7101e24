"""Is the plan of a call the best one, and does the model know: ``python -m fastlstm_bench.plans``.

Every division of a call among threads is forced in turn, in rounds, and timed; beside it stand what
the model of cost expects (docs/threads.md) and which one it chooses. With ``--chosen`` only those
that it chooses are timed, for 1 to n threads, forward and in training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
from fastlstm._runtime import divided

from fastlstm_bench import machine, tables
from fastlstm_bench.cases import Case, select
from fastlstm_bench.plots import plain_log_labels, pyplot

Division = tuple[int, int, int, int]
"""Groups of rows, directions, groups of layers, threads that share units."""


@dataclass
class Timed:
    """One division of a case's work.

    Attributes
    ----------
    seconds : float
        Of a call, median over rounds of the shortest in each.
    expected : float
        What the model says.
    chosen : bool
        Whether the model chooses it.
    """

    case: str
    division: Division
    seconds: float
    expected: float
    chosen: bool

    @property
    def error(self) -> float:
        return self.expected / self.seconds - 1


def divisions(case: Case, threads: int) -> list[Division]:
    """All with numbers of threads that are powers of two, or all of them."""
    numbers = _numbers(threads)
    return [
        (rows, directions, layers, units)
        for rows in numbers
        for units in numbers
        for directions in range(1, case.directions + 1)
        for layers in range(1, case.layers + 1)
        if case.layers % layers == 0 and (case.directions == 1 or layers == 1)
        if rows * directions * layers * units in numbers and rows <= case.B
    ]


def measure(case: Case, threads: int, rounds: int, turn: float) -> list[Timed]:
    """Time every division of a forward call.

    Parameters
    ----------
    case : Case
        A layer's inference.
    threads : int
        At most.
    rounds : int
        Of turns, in which the divisions take turns.
    turn : float
        Seconds of one.
    """
    layer, x = _layer_and_x(case)
    call = _call(case, layer, x)
    plan = layer.plan(case.T, case.B, threads=threads)  # before threads may have been late
    chosen = _division(plan)
    all_divisions = divisions(case, threads)
    times: dict[Division, list[float]] = {division: [] for division in all_divisions}
    for _ in range(rounds):
        for division in all_divisions:
            with divided(*division):
                times[division].append(_shortest(call, turn))
    found = []
    for division in all_divisions:
        with divided(*division):
            expected = layer.plan(case.T, case.B, threads=threads).seconds
        seconds = statistics.median(times[division])
        found.append(Timed(case.name, division, seconds, expected, division == chosen))
    if chosen not in times:  # of other numbers of threads
        with divided(*chosen):
            seconds = statistics.median(_shortest(call, turn) for _ in range(rounds))
        found.append(Timed(case.name, chosen, seconds, plan.seconds, True))
    return found


def measure_chosen(case: Case, threads: int, rounds: int, turn: float) -> list[Timed]:
    """Time the division that the model chooses for each number of threads; arguments as above."""
    layer, x = _layer_and_x(case)
    call = _call(case, layer, x)
    times: dict[int, list[float]] = {n: [] for n in _numbers(threads)}
    for _ in range(rounds):
        for n in times:
            with fastlstm.num_threads(n):
                times[n].append(_shortest(call, turn))
    found = []
    for n in times:
        plan = layer.plan(case.T, case.B, threads=n, training=case.trains)
        seconds = statistics.median(times[n])
        expected = plan.seconds + sum(backward.seconds for backward in plan.backward)
        found.append(Timed(case.name, _division(plan), seconds, expected, True))
    return found


def _numbers(threads: int) -> list[int]:
    """Powers of two, and all of them."""
    return sorted({2**k for k in range(threads.bit_length()) if 2**k <= threads} | {threads})


def _division(plan: Any) -> Division:
    return plan.rows, plan.directions, plan.layers, plan.units


def _layer_and_x(case: Case) -> tuple[Any, Any]:
    layer = getattr(fastlstm, case.cell.upper())(
        case.H,
        case.H,
        num_layers=case.layers,
        bidirectional=case.bidirectional,
        dtype=case.dtype,
        seed=0,
    )
    x = np.random.default_rng(0).normal(size=(case.T, case.B, case.H)).astype(case.dtype)
    return layer, x


def _call(case: Case, layer: Any, x: Any) -> Callable[[], object]:
    if not case.trains:
        return lambda: layer(x)

    def train() -> object:
        output, _, tape = layer.forward(x)
        return tape.backward(d_output=output)

    return train


def _shortest(call: Callable[[], object], turn: float) -> float:
    call()
    shortest, end = float("inf"), time.perf_counter() + turn
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        shortest = min(shortest, now - start)
        if now >= end:
            return shortest


def table(found: list[Timed]) -> str:
    """A line for each case: the plan, the best of all, and how near the model is."""
    rows = [["case", "plan", "", "best", "", "plan / best", "model / measured"]]
    for case in dict.fromkeys(timed.case for timed in found):
        of_case = [timed for timed in found if timed.case == case]
        best = min(of_case, key=lambda timed: timed.seconds)
        plan = next(timed for timed in of_case if timed.chosen)
        errors = [1 + timed.error for timed in of_case]
        rows.append(
            [
                case,
                _text(plan.division),
                tables.seconds(plan.seconds),
                _text(best.division),
                tables.seconds(best.seconds),
                f"{plan.seconds / best.seconds:.2f}",
                f"{min(errors):.2f} to {max(errors):.2f}",
            ]
        )
    return f"{tables.table(rows)}\n\n{_near(found)}"


def table_of_chosen(found: list[Timed]) -> str:
    """A line for each case and number of threads."""
    rows = [["case", "plan", "measured", "expected", "expected / measured"]]
    for timed in found:
        seconds = tables.seconds(timed.seconds), tables.seconds(timed.expected)
        rows.append([timed.case, _text(timed.division), *seconds, f"{1 + timed.error:.2f}"])
    return f"{tables.table(rows)}\n\n{_near(found)}"


def _near(found: list[Timed]) -> str:
    near = sum(abs(timed.error) < 0.2 for timed in found)
    return f"model within 20 %: {near} of {len(found)} plans"


def _text(division: Division) -> str:
    return " x ".join(str(n) for n in division)


def draw(found: list[Timed], title: str, path: Path) -> None:
    """Draw expected over measured times, a colour for each number of threads."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5))
    by_threads: dict[int, list[Timed]] = {}
    for timed in found:
        by_threads.setdefault(int(np.prod(timed.division)), []).append(timed)
    for threads, some in sorted(by_threads.items()):
        axes.scatter(
            [timed.seconds * 1e3 for timed in some],
            [timed.expected * 1e3 for timed in some],
            s=14,
            label=tables.threads_text(threads),
        )
    ends = [f([timed.seconds * 1e3 for timed in found]) for f in (min, max)]
    axes.plot(ends, ends, "k-", linewidth=0.8)
    for factor in (0.8, 1.2):
        axes.plot(ends, [factor * end for end in ends], "k:", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_labels(axes.xaxis)
    plain_log_labels(axes.yaxis)
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("expected, ms")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fastlstm_bench.plans", description=__doc__)
    parser.add_argument("--suite", default="scaling")
    parser.add_argument("--case", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--threads", type=int, default=len(machine.available_cpus()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.02, metavar="SECONDS")
    parser.add_argument("--chosen", action="store_true", help="what the model chooses alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no case begins later")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="written after each case")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args(argv)
    end = time.monotonic() + 60 * options.minutes
    found: list[Timed] = []
    kinds = ("inference", "training") if options.chosen else ("inference",)
    time_case = measure_chosen if options.chosen else measure
    for case in select(options.suite, options.case):
        if case.kind not in kinds or case.lengths or time.monotonic() >= end:
            continue
        found += time_case(case, options.threads, options.rounds, options.turn)
        print(f"{case.name}", file=sys.stderr, flush=True)
        if options.out:
            options.out.write_text(json.dumps([asdict(timed) for timed in found], indent=0))
    print(table_of_chosen(found) if options.chosen else table(found))
    if options.plot:
        title = "Calls as they are divided" if options.chosen else "A forward call by each plan"
        draw(found, title, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

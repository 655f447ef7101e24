"""What changed between two runs, beyond noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastlstm_bench import text
from fastlstm_bench.results import Result, Run
from fastlstm_bench.statistics import beyond_noise, standard_error
from fastlstm_bench.systems import SUBJECT


@dataclass(frozen=True)
class Change:
    """One system on one case in both runs.

    Attributes
    ----------
    before, after : Result
    log_change : float
        Logarithm of the time's ratio, less the machine's drift. Negative: faster.
    real : bool
        Beyond noise.
    """

    before: Result
    after: Result
    log_change: float
    real: bool


Key = tuple[str, str, int]


def _timed(run: Run) -> dict[Key, Result]:
    return {(r.system, r.case.name, r.threads): r for r in run.results if r.timed}


def _log_change(before: Result, after: Result) -> float:
    return math.log(after.seconds.median / before.seconds.median)


def drift(before: Run, after: Run) -> dict[int, float]:
    """How much slower the machine itself was in the second run, by threads: logarithm of a ratio.

    The median change of systems that are the same in both, version and settings; fastlstm, which is
    what changes, is left out. 0 with fewer than three such results.
    """
    first, second = _timed(before), _timed(after)
    changes: dict[int, list[float]] = {}
    for key in first.keys() & second.keys():
        system, _, threads = key
        if system != SUBJECT and before.systems.get(system) == after.systems.get(system):
            changes.setdefault(threads, []).append(_log_change(first[key], second[key]))
    return {
        threads: sorted(values)[len(values) // 2]
        for threads, values in changes.items()
        if len(values) >= 3
    }


def changes(before: Run, after: Run) -> list[Change]:
    """All results that both runs have, in the order of the second."""
    first, second = _timed(before), _timed(after)
    machine = drift(before, after)
    found = []
    for key, new in second.items():
        old = first.get(key)
        if old is not None:
            change = _log_change(old, new) - machine.get(new.threads, 0.0)
            errors = (standard_error(list(r.rounds.values())) for r in (old, new))
            found.append(Change(old, new, change, beyond_noise(change, *errors)))
    return found


def compare(before: Run, after: Run) -> str:
    """Say what changed beyond noise, what broke, and how far the machines differ."""
    lines = []
    for name in ("cpu", "governor", "isa_flags", "kernel"):
        old, new = before.machine.get(name), after.machine.get(name)
        if old != new:
            lines.append(f"Not the same machine: {name} was {old}, is {new}")
    for system in before.systems.keys() & after.systems.keys():
        if before.systems[system] != after.systems[system]:
            lines.append(f"{system}: was {before.systems[system]}, is {after.systems[system]}")  # noqa: PERF401
    for threads, value in sorted(drift(before, after).items()):
        lines.append(
            f"{text.threads_text(threads)}: unchanged peers take {100 * math.expm1(value):+.1f} % "
            "time; taken off below"
        )

    found = changes(before, after)
    real = sorted((c for c in found if c.real), key=lambda c: -abs(c.log_change))
    if real:
        rows = [["changed beyond noise", "system", "threads", "before", "after", "time"]]
        rows += [
            [
                change.after.case.name,
                change.after.system,
                str(change.after.threads),
                text.seconds(change.before.seconds.median),
                text.seconds(change.after.seconds.median),
                f"{100 * math.expm1(change.log_change):+.1f} %",
            ]
            for change in real
        ]
        lines.append(text.table(rows))
    lines.append(f"{len(real)} of {len(found)} results changed beyond noise.")

    before_ok, after_by_key = (
        _timed(before),
        {(r.system, r.case.name, r.threads): r for r in after.results},
    )
    for key in before_ok:
        broken = after_by_key.get(key)
        if broken is not None and not broken.timed:
            lines.append(f"No longer timed: {broken.system}, {broken.case.name}: {broken.reason}")
    return "\n".join(lines)

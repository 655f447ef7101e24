"""What changed between two runs, beyond noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastlstm_bench import tables
from fastlstm_bench.results import Result, Run
from fastlstm_bench.statistics import beyond_noise, standard_error
from fastlstm_bench.systems import OWN


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


def _key(result: Result) -> Key:
    return result.system, result.case.name, result.threads


def _timed(run: Run) -> dict[Key, Result]:
    return {_key(result): result for result in run.results if result.timed}


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
        if system not in OWN and before.systems.get(system) == after.systems.get(system):
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
    lines = _differences(before, after)
    lines += [
        f"{tables.threads_text(threads)}: unchanged peers take {100 * math.expm1(value):+.1f} % "
        "time; taken off below"
        for threads, value in sorted(drift(before, after).items())
    ]

    found = changes(before, after)
    real = sorted((c for c in found if c.real), key=lambda c: -abs(c.log_change))
    if real:
        rows = [["changed beyond noise", "system", "threads", "before", "after", "time"]]
        rows += [
            [
                change.after.case.name,
                change.after.system,
                str(change.after.threads),
                tables.seconds(change.before.seconds.median),
                tables.seconds(change.after.seconds.median),
                f"{100 * math.expm1(change.log_change):+.1f} %",
            ]
            for change in real
        ]
        lines.append(tables.table(rows))
    lines.append(f"{len(real)} of {len(found)} results changed beyond noise.")

    timed = _timed(before)
    lines += [
        f"No longer timed: {result.system}, {result.case.name}: {result.reason}"
        for result in after.results
        if not result.timed and _key(result) in timed
    ]
    return "\n".join(lines)


def _differences(before: Run, after: Run) -> list[str]:
    """What else than the code under test differs between the runs."""
    facts = ("cpu", "governor", "isa_flags", "kernel")
    pairs = {
        f"machine, {fact}": (before.machine.get(fact), after.machine.get(fact)) for fact in facts
    }
    for system, about in before.systems.items():
        pairs[system] = (about, after.systems.get(system, about))
    return [f"{what}: was {old}, is {new}" for what, (old, new) in pairs.items() if old != new]

"""What a run found out, and its JSON form. Times are seconds everywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Limits
from fastlstm_bench.roofline import Roofline, flop, roofline
from fastlstm_bench.statistics import (
    Summary,
    latency_quantiles,
    ratio_by_round,
    summarise,
)
from fastlstm_bench.systems import REFERENCE, SUBJECT

SCHEMA = 1
# Weights that stay closer than the model says can lift a result a little above its roof.
_ABOVE = 1.15
# Points of a latency distribution that are kept for its plot: p0 to p99 by one, then the tail.
_DISTRIBUTION = (*(q / 100 for q in range(100)), 0.995, 0.999, 0.9999, 1.0)


@dataclass
class Result:
    """One system on one case with one number of threads.

    Attributes
    ----------
    status : str
        "ok"; "unsupported" by the system; "disagrees" with the oracle, so it was not timed;
        "failed" with an exception; "died"; "timeout".
    reason : str
        Why it is not ok.
    errors : dict of str to float
        Largest difference from the oracle by array, relative to its largest value.
    rounds : dict of int to float
        Median time of a call by round.
    calls : int
        Calls timed in all.
    quantiles : dict of str to float or None
        Of single steps, for streams. None: too few steps.
    distribution : list of (quantile, seconds)
        The same in full, for the plot.
    until_idle : float
        Longest time that the system's threads kept spinning after a turn.
    sat_out : str
        Why it had fewer rounds than others; empty when it had all.
    """

    case: Case
    threads: int
    system: str
    status: str = "ok"
    reason: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    rounds: dict[int, float] = field(default_factory=dict)
    calls: int = 0
    quantiles: dict[str, float | None] = field(default_factory=dict)
    distribution: list[tuple[float, float]] = field(default_factory=list)
    until_idle: float = 0.0
    sat_out: str = ""

    @property
    def timed(self) -> bool:
        """Right and timed: has a place in tables and comparisons."""
        return self.status == "ok" and bool(self.rounds)

    @property
    def seconds(self) -> Summary:
        return summarise(list(self.rounds.values()))

    def keep_latencies(self, samples: list[float]) -> None:
        """Condense the single steps of all rounds."""
        self.quantiles = latency_quantiles(samples)
        values = np.quantile(np.asarray(samples), _DISTRIBUTION)
        self.distribution = [(q, float(v)) for q, v in zip(_DISTRIBUTION, values, strict=True)]

    def fail(self, status: str, reason: str) -> None:
        """Record why there is no result; rounds that were timed before it stay in the file only."""
        self.status, self.reason = status, reason


class Group(list[Result]):
    """The results of all systems on one case with one number of threads."""

    @property
    def case(self) -> Case:
        return self[0].case

    @property
    def threads(self) -> int:
        return self[0].threads

    def of(self, system: str) -> Result | None:
        """The result of a system, if it was timed."""
        return next((r for r in self if r.system == system and r.timed), None)

    @property
    def best_peer(self) -> Result | None:
        """The fastest of the systems other than fastlstm and the reference, by median."""
        peers = [r for r in self if r.timed and r.system not in (SUBJECT, REFERENCE)]
        return min(peers, key=lambda r: r.seconds.median, default=None)

    def ratio(self, system: str = SUBJECT) -> Summary | None:
        """How many times faster than the best peer a system is, round by round."""
        own, best = self.of(system), self.best_peer
        return ratio_by_round(best.rounds, own.rounds) if own and best else None


@dataclass
class Run:
    """A whole run.

    Attributes
    ----------
    machine, settings : dict
        What it ran on and how; see `machine.describe` and `schedule.Plan`.
    systems : dict of str to dict
        Versions and settings by system, or {"absent": why}.
    limits : dict of int to Limits
        By number of threads.
    results : list of Result
    """

    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    systems: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: dict[int, Limits] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    started: str = ""
    finished: str = ""
    warnings: list[str] = field(default_factory=list)

    def groups(self) -> Iterator[Group]:
        """Results by case and threads, in the order of the run."""
        groups: dict[tuple[str, int], Group] = {}
        for result in self.results:
            groups.setdefault((result.case.name, result.threads), Group()).append(result)
        return iter(groups.values())

    def roofline(self, result: Result) -> Roofline | None:
        limits = self.limits.get(result.threads)
        return roofline(result.case, result.threads, limits) if limits else None

    def roofline_fraction(self, result: Result) -> float | None:
        """Part of the roofline that a timed result reaches."""
        bound = self.roofline(result)
        return bound.seconds / result.seconds.median if bound else None

    def above_roofline(self, threads: int) -> list[Result]:
        """Results clearly faster than the limits allow: the limits were disturbed."""
        fractions = ((r, self.roofline_fraction(r)) for r in self.results if r.timed)
        return [r for r, part in fractions if r.threads == threads and part and part > _ABOVE]

    def to_json(self) -> dict[str, Any]:
        """Measured values, and with them what follows from them, so that no reader must compute."""
        records = []
        for group in self.groups():
            for result in group:
                record = asdict(result)
                record["case"] = {"name": result.case.name, **asdict(result.case)}
                if result.timed:
                    bound, ratio = self.roofline(result), group.ratio(result.system)
                    record["derived"] = {
                        "seconds": result.seconds.to_json(),
                        "gflops": flop(result.case) / result.seconds.median / 1e9,
                        "roofline_bound": bound.level if bound else None,
                        "roofline_fraction": self.roofline_fraction(result),
                        "ratio_to_best_peer": ratio.to_json() if ratio else None,
                    }
                records.append(record)
        return {
            "schema": SCHEMA,
            "started": self.started,
            "finished": self.finished,
            "machine": self.machine,
            "settings": self.settings,
            "systems": self.systems,
            "limits": {str(n): limits.to_json() for n, limits in self.limits.items()},
            "warnings": self.warnings,
            "results": records,
        }

    def write(self, path: Path) -> None:
        """Replace `path` as a whole, so that an interrupted run leaves a file that can be read."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        os.replace(partial, path)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what `write` wrote.

        Raises
        ------
        ValueError
            Not a result of this benchmark, or of another version of it.
        """
        try:
            record = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise ValueError(f"{path}: not a result of this benchmark (schema {SCHEMA})")
        return cls(
            machine=record["machine"],
            settings=record["settings"],
            systems=record["systems"],
            limits={int(n): Limits.from_json(v) for n, v in record["limits"].items()},
            results=list(_read_results(record["results"])),
            started=record["started"],
            finished=record["finished"],
            warnings=record["warnings"],
        )


def _read_results(records: Iterable[dict[str, Any]]) -> Iterator[Result]:
    for record in records:
        fields = {k: v for k, v in record.items() if k not in ("case", "derived")}
        case = Case(**{k: v for k, v in record["case"].items() if k != "name"})
        fields["rounds"] = {int(r): s for r, s in fields["rounds"].items()}
        fields["distribution"] = [(q, s) for q, s in fields["distribution"]]
        yield Result(case, **fields)

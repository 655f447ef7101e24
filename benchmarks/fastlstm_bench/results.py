"""What a run found out, and its JSON form. Times are seconds everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastlstm._saving import write_whole

from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Limits
from fastlstm_bench.roofline import Roofline, roofline
from fastlstm_bench.statistics import (
    Summary,
    latency_quantiles,
    ratio_by_round,
    summarise,
)
from fastlstm_bench.systems import OWN, REFERENCE, SUBJECT

SCHEMA = 2
# Weights that stay closer than the model says can lift a result a little above its roof.
_ABOVE = 1.15
# Points of a latency distribution that are kept for its plot, closer towards the tail.
_PERCENTS = (*range(50, 90, 2), *range(90, 100))
_DISTRIBUTION = (*(percent / 100 for percent in _PERCENTS), 0.995, 0.999, 0.9999)
# Files have times in nanoseconds to one place, which is every digit of a clock's median, so that no
# table changes by being written and read; a plot's points and errors have these significant digits.
_PLOT_DIGITS, _ERROR_DIGITS = 4, 5


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
        Median time of a call by round, from 0 on: who has left out one has none after it.
    calls : int
        Calls timed in all.
    quantiles : dict of str to float or None
        Of single steps, for streams. None: too few steps.
    distribution : list of (quantile, seconds)
        The same from the median on, for the plot.
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
    def subject(self) -> str:
        """Which of ours is compared with the peers: PyTorch's modules where they take part."""
        return next((name for name in OWN if self.of(name)), SUBJECT)

    @property
    def best_peer(self) -> Result | None:
        """The fastest of the systems other than ours and the reference, by median."""
        peers = [r for r in self if r.timed and r.system not in (*OWN, REFERENCE)]
        return min(peers, key=lambda r: r.seconds.median, default=None)

    def ratio(self, system: str | None = None) -> Summary | None:
        """How many times faster than the best peer a system, or the subject, is, by round."""
        own, best = self.of(system or self.subject), self.best_peer
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
        """What was measured. What follows from it is computed by who reads it."""
        return {
            "schema": SCHEMA,
            "started": self.started,
            "finished": self.finished,
            "machine": self.machine,
            "settings": self.settings,
            "systems": self.systems,
            "limits": {str(n): limits.to_json() for n, limits in self.limits.items()},
            "warnings": self.warnings,
            "distribution_quantiles": _DISTRIBUTION,
            "cases": {r.case.name: asdict(r.case) for r in self.results},
            "results": [_result_to_json(r) for group in self.groups() for r in group],
        }

    def write(self, path: Path) -> None:
        """Replace `path` as a whole, so that an interrupted run leaves a file that can be read."""
        write_whole(path, f"{_lines(self.to_json())}\n".encode())

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what `write` wrote.

        Raises
        ------
        ValueError
            Not a result of this benchmark, or of a later version of it.
        """
        try:
            record = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(record, dict) or record.get("schema") not in (1, SCHEMA):
            raise ValueError(f"{path}: not a result of this benchmark (schema 1 or {SCHEMA})")
        return cls(
            machine=record["machine"],
            settings=record["settings"],
            systems=record["systems"],
            limits={int(n): Limits.from_json(v) for n, v in record["limits"].items()},
            results=[
                _result_from_schema_1(result)
                if record["schema"] == 1
                else _result_from_json(result, record)
                for result in record["results"]
            ],
            started=record["started"],
            finished=record["finished"],
            warnings=record["warnings"],
        )


def _nanoseconds(seconds: float | None) -> float | None:
    return None if seconds is None else _whole(round(seconds * 1e9, 1))


def _digits(value: float, digits: int) -> float:
    return _whole(float(f"{value:.{digits}g}"))


def _whole(value: float) -> float:
    """Without ".0" in JSON where nothing follows it."""
    return int(value) if value.is_integer() else value


def _result_to_json(result: Result) -> dict[str, Any]:
    """All but what is empty or zero; the case by its name."""
    record = {
        "case": result.case.name,
        "threads": result.threads,
        "system": result.system,
        "status": result.status,
        "reason": result.reason,
        "sat_out": result.sat_out,
        "errors": {name: _digits(error, _ERROR_DIGITS) for name, error in result.errors.items()},
        "calls": result.calls,
        "rounds_ns": [_nanoseconds(result.rounds[turn]) for turn in range(len(result.rounds))],
        "until_idle_ns": _digits(result.until_idle * 1e9, _ERROR_DIGITS),
        "quantiles_ns": {name: _nanoseconds(value) for name, value in result.quantiles.items()},
        "distribution_ns": [
            _digits(value * 1e9, _PLOT_DIGITS)
            for quantile, value in result.distribution
            if quantile in _DISTRIBUTION
        ],
    }
    return {name: value for name, value in record.items() if value}


def _result_from_json(record: dict[str, Any], run: dict[str, Any]) -> Result:
    values = dict(record)
    case = Case(**run["cases"][values.pop("case")])
    rounds = values.pop("rounds_ns", [])
    quantiles = values.pop("quantiles_ns", {})
    distribution = values.pop("distribution_ns", [])
    quantiles_of = run["distribution_quantiles"] if distribution else []
    until_idle = values.pop("until_idle_ns", 0)
    return Result(
        case,
        **values,
        until_idle=until_idle * 1e-9,
        rounds={turn: time * 1e-9 for turn, time in enumerate(rounds)},
        quantiles={n: None if time is None else time * 1e-9 for n, time in quantiles.items()},
        distribution=[(q, time * 1e-9) for q, time in zip(quantiles_of, distribution, strict=True)],
    )


def _result_from_schema_1(record: dict[str, Any]) -> Result:
    """Times in seconds with all digits, a case and what follows from the times in every result."""
    values = {name: value for name, value in record.items() if name not in ("case", "derived")}
    values["rounds"] = {int(turn): time for turn, time in values["rounds"].items()}
    values["distribution"] = [(quantile, time) for quantile, time in values["distribution"]]
    return Result(Case(**{k: v for k, v in record["case"].items() if k != "name"}), **values)


def _lines(record: dict[str, Any]) -> str:
    """JSON with a line for each field of a run, and for each of its cases and results."""

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    def pairs(fields: dict[str, Any], text: Callable[[Any], str]) -> str:
        return ",\n".join(f"{compact(name)}:{text(value)}" for name, value in fields.items())

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return f"{{\n{pairs(value, compact)}\n}}"
        if isinstance(value, list) and value:
            return "[\n" + ",\n".join(map(compact, value)) + "\n]"
        return compact(value)

    return f"{{\n{pairs(record, text)}\n}}"

"""Medians, spreads and ratios of repeated timings.

Timings on a shared machine have a long right tail, so everything here is built on ranks. A round is
one turn of each system, a few seconds apart; what is compared is compared within a round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

# A quantile is only given when this many samples lie beyond it; p99.9 thus asks for 10,000 steps.
SAMPLES_BEYOND = 10
# A change or a ratio below this is never called real: 3 % is what an idle machine's runs differ by,
# from the placement of pages and the clock's whims, which the spread within one run does not show.
FLOOR = 0.03
# How many standard errors a change must reach.
SIGMAS = 3.0


@dataclass(frozen=True)
class Summary:
    """Median and quartiles."""

    median: float
    q25: float
    q75: float

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.q75 - self.q25) / self.median if self.median else 0.0

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def summarise(values: Sequence[float]) -> Summary:
    """Median and quartiles of at least one value."""
    q25, median, q75 = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return Summary(float(median), float(q25), float(q75))


def latency_quantiles(samples: Sequence[float]) -> dict[str, float | None]:
    """p50, p90, p99, p99.9 and the maximum; None where there are too few samples to say."""
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    quantiles: dict[str, float | None] = {}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)):
        known = len(ordered) * (1 - q) >= SAMPLES_BEYOND - 1e-9
        quantiles[name] = float(np.quantile(ordered, q)) if known else None
    quantiles["max"] = float(ordered[-1])
    return quantiles


def ratio_by_round(other: Mapping[int, float], own: Mapping[int, float]) -> Summary | None:
    """How many times faster `own` is than `other`: the ratio of times, round by round.

    A disturbance that lasts longer than a round hits both and cancels. None: no round in common.
    """
    common = sorted(other.keys() & own.keys())
    return summarise([other[r] / own[r] for r in common]) if common else None


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios; NaN of none."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the logarithm of the median, from the median absolute deviation.

    1.4826 makes the deviation a normal distribution's sigma, 1.2533 is the median's price over the
    mean. Infinite for fewer than three values: nothing is known about their noise.
    """
    if len(values) < 3:
        return math.inf
    logs = np.log(np.asarray(values, dtype=np.float64))
    deviation = float(np.median(np.abs(logs - np.median(logs))))
    return 1.2533 * 1.4826 * deviation / math.sqrt(len(values))


def beyond_noise(log_change: float, *errors: float) -> bool:
    """Is the logarithm of a ratio larger than noise with these standard errors explains?"""
    noise = SIGMAS * math.sqrt(sum(error**2 for error in errors))
    return abs(log_change) > max(noise, math.log1p(FLOOR))

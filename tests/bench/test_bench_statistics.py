"""Medians, ratios and the line between a change and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fastlstm_bench.statistics import (
    FLOOR,
    beyond_noise,
    geometric_mean,
    latency_quantiles,
    ratio_by_round,
    standard_error,
    summarise,
)


def test_summary_is_median_and_quartiles() -> None:
    summary = summarise([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (summary.q25, summary.median, summary.q75) == (2.0, 3.0, 4.0)
    assert summary.spread == pytest.approx(2 / 3)


def test_one_outlier_does_not_move_the_median() -> None:
    assert summarise([1.0, 1.0, 1.0, 1.0, 1000.0]).median == 1.0


@pytest.mark.parametrize(
    ("samples", "known"),
    [
        (19, set()),
        (20, {"p50"}),
        (999, {"p50", "p90"}),
        (1000, {"p50", "p90", "p99"}),
        (10000, {"p50", "p90", "p99", "p99.9"}),
    ],
)
def test_a_quantile_is_given_only_with_ten_samples_beyond_it(samples: int, known: set[str]) -> None:
    quantiles = latency_quantiles(list(range(samples)))
    assert quantiles.pop("max") == samples - 1
    assert {name for name, value in quantiles.items() if value is not None} == known


def test_quantiles_of_a_known_distribution() -> None:
    quantiles = latency_quantiles([float(i) for i in range(10001)])
    assert [quantiles[q] for q in ("p50", "p99", "p99.9")] == pytest.approx([5000, 9900, 9990])


def test_a_disturbance_of_whole_rounds_cancels_in_the_ratio() -> None:
    disturbance = [1.0, 5.0, 2.0, 1.0]
    own = {i: 1e-3 * d for i, d in enumerate(disturbance)}
    other = {i: 3e-3 * d for i, d in enumerate(disturbance)}
    ratio = ratio_by_round(other, own)
    assert ratio is not None
    assert (ratio.q25, ratio.median, ratio.q75) == pytest.approx((3.0, 3.0, 3.0))


def test_ratio_uses_only_common_rounds() -> None:
    ratio = ratio_by_round({0: 2.0, 5: 100.0}, {0: 1.0, 1: 1.0})
    assert ratio is not None
    assert ratio.median == 2.0
    assert ratio_by_round({0: 1.0}, {1: 1.0}) is None


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))


def test_standard_error_matches_the_scatter_of_medians() -> None:
    rng = np.random.default_rng(0)
    runs = np.exp(0.05 * rng.standard_normal((4000, 25)))
    scatter = float(np.log(np.median(runs, axis=1)).std())
    errors = [standard_error(list(run)) for run in runs]
    assert float(np.median(errors)) == pytest.approx(scatter, rel=0.1)


def test_few_rounds_prove_nothing() -> None:
    assert standard_error([1.0, 1.0]) == math.inf
    assert not beyond_noise(5.0, standard_error([1.0, 1.0]), 0.001)


def test_noise_alone_is_rarely_called_a_change() -> None:
    rng = np.random.default_rng(1)
    runs = np.exp(0.05 * rng.standard_normal((2000, 2, 9)))
    called = [
        beyond_noise(
            math.log(np.median(b) / np.median(a)), standard_error(list(a)), standard_error(list(b))
        )
        for a, b in runs
    ]
    # Three sigmas would be 0.3 %; the error itself is estimated from nine values.
    assert np.mean(called) < 0.03


def test_a_change_must_pass_the_floor() -> None:
    assert not beyond_noise(0.9 * FLOOR, 0.0)
    assert beyond_noise(1.1 * FLOOR, 0.0)
    assert beyond_noise(-1.1 * FLOOR, 0.0)

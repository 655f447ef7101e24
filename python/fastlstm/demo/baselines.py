"""Simple one-step forecasts, to compare with. Each uses the true past of the month it forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from statsmodels.tsa.ar_model import AutoReg

from .data import Climate, Series, Split

Array = npt.NDArray[Any]

LAGS = 24


def baselines(series: Series, split: Split) -> dict[str, Array]:
    """Forecast the test months in five simple ways.

    Parameters
    ----------
    series : Series
        Temperatures.
    split : Split
        What is fitted is fitted to ``split.training``; ``split.test`` is forecast.

    Returns
    -------
    dict of str to ndarray, shape (len(split.test),)
        Temperatures in °C. The first three know nothing of the calendar but its length; the last
        two forecast the anomaly, as the LSTM does.
    """
    climate = Climate.of(series, split.training)
    anomaly = climate.anomaly(series)
    month = series.month[split.test]
    return {
        "persistence": series.temperature[split.test - 1],
        "seasonal naive": series.temperature[split.test - 12],
        f"AR({LAGS})": autoregression(series.temperature, split),
        "persistent anomaly": climate.temperature(anomaly[split.test - 1], month),
        f"AR({LAGS}) of the anomaly": climate.temperature(autoregression(anomaly, split), month),
    }


def autoregression(values: Array, split: Split, lags: int = LAGS) -> Array:
    """Fit an autoregression with statsmodels, and forecast each test month from its true past.

    Parameters
    ----------
    values : ndarray, shape (N,)
        The whole series.
    split : Split
        Fitted to ``split.training``.
    lags : int
        How many months it looks back.

    Returns
    -------
    ndarray, shape (len(split.test),)
        ``b + sum over k of a[k] * values[t - k]`` for each test month t.
    """
    params = AutoReg(values[split.training], lags).fit().params  # b, a[1], ..., a[lags]
    past = values[split.test[:, np.newaxis] - np.arange(1, lags + 1)]  # (B, lags)
    forecast: Array = params[0] + past @ params[1:]
    return forecast

"""Simple forecasts: what a network is compared with, and what it may start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

Array = npt.NDArray[np.float64]
# Of a season in an autoregression: enough for every month to have a constant of its own.
_HARMONICS = 6


def naive(windows: Array, horizon: int) -> Array:
    """Forecast the last value again and again.

    Parameters
    ----------
    windows : ndarray
        (N, W, S): what is known.
    horizon : int
        H.

    Returns
    -------
    ndarray
        (N, H, S).
    """
    return np.repeat(windows[:, -1:], horizon, axis=1)


def seasonal_naive(windows: Array, horizon: int, period: int) -> Array:
    """Forecast the value of a period before, as :func:`naive`; W is at least the period."""
    W = windows.shape[1]
    return windows[:, W - period + np.arange(horizon) % period]


class Autoregression(NamedTuple):
    """``y[t] = constants[t % period] + lags[0] y[t-1] + ... + lags[p-1] y[t-p]``."""

    constants: Array
    """(period,), or (1,) without a season."""
    lags: Array
    """(W,): zero beyond the order, p."""


def fit_autoregression(
    series: list[Array], positions: list[int], most: int, period: int | None
) -> Autoregression:
    """Fit one autoregression to series by least squares, with an order by AIC.

    Parameters
    ----------
    series : list of ndarray
        Each (n_i,).
    positions : list of int
        The time t of each series' first value.
    most : int
        W, the most lags.
    period : int or None
        That of a season: the constants are then a sum of its first harmonics.

    Notes
    -----
    Orders are compared on the same values, those with W values before them. Of the QR decomposition
    of all lags and y, the last column says the residuals of every order: what is left below its
    row.
    """
    # As many values as make each order's fit more than a guess.
    longest = max(len(one) for one in series)
    most_here = min(most, max((longest - 1) // 3, 1))
    x, y = _lagged(series, positions, most_here, period)
    m = x.shape[1] - most_here
    # For so little a BLAS' threads cost more than they give, and ours are beside them.
    with threadpool_limits(1, "blas"):
        r: Array = np.linalg.qr(np.column_stack([x, y]), mode="r")  # type: ignore[assignment]
    left = np.append(np.cumsum(r[::-1, -1] ** 2)[::-1], 0.0)  # [k]: of rows from k on
    orders = np.arange(1, most_here + 1)
    mean_squares = left[np.minimum(m + orders, len(r))] / len(y)
    aic = len(y) * np.log(mean_squares + np.finfo(np.float64).tiny) + 2 * (m + orders)
    p = int(orders[np.argmin(aic)])
    x, y = _lagged(series, positions, p, period)
    with threadpool_limits(1, "blas"):
        found = np.linalg.lstsq(x, y, rcond=None)[0]
    lags = np.zeros(most)
    lags[:p] = found[m:]
    return Autoregression(_harmonics(np.arange(period or 1), period) @ found[:m], lags)


def _lagged(
    series: list[Array], positions: list[int], p: int, period: int | None
) -> tuple[Array, Array]:
    """A row for each value with p values before it: the season, and these, the latest first."""
    rows: list[Any] = []
    targets: list[Any] = []
    for one, position in zip(series, positions, strict=True):
        t = np.arange(p, len(one))
        past = one[t[:, None] - np.arange(1, p + 1)]
        rows.append(np.column_stack([_harmonics(position + t, period), past]))
        targets.append(one[t])
    return np.concatenate(rows), np.concatenate(targets)


def _harmonics(t: npt.NDArray[np.int64], period: int | None) -> Array:
    """(n, m): 1, and cosines and sines of a season; no more than it has steps."""
    one = np.ones((len(t), 1))
    if period is None:
        return one
    angles = 2 * np.pi / period * t[:, None] * np.arange(1, min(_HARMONICS, period // 2) + 1)
    return np.concatenate([one, np.cos(angles), np.sin(angles)], axis=1)[:, :period]


class Ahead(NamedTuple):
    """How an autoregression's forecasts, each from the ones before, depend on a window."""

    factors: Array
    """(H, W): of the window's values, the oldest first."""
    constants: Array
    """(period, H): by the time of the first forecast in the season."""


def steps_ahead(fitted: Autoregression, horizon: int) -> Ahead:
    """Return how the forecasts of `horizon` steps depend on a window."""
    W, period = len(fitted.lags), len(fitted.constants)
    of_window = np.concatenate([np.eye(W), np.zeros((horizon, W))])
    constants = np.zeros((W + horizon, period))
    for t in range(W, W + horizon):
        of_window[t] = fitted.lags[::-1] @ of_window[t - W : t]
        constants[t] = fitted.lags[::-1] @ constants[t - W : t]
        constants[t] += np.roll(fitted.constants, W - t)
    return Ahead(of_window[W:], constants[W:].T)


def fit_linear(
    series: list[Array], positions: list[int], window: int, horizon: int, period: int | None
) -> Ahead:
    """Fit forecasts of all steps of a horizon: an autoregression's, or with a season two, mixed.

    Parameters
    ----------
    series, positions, period
        As of :func:`fit_autoregression`.
    window, horizon : int
        W and H.

    Notes
    -----
    Constants of a season are always the same; an autoregression without them takes the season from
    the values of a period before, and follows one that changes. What each is worth depends on the
    series, and is estimated from the errors of all forecasts of all windows: the end that is held
    out is too short for that. (A ridge regression of what both miss at later steps, too, gained 1
    to 3 % on earlier parts of three series, and lost 7 % on the end of one.)
    """
    plain = steps_ahead(fit_autoregression(series, positions, window, None), horizon)
    if period is None:
        return plain
    seasonal = steps_ahead(fit_autoregression(series, positions, window, period), horizon)
    past, targets, times = _examples(series, positions, window, horizon)
    return _mixed(seasonal, plain, past, targets, times % period)


def _examples(
    series: list[Array], positions: list[int], window: int, horizon: int
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """All windows, what came after each, and when."""
    past, targets, times = [], [], []
    for one, position in zip(series, positions, strict=True):
        origins = np.arange(window, len(one) - horizon + 1)
        past.append(one[origins[:, None] + np.arange(-window, 0)])
        targets.append(one[origins[:, None] + np.arange(horizon)])
        times.append(position + origins)
    return np.concatenate(past), np.concatenate(targets), np.concatenate(times)


def _mixed(a: Ahead, b: Ahead, past: Array, targets: Array, phases: npt.NDArray[np.int64]) -> Ahead:
    """A mean of two forecasts, weighted by least squares; b is without a season."""
    of_a, of_b = _of_column(past, phases, a), _of_column(past, 0 * phases, b)
    apart = of_a - of_b
    squares = (apart**2).sum()
    weight = min(max(((targets - of_b) * apart).sum() / squares, 0.0), 1.0) if squares else 1.0
    return Ahead(*(weight * one + (1 - weight) * other for one, other in zip(a, b, strict=True)))


def _of_column(windows: Array, phases: npt.NDArray[np.int64], of: Ahead) -> Array:
    """(N, H) forecasts of one column's windows, (N, W)."""
    forecasts: Array = windows @ of.factors.T + of.constants[phases]
    return forecasts


def linear(windows: Array, phases: npt.NDArray[np.int64], ahead: Sequence[Ahead]) -> Array:
    """Forecast each column from its own window.

    Parameters
    ----------
    windows : ndarray
        (N, W, S).
    phases : ndarray of int64
        (N,): the time of each first forecast in the season.
    ahead : sequence of Ahead
        Of each column.

    Returns
    -------
    ndarray
        (N, H, S).
    """
    # A product for each column, rather than one that NumPy does not hand to a BLAS.
    columns = [_of_column(windows[:, :, s], phases, of) for s, of in enumerate(ahead)]
    return np.stack(columns, axis=2)

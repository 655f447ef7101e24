"""How good forecasts of the past would have been, and simple ones beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastlstm._checks import IndexArray

from ._baselines import (
    fit_autoregression,
    linear,
    naive,
    seasonal_naive,
    steps_ahead,
)
from ._inputs import moments

Array = npt.NDArray[np.float64]


@dataclass(eq=False, repr=False)
class Backtest:
    """Forecasts of a series' past, and what came: what ``Forecaster.backtest`` returns.

    Printed, it is a table of errors.

    Attributes
    ----------
    actual : ndarray
        (n, horizon, S): what came.
    forecasts : dict of str to ndarray
        By method, like `actual`: "forecaster" (the median, where it has quantiles), "naive",
        "seasonal naive", "autoregression", and "linear", which the forecaster corrects.
    origins : ndarray of int64
        (n,): the step of each first value.
    fold : ndarray of int64
        (n,): from 0.
    quantiles : ndarray or None
        (n, horizon, S, Q) of the forecaster.
    """

    actual: Array
    forecasts: dict[str, Array]
    origins: IndexArray
    fold: IndexArray
    quantiles: Array | None = None

    def rmse(self) -> dict[str, Array]:
        """Return the root of the mean squared error by method, (S,)."""
        return {
            name: np.sqrt(((of - self.actual) ** 2).mean(axis=(0, 1)))
            for name, of in self.forecasts.items()
        }

    def mae(self) -> dict[str, Array]:
        """Return the mean absolute error by method, (S,)."""
        return {
            name: np.abs(of - self.actual).mean(axis=(0, 1)) for name, of in self.forecasts.items()
        }

    def rmse_by_step(self) -> dict[str, Array]:
        """Return the root of the mean squared error by method, (horizon, S)."""
        return {
            name: np.sqrt(((of - self.actual) ** 2).mean(axis=0))
            for name, of in self.forecasts.items()
        }

    def coverage(self) -> float:
        """Return the part of the values that came between the outermost quantiles.

        Raises
        ------
        ValueError
            The forecaster has none.
        """
        if self.quantiles is None:
            raise ValueError("quantiles: expected a forecaster with some, got None")
        inside = (self.actual >= self.quantiles[..., 0]) & (self.actual <= self.quantiles[..., -1])
        return float(inside.mean())

    def __repr__(self) -> str:
        rmse, mae = self.rmse(), self.mae()
        rows = [["RMSE", "MAE"]]
        rows += [
            [" ".join(f"{v:.4g}" for v in of[name]) for of in (rmse, mae)]
            for name in self.forecasts
        ]
        width = max(20, max(len(cell) for row in rows for cell in row) + 2)
        head = (
            f"{len(self.origins)} forecasts of {self.actual.shape[1]} values, "
            f"{int(self.fold.max()) + 1} folds"
        )
        names = ["", *self.forecasts]
        lines = [
            f"{name:16}" + "".join(f"{cell:>{width}}" for cell in row)
            for name, row in zip(names, rows, strict=True)
        ]
        return "\n".join([head, *lines])


def simple_forecasts(
    past: Array, windows: Array, origins: IndexArray, horizon: int, period: int | None
) -> dict[str, Array]:
    """Forecast from windows by what was known before all of them.

    Parameters
    ----------
    past : ndarray
        (n, S): what is fitted to.
    windows : ndarray
        (N, W, S).
    origins : ndarray of int64
        (N,): the step that each window ends before.
    horizon : int
        H.
    period : int or None
        That of a season.

    Returns
    -------
    dict of str to ndarray
        (N, H, S) by method.
    """
    W = windows.shape[1]
    found = {"naive": naive(windows, horizon)}
    if period is not None and period <= W:
        found["seasonal naive"] = seasonal_naive(windows, horizon, period)
    # Of scaled columns, as the forecaster's.
    mean, deviation = moments(past)
    scaled = (past - mean) / deviation
    columns = [steps_ahead(fit_autoregression([one], [0], W, period), horizon) for one in scaled.T]
    ahead = linear((windows - mean) / deviation, origins % (period or 1), columns)
    found["autoregression"] = ahead * deviation + mean
    return found

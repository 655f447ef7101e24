"""The series, its split in time, and the windows that the LSTM reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from statsmodels.datasets import elnino

Array = npt.NDArray[Any]

INPUT_SIZE = 3  # anomaly, and the month as a point on a circle


class Series(NamedTuple):
    """A monthly series that starts in a January."""

    first_year: int
    temperature: Array  # (N,) in °C

    @property
    def month(self) -> Array:
        """(N,) 0 for January to 11 for December."""
        return np.arange(len(self.temperature)) % 12

    def date(self, index: int) -> str:
        """Year and month of one value, such as ``1998-10``."""
        return f"{self.first_year + index // 12}-{index % 12 + 1:02d}"


class Split(NamedTuple):
    """The months (as indices into the series) of each part. Later parts are later in time."""

    fit: Array  # what the weights are fitted to
    validation: Array  # what stops the training
    test: Array  # looked at once, when all is done

    @property
    def training(self) -> Array:
        """All months before the test."""
        return np.concatenate([self.fit, self.validation])


def load_elnino() -> Series:
    """Load the sea surface temperature off Peru (Niño 1+2 region), 1950 to 2010.

    Returns
    -------
    Series
        732 months, from the data sets of statsmodels. Nothing is downloaded.
    """
    table = elnino.load_pandas().data.to_numpy()  # (years, 1 + 12): the year, then its months
    return Series(int(table[0, 0]), table[:, 1:].ravel())


def split_in_time(N: int) -> Split:
    """Split N months: the last 20 % are the test, the last 20 % before them the validation."""
    test = int(0.8 * N)
    validation = test - int(0.2 * test)
    return Split(np.arange(validation), np.arange(validation, test), np.arange(test, N))


class Climate(NamedTuple):
    """What is usual in each month. Anomalies are departures from it, in units of `scale`."""

    normal: Array  # (12,) mean temperature of each calendar month, in °C
    scale: float  # standard deviation around it, in °C

    @classmethod
    def of(cls, series: Series, months: Array) -> Climate:
        """Measure the climate over some months only, so that nothing leaks from the others."""
        temperature, month = series.temperature[months], series.month[months]
        normal = np.array([temperature[month == m].mean() for m in range(12)])
        return cls(normal, float(np.std(temperature - normal[month])))

    def anomaly(self, series: Series) -> Array:
        """(N,) departures from normal, in units of `scale`."""
        return (series.temperature - self.normal[series.month]) / self.scale

    def temperature(self, anomaly: Array, month: Array) -> Array:
        """Return anomalies in given calendar months to °C."""
        return self.normal[month] + self.scale * anomaly


def windows(series: Series, climate: Climate, targets: Array, T: int) -> tuple[Array, Array]:
    """Cut out, for each month to be forecast, the T months before it.

    Parameters
    ----------
    series : Series
        N months.
    climate : Climate
        Gives the anomalies.
    targets : ndarray of int, shape (B,)
        Months to be forecast, each at least T.
    T : int
        Length of a window.

    Returns
    -------
    x : ndarray of float32, shape (T, B, 3)
        Anomaly, and sine and cosine of the time of year: December is next to January.
    y : ndarray of float32, shape (B,)
        Change of the anomaly from the last month of the window to the target.
    """
    anomaly = climate.anomaly(series)
    angle = 2 * np.pi * series.month / 12
    features = np.stack([anomaly, np.sin(angle), np.cos(angle)], axis=1)  # (N, 3)
    steps = targets + np.arange(-T, 0)[:, np.newaxis]  # (T, B)
    x = features[steps]  # (T, B, 3)
    y = anomaly[targets] - anomaly[targets - 1]  # (B,)
    return x.astype(np.float32), y.astype(np.float32)

"""Windows of series: what a network reads, what it is to say, and batches of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.nn import mse, quantile

from ._network import Network
from ._training import Problem

Array = npt.NDArray[np.float64]
# Of windows, when many are forecast.
_AT_ONCE = 512
# Of a baseline, in deviations of a series: rounding, from which nothing can be learned.
_NO_ERROR = 1e-6


@dataclass
class Windows:
    """Series, scaled and one after the other, of which windows are cut.

    A window is known by its origin, the row of its first forecast: it reads the `window` rows
    before, and the `horizon` rows from there on are its targets.
    """

    y: Array
    """(rows, S): scaled."""
    others: FloatArray
    """(rows, F): what else each step reads."""
    known: FloatArray
    """(rows, K): columns that are known `horizon` rows ahead."""
    phases: IndexArray
    """(rows,): the time in the season."""
    window: int
    horizon: int
    relative: bool
    """Whether a window's values are read relative to its last one."""
    baseline: Callable[[Array, IndexArray], Array]
    """Of (B, window, S), and (B,) phases of the first forecast, the forecasts (B, horizon, S) that
    a network corrects."""

    def read(self, origins: IndexArray) -> tuple[FloatArray, FloatArray, Array]:
        """Return what a network reads, and the baseline.

        Returns
        -------
        x : ndarray
            (window, B, S + F + 2 K): steps. Known columns stand there twice: those of the step, and
            those of `horizon` steps later.
        ahead : ndarray
            (B, horizon K): the known columns of the steps that are forecast.
        baseline : ndarray
            (B, horizon, S).
        """
        past = origins + np.arange(-self.window, 0)[:, None]  # (window, B)
        y = self.y[past]
        level = y[-1] if self.relative else 0.0
        x = [y - level, self.others[past], self.known[past], self.known[past + self.horizon]]
        ahead = self.known[origins[:, None] + np.arange(self.horizon)]
        return (
            np.concatenate(x, axis=2, dtype=self.others.dtype, casting="same_kind"),
            ahead.reshape(len(origins), -1),
            self.baseline(y.swapaxes(0, 1), self.phases[origins]),
        )

    def baseline_error(self, origins: IndexArray) -> Array:
        """Return the root of the baseline's mean squared error, (S,); 1 where there is none."""
        total = np.zeros(self.y.shape[1])
        for some in _parts(origins):
            past = self.y[some[:, None] + np.arange(-self.window, 0)]
            found = self.baseline(past, self.phases[some])
            total += ((self.targets(some) - found) ** 2).sum(axis=(0, 1))
        error = np.sqrt(total / (len(origins) * self.horizon))
        return np.where(error > _NO_ERROR, error, 1.0)

    def targets(self, origins: IndexArray) -> Array:
        """Return what comes, (B, horizon, S)."""
        targets: Array = self.y[origins[:, None] + np.arange(self.horizon)]
        return targets


@dataclass
class Correction:
    """What a network adds to the baseline."""

    network: Network
    """Over ``window`` steps, with a part ``ahead`` (Linear) where there are known columns."""
    unit: Array
    """(S,): what 1 of its output is."""
    quantiles: Array
    """(Q,), or (0,): the mean is forecast."""

    def forecast(self, windows: Windows, origins: IndexArray) -> Array:
        """Return the forecasts of windows: (n, horizon, S, Q), or 1 for Q."""
        found = []
        for some in _parts(origins):
            x, ahead, baseline = windows.read(some)
            scores = self.scores(x, ahead).reshape(*baseline.shape, -1).astype(np.float64)
            found.append(baseline[..., None] + scores * self.unit[:, None])
        return np.concatenate(found)

    def scores(self, x: FloatArray, ahead: FloatArray) -> FloatArray:
        """Return the network's output, (B, horizon S Q), in inference."""
        scores = self.network(x, _lengths_of(x))
        return scores + self.network.ahead(ahead) if ahead.shape[1] else scores

    def loss(self, scores: FloatArray, y: Array) -> tuple[float, FloatArray]:
        """Return the loss of output that should be y, (B, horizon, S), and its gradient."""
        by_value = scores.reshape(*y.shape, -1)
        if len(self.quantiles):
            loss, d_scores = quantile(by_value, y, self.quantiles)
        else:
            loss, d_scores = mse(by_value[..., 0], y)
        return loss, d_scores.reshape(scores.shape)


def _parts(rows: IndexArray) -> list[IndexArray]:
    """Some at a time, so that memory is bounded."""
    return [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]


def _lengths_of(x: FloatArray) -> IndexArray:
    return np.full(x.shape[1], len(x), np.int64)


class ForecastProblem(Problem):
    """What a forecaster learns: to correct the baseline of the windows of some origins."""

    def __init__(self, windows: Windows, origins: IndexArray, correction: Correction) -> None:
        self.network: Network = correction.network
        self.lengths = np.full(len(origins), windows.window, np.int64)
        self._windows = windows
        self._origins = origins
        self._correction = correction

    def _read(self, rows: IndexArray) -> tuple[FloatArray, FloatArray, Array]:
        """Steps, what is known ahead, and what the network is to say."""
        origins = self._origins[rows]
        x, ahead, baseline = self._windows.read(origins)
        return x, ahead, (self._windows.targets(origins) - baseline) / self._correction.unit

    def gradients(self, rows: IndexArray, random: np.random.Generator) -> tuple[float, Any]:
        """As :meth:`Problem.gradients`."""
        x, ahead, y = self._read(rows)
        scores, tape = self.network.forward(x, _lengths_of(x), random)
        if not ahead.shape[1]:
            loss, d_scores = self._correction.loss(scores, y)
            return loss, tape.backward(d_scores)
        more, of_ahead = self.network.ahead.forward(ahead)
        loss, d_scores = self._correction.loss(scores + more, y)
        return loss, {
            **tape.backward(d_scores),
            "ahead": of_ahead.backward(d_scores, needs="params"),
        }

    def loss(self, rows: IndexArray) -> float:
        """As :meth:`Problem.loss`."""
        x, ahead, y = self._read(rows)
        return self._correction.loss(self._correction.scores(x, ahead), y)[0]

    def mean_loss(self, rows: IndexArray) -> float:
        """Return the loss of any number of examples."""
        return sum(self.loss(some) * len(some) for some in _parts(rows)) / len(rows)

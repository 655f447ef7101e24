"""The picture: the series, the forecast of the test years, the losses, and how methods compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .data import Climate, Series, Split
from .train import History

Array = npt.NDArray[Any]

INK = "#2b2f36"
GREY = "#8a919c"
LSTM = "#d1495b"
OTHER = "#2e7da6"
PARTS = {"fit": "#ffffff", "validation": "#f6ead2", "test": "#e3eef5"}


def plot(
    path: Path,
    series: Series,
    split: Split,
    forecasts: dict[str, Array],
    rmse: dict[str, float],
    history: History,
    climate: Climate,
) -> None:
    """Draw the results of a run.

    Parameters
    ----------
    path : Path
        PNG to be written.
    series, split : Series, Split
        The data.
    forecasts : dict of str to ndarray, shape (len(split.test),)
        Of the test months, in °C; those of "LSTM" are drawn.
    rmse : dict of str to float
        By method, in °C.
    history : History
        Losses by epoch.
    climate : Climate
        Takes the losses to °C.
    """
    figure = Figure(figsize=(11, 10), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1.25, 1))
    _plot_series(figure.add_subplot(grid[0, :]), series, split)
    _plot_forecast(figure.add_subplot(grid[1, :]), series, split, forecasts["LSTM"])
    _plot_losses(figure.add_subplot(grid[2, 0]), history, climate.scale)
    _plot_rmse(figure.add_subplot(grid[2, 1]), rmse)
    figure.savefig(path, dpi=150)


def _plot_series(ax: Axes, series: Series, split: Split) -> None:
    year = _years(series)
    for name, months in split._asdict().items():
        start, end = year[months[0]], year[months[-1]] + 1 / 12
        ax.axvspan(start, end, color=PARTS[name], linewidth=0)
        ax.text(
            (start + end) / 2,
            0.95,
            name,
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            color=GREY,
        )
    ax.plot(year, series.temperature, color=INK, linewidth=0.8)
    ax.set_xlim(year[0], year[-1] + 1 / 12)
    ax.set_ylim(top=series.temperature.max() + 1.6)
    _finish(ax, "Sea surface temperature of the El Niño region, monthly", "°C")


def _plot_forecast(ax: Axes, series: Series, split: Split, forecast: Array) -> None:
    year = _years(series)[split.test]
    observed = series.temperature[split.test]
    ax.plot(year, observed, ".-", color=INK, linewidth=0.7, markersize=6, label="observed")
    ax.plot(year, forecast, color=LSTM, linewidth=1.6, label="LSTM, one month ahead")
    ax.set_xlim(year[0] - 0.1, year[-1] + 0.1)
    ax.set_xticks(np.arange(np.ceil(year[0]), year[-1]))
    ax.legend(loc="upper right", ncols=2, frameon=False)
    ax.set_ylim(top=observed.max() + 1)
    _finish(ax, "The test years, one month ahead", "°C")


def _plot_losses(ax: Axes, history: History, scale: float) -> None:
    epochs = len(history.train)
    for name, losses, color in (
        ("fit", history.train, GREY),
        ("validation", history.validation, OTHER),
    ):
        errors = scale * np.sqrt(losses)
        ax.plot(np.arange(1, epochs + 1), errors, color=color)
        ax.annotate(
            name,
            (epochs, errors[-1]),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )
    best = history.best
    best_error = scale * history.validation[best] ** 0.5
    ax.plot(best + 1, best_error, "o", color=OTHER)
    ax.annotate(
        f"best: epoch {best + 1}",
        (best + 1, best_error),
        (0, -16),
        textcoords="offset points",
        ha="center",
        color=OTHER,
    )
    ax.set_xlabel("epoch")
    _finish(ax, "Loss while training, as RMSE", "°C")


def _plot_rmse(ax: Axes, rmse: dict[str, float]) -> None:
    names = list(rmse)
    colors = [LSTM if name == "LSTM" else GREY for name in names]
    bars = ax.barh(names, list(rmse.values()), color=colors, height=0.65)
    ax.bar_label(bars, fmt="%.3f", padding=4, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(right=1.15 * max(rmse.values()))
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_visible(False)
    _finish(ax, "RMSE over the test years, °C")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.grid(False)


def _finish(ax: Axes, title: str, ylabel: str = "") -> None:
    ax.set_title(title, loc="left", color=INK, fontweight="bold", fontsize=11)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e6e8eb", linewidth=0.7)
    ax.set_axisbelow(True)


def _years(series: Series) -> Array:
    """(N,) the start of each month, as a number of years."""
    return series.first_year + np.arange(len(series.temperature)) / 12

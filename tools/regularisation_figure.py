"""Draws the figure of docs/regularisation.md: python tools/regularisation_figure.py. Needs [demo].

The demo's task with an LSTM that is large for it, trained for long: losses by epoch on the months
that it is fitted to and on those after them, in the mean over seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import numpy.typing as npt
from fastlstm import optim
from fastlstm.demo.data import INPUT_SIZE, Climate, load_elnino, split_in_time, windows
from fastlstm.demo.model import Forecaster, Linear
from fastlstm.demo.train import Batch, Recipe, mean_squared_error, train_epoch
from matplotlib.figure import Figure

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "overfitting.png"
RECIPE = Recipe(hidden_size=64, lr=3e-3)
EPOCHS, SEEDS = 100, 5
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "recurrent_dropout=0.5": {"recurrent_dropout": 0.5},
    "zoneout=0.5": {"zoneout": 0.5},
    "weight_dropout=0.5": {"weight_dropout": 0.5},
}


def losses(options: dict[str, Any], seed: int) -> npt.NDArray[Any]:
    """(EPOCHS, 2): after each epoch, without dropout, of the months fitted and of validation."""
    series = load_elnino()
    split = split_in_time(len(series.temperature))
    climate = Climate.of(series, split.fit)
    fit, validation = (
        Batch(*windows(series, climate, months, RECIPE.window))
        for months in (split.fit[RECIPE.window :], split.validation)
    )
    rng = np.random.default_rng(seed)
    H = RECIPE.hidden_size
    lstm = fastlstm.LSTM(INPUT_SIZE, H, seed=seed, **options)
    W = rng.uniform(-(H**-0.5), H**-0.5, (1, H)).astype(np.float32)
    model = Forecaster(lstm, Linear(W, np.zeros(1, np.float32)), climate)
    optimizer = optim.Adam(lr=RECIPE.lr)
    found = []
    for _ in range(EPOCHS):
        train_epoch(model, optimizer, fit, RECIPE, rng)
        found.append([mean_squared_error(model, batch) for batch in (fit, validation)])
    return np.array(found)


def main() -> None:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for name, options in OPTIONS.items():
        mean = np.mean([losses(options, seed) for seed in range(SEEDS)], axis=0)
        for axes, curve in zip(panels, mean.T, strict=True):
            axes.plot(np.arange(1, EPOCHS + 1), curve, label=name)
        fit, validation = mean.T
        best = int(np.argmin(validation))
        print(
            f"| {name} | {fit[-1]:.3f} | {validation[-1]:.3f} | {validation[best]:.3f} | "
            f"{best + 1} |"
        )
    for axes, title in zip(panels, ("months fitted", "validation"), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("mean squared error")
    panels[0].legend(fontsize=8)
    figure.savefig(IMAGE, dpi=90)


if __name__ == "__main__":
    main()

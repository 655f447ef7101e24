"""``fastlstm demo``: an LSTM learns to forecast El Niño.

Written to be read, in this order:

- `fastlstm.demo.data`: the series, its split in time, and the windows that the LSTM reads.
- `fastlstm.demo.model`: an LSTM and a linear head; the loss and its gradients; save and load.
- `fastlstm.demo.train`: the training loop, with early stopping.
- `fastlstm.demo.baselines`: the simple forecasts to compare with.
- `fastlstm.demo.speed`: how long a training step takes, here and elsewhere.
- `fastlstm.demo.plot`: the picture.
- `run`, below, calls them one after another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastlstm
from fastlstm._extras import needs_extra

with needs_extra("fastlstm.demo", "demo"):
    from .baselines import baselines
    from .data import Climate, Series, Split, load_elnino, split_in_time, windows
    from .model import Forecaster
    from .plot import plot
    from .speed import describe, step_times
    from .train import RECIPE, Batch, History, Recipe, train

__all__ = ["Results", "run"]

Array = npt.NDArray[Any]


class Results(NamedTuple):
    """What a run found."""

    forecasts: dict[str, Array]  # by method, each (len(split.test),) in °C
    rmse: dict[str, float]  # by method, in °C
    history: History
    step_times: dict[str, float]  # seconds by system


# So small a step, about 1 ms, gains nothing from a second thread.
@fastlstm.num_threads(1)
def run(out: Path, *, seed: int = 0, quiet: bool = False, recipe: Recipe = RECIPE) -> Results:
    """Train, forecast, compare, plot and save.

    Parameters
    ----------
    out : Path
        Folder for ``elnino.png`` and the model. Made if it is not there.
    seed : int
        Of the weights and of the order of the examples. All results but the times depend on it
        alone.
    quiet : bool
        Print the results only.
    recipe : Recipe
        How to train.

    Returns
    -------
    Results
        All figures.

    Raises
    ------
    OSError
        `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)

    series = load_elnino()
    split = split_in_time(len(series.temperature))
    climate = Climate.of(series, split.fit)
    fit = Batch(*windows(series, climate, split.fit[recipe.window :], recipe.window))
    validation = Batch(*windows(series, climate, split.validation, recipe.window))

    model = Forecaster.new(recipe.hidden_size, climate, seed)
    if not quiet:
        print(_describe_data(series, split))
        print(_describe_model(model))
    history = train(model, fit, validation, recipe, seed=seed, quiet=quiet)
    if not quiet:
        print(_describe_training(history, climate))

    model.save(out)
    forecasts = baselines(series, split)
    forecasts["LSTM"] = model.forecast(series, split.test, recipe.window)
    reloaded = Forecaster.load(out).forecast(series, split.test, recipe.window)
    if not np.array_equal(reloaded, forecasts["LSTM"]):
        raise RuntimeError("the model that was saved and loaded again forecasts something else")

    errors = {name: f - series.temperature[split.test] for name, f in forecasts.items()}
    print(_table(errors))
    first = Batch(fit.x[:, : recipe.batch_size], fit.y[: recipe.batch_size])
    times = step_times(model, first, recipe)
    print(describe(times, first, recipe))

    rmse = {name: root_mean_square(e) for name, e in errors.items()}
    plot(out / "elnino.png", series, split, forecasts, rmse, history, climate)
    print(f"The plot is {out / 'elnino.png'}. The model, saved in lstm.safetensors and")
    print("head.safetensors there, was loaded again and gave identical forecasts.")
    return Results(forecasts, rmse, history, times)


def root_mean_square(errors: Array) -> float:
    """Square root of the mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def _describe_data(series: Series, split: Split) -> str:
    lines = ["Sea surface temperature of the El Niño region, monthly"]
    for name, months in split._asdict().items():
        dates = f"{series.date(months[0])} to {series.date(months[-1])}"
        lines.append(f"  {name:<11}{dates}  {len(months):4d} months")
    return "\n".join(lines)


def _describe_model(model: Forecaster) -> str:
    count = sum(p.size for p in model.params.values())
    return f"Model: {model.lstm} and a linear head, {count:,} parameters"


def _describe_training(history: History, climate: Climate) -> str:
    best = history.best
    validation = climate.scale * history.validation[best] ** 0.5
    return (
        f"Stopped after {len(history.validation)} epochs. Best: epoch {best + 1}, validation RMSE "
        f"{validation:.3f} °C; its weights are kept."
    )


def _table(errors: dict[str, Array]) -> str:
    count = len(errors["LSTM"])
    lines = [f"\n{f'One-step forecasts of {count} test months':<40}RMSE °C   MAE °C"]
    for name, e in errors.items():
        lines.append(f"  {name:<38}{root_mean_square(e):7.3f}  {np.mean(np.abs(e)):7.3f}")
    return "\n".join(lines) + "\n"

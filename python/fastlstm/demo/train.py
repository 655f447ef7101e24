"""The training loop: mini-batches, clipped gradients, Adam, early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fastlstm import optim

from .model import Forecaster

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Recipe:
    """How to train. docs/demo.md says how these values were chosen."""

    window: int = 24  # months that the LSTM reads before a forecast
    hidden_size: int = 32
    batch_size: int = 32
    lr: float = 1e-3
    max_norm: float = 1.0  # of the gradient; longer ones are clipped
    max_epochs: int = 300
    patience: int = 30  # stop after so many epochs without a better validation loss


RECIPE = Recipe()


class Batch(NamedTuple):
    """Windows and what is to be forecast from them, as `fastlstm.demo.data.windows` makes them."""

    x: Array  # (T, B, 3)
    y: Array  # (B,)


class History(NamedTuple):
    """Mean squared errors, epoch by epoch."""

    train: list[float]  # mean over the epoch, while the weights change
    validation: list[float]  # at the epoch's end

    @property
    def best(self) -> int:
        """Epoch with the least validation loss, counted from 0."""
        return int(np.argmin(self.validation))


def train(
    model: Forecaster,
    fit: Batch,
    validation: Batch,
    recipe: Recipe,
    *,
    seed: int,
    quiet: bool = False,
) -> History:
    """Train until the validation loss no longer improves, and keep the best weights.

    Parameters
    ----------
    model : Forecaster
        Changed in place. Ends with the weights of the epoch with the least validation loss.
    fit, validation : Batch
        What the weights are fitted to, and what tells when to stop.
    recipe : Recipe
        Learning rate and so on.
    seed : int
        Of the order of the examples.
    quiet : bool
        No progress bar.

    Returns
    -------
    History
        Losses of all epochs.
    """
    rng = np.random.default_rng(seed)
    optimizer = optim.Adam(lr=recipe.lr)
    history = History([], [])
    best_params = model.params
    scale = model.climate.scale
    with tqdm(total=recipe.max_epochs, desc="training", unit="epoch", disable=quiet) as bar:
        for epoch in range(recipe.max_epochs):
            history.train.append(train_epoch(model, optimizer, fit, recipe, rng))
            history.validation.append(mean_squared_error(model, validation))
            if history.best == epoch:
                best_params = model.params
            bar.set_postfix_str(
                f"RMSE: fit {scale * history.train[-1] ** 0.5:.3f} °C, "
                f"validation {scale * history.validation[-1] ** 0.5:.3f} °C",
                refresh=False,
            )
            bar.update()
            if epoch - history.best >= recipe.patience:
                break
    model.update(best_params)
    return history


def train_epoch(
    model: Forecaster,
    optimizer: optim.Optimizer,
    fit: Batch,
    recipe: Recipe,
    rng: np.random.Generator,
) -> float:
    """Make one pass over the examples in random order and return the mean loss."""
    order = rng.permutation(len(fit.y))
    total = 0.0
    for start in range(0, len(order), recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        loss = train_step(model, optimizer, Batch(fit.x[:, rows], fit.y[rows]), recipe.max_norm)
        total += loss * len(rows)
    return total / len(order)


def train_step(
    model: Forecaster, optimizer: optim.Optimizer, batch: Batch, max_norm: float
) -> float:
    """Make one step of gradient descent and return the loss before it."""
    loss, grads = model.loss_and_grads(batch.x, batch.y)
    grads, _ = optim.clip_by_global_norm(grads, max_norm)
    model.update(optimizer.step(model.params, grads))
    return loss


def mean_squared_error(model: Forecaster, batch: Batch) -> float:
    """Compute the loss without training."""
    return float(np.mean((model(batch.x) - batch.y) ** 2))

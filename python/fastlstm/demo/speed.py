"""How long one training step takes, next to the NumPy reference and to PyTorch."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

import fastlstm
from fastlstm import optim, reference

from .data import INPUT_SIZE
from .model import Forecaster
from .train import Batch, Recipe, train_step

Array = npt.NDArray[Any]
Step = Callable[[], float]  # makes one training step and returns the loss before it


def step_times(
    model: Forecaster, batch: Batch, recipe: Recipe, repeats: int = 9
) -> dict[str, float]:
    """Measure a whole training step of each system: forward, backward, clipping, Adam.

    All start from the same weights and read the same batch; PyTorch is set to as many threads as
    fastlstm uses. Before anything is timed, the losses of the first steps are compared. Repeats of
    the systems alternate, so that a busy moment of the machine hits all.

    Parameters
    ----------
    model : Forecaster
        The model to train. It stays as it is.
    batch : Batch
        The batch of each step.
    recipe : Recipe
        Learning rate and clipping.
    repeats : int
        A repeat is the mean of some steps.

    Returns
    -------
    dict of str to float
        Median seconds per step, by name: "fastlstm", "NumPy reference", and "PyTorch" where it is
        installed.

    Raises
    ------
    RuntimeError
        The systems do not compute the same.
    """
    steps = {
        "fastlstm": _fastlstm_step(model, batch, recipe),
        "NumPy reference": _reference_step(model, batch, recipe),
    }
    torch_step = _torch_step(model, batch, recipe)
    if torch_step is not None:
        steps["PyTorch"] = torch_step

    losses = {name: [step() for _ in range(5)] for name, step in steps.items()}  # warms up, too
    for name, loss in losses.items():
        if not np.allclose(loss, losses["fastlstm"], rtol=1e-3):
            raise RuntimeError(f"{name} trains differently: {loss}, not {losses['fastlstm']}")

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(_time(step))
    return {name: median(values) for name, values in seconds.items()}


def describe(times: dict[str, float], batch: Batch, recipe: Recipe) -> str:
    """Put the times into one line."""
    ours = times["fastlstm"]
    T, B, _ = batch.x.shape
    others = [
        f"{name} {1e3 * t:.2f} ms ({t / ours:.1f}x the time)"
        for name, t in times.items()
        if name != "fastlstm"
    ]
    return (
        f"One training step (T {T}, B {B}, H {recipe.hidden_size}, "
        f"threads {fastlstm.get_num_threads()}): fastlstm {1e3 * ours:.2f} ms, " + ", ".join(others)
    )


def _time(step: Step, count: int = 5) -> float:
    """Seconds per step, after one that is not counted."""
    step()
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def _fastlstm_step(model: Forecaster, batch: Batch, recipe: Recipe) -> Step:
    model = copy.deepcopy(model)
    optimizer = optim.Adam(lr=recipe.lr)
    return lambda: train_step(model, optimizer, batch, recipe.max_norm)


class _ReferenceLSTM:
    """`fastlstm.reference`, with the few members of `fastlstm.LSTM` that a training step uses."""

    def __init__(self, params: Mapping[str, Array]) -> None:
        self.params = dict(params)

    def update(self, params: dict[str, Array]) -> None:
        self.params = params

    def forward(self, x: Array) -> tuple[Array, Any, SimpleNamespace]:
        output, state, tape = reference.lstm_forward(self.params, x)
        return output, state, SimpleNamespace(backward=partial(reference.lstm_backward, tape))


def _reference_step(model: Forecaster, batch: Batch, recipe: Recipe) -> Step:
    lstm: Any = _ReferenceLSTM(model.lstm.params)
    model = Forecaster(lstm, model.head, model.climate)
    optimizer = optim.Adam(lr=recipe.lr)
    return lambda: train_step(model, optimizer, batch, recipe.max_norm)


def _torch_step(model: Forecaster, batch: Batch, recipe: Recipe) -> Step | None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(fastlstm.get_num_threads())
    lstm = torch.nn.LSTM(INPUT_SIZE, recipe.hidden_size)
    head = torch.nn.Linear(recipe.hidden_size, 1)
    lstm.load_state_dict({name: torch.tensor(p) for name, p in model.lstm.params.items()})
    head.load_state_dict({"weight": torch.tensor(model.head.W), "bias": torch.tensor(model.head.b)})
    params = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr=recipe.lr)
    x, y = torch.tensor(batch.x), torch.tensor(batch.y)

    def step() -> float:
        optimizer.zero_grad()
        output, _ = lstm(x)
        loss = torch.nn.functional.mse_loss(head(output[-1])[:, 0], y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, recipe.max_norm)
        optimizer.step()
        return float(loss.detach())

    return step

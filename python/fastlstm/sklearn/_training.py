"""Training: epochs, batches by length, the learning rate, and when it is enough."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastlstm._checks import IndexArray
from fastlstm._extras import needs_extra
from fastlstm.nn import Module, bucket_batches
from fastlstm.optim import Adam

# "plateau": the learning rate is halved after so many epochs without a better loss.
_PATIENCE_OF_PLATEAU = 2
# Examples whose loss is compared with what it was before the first step.
_WATCHED = 64
# Of losses of scaled numbers: what they rise by where nothing was left to learn is no divergence.
_SMALL = 1e-3

SCHEDULES = ("constant", "linear", "cosine", "plateau")


class Problem(ABC):
    """A network, and examples that it is to learn from, which have numbers from 0.

    Attributes
    ----------
    network : Module
    lengths : ndarray of int64
        (n,): of the examples. Those of a batch are about equally long.
    """

    network: Module
    lengths: IndexArray

    @abstractmethod
    def gradients(self, rows: IndexArray, random: np.random.Generator) -> tuple[float, Any]:
        """Return the mean loss of some examples, and its gradients, as ``Module.step`` takes them.

        Parameters
        ----------
        rows : ndarray of int64
            The examples' numbers.
        random : Generator
            Of dropout.
        """

    @abstractmethod
    def loss(self, rows: IndexArray) -> float:
        """Return the mean loss of some examples in inference."""


class Epoch(NamedTuple):
    """What callbacks are told after an epoch."""

    epoch: int
    """From 1."""
    loss: float
    """The mean of the training examples' losses, with dropout, while the parameters changed."""
    validation_loss: float | None
    """Of the examples that are held out, after the epoch."""
    lr: float
    """The learning rate of its last step."""


@dataclass
class Settings:
    """How to train: the estimators' arguments of the same names.

    And whether parameters are new, so that a loss that grows is a sign of divergence.
    """

    epochs: int
    batch_size: int
    lr: float
    schedule: str
    clip: float | None
    early_stopping: int | None
    from_scratch: bool
    verbose: int
    callbacks: Sequence[Callable[[Epoch], Any]]


@dataclass
class History:
    """What came of it: losses by epoch, and the epoch whose parameters were kept, from 1."""

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_epoch: int = 0


def train(
    problem: Problem,
    training: IndexArray,
    validation: IndexArray,
    settings: Settings,
    random: np.random.Generator,
    optimizer: Adam,
) -> History:
    """Train a problem's network.

    Where examples are held out, the parameters of the epoch with the least loss of these are kept
    in the end.

    Parameters
    ----------
    problem : Problem
    training, validation : ndarray of int64
        The examples to learn from, and those that are held out, which may be none.
    settings : Settings
    random : Generator
        Of the order of batches, and of dropout.
    optimizer : Adam
        A new one, or one that goes on.

    Returns
    -------
    History

    Warns
    -----
    ConvergenceWarning
        Training diverged: it says what to try. The parameters are those of the best epoch, or
        where nothing is held out, those before the first step that failed.
    """
    return _Training(problem, training, validation, settings, random, optimizer).run()


class _Training:
    def __init__(
        self,
        problem: Problem,
        training: IndexArray,
        validation: IndexArray,
        settings: Settings,
        random: np.random.Generator,
        optimizer: Adam,
    ) -> None:
        self.problem = problem
        self.network = problem.network
        self.training = training
        self.settings = settings
        self.random = random
        self.optimizer = optimizer
        self.lr = settings.lr  # of which a plateau makes less
        self.history = History()
        self.best = (math.inf, 0)  # the least loss, and its epoch
        self.kept: dict[str, Any] = {}
        some = training[:: max(1, len(training) // _WATCHED)]
        self.watched = some[:_WATCHED] if settings.from_scratch else some[:0]
        self.held_out = [
            validation[batch]
            for batch in bucket_batches(problem.lengths[validation], settings.batch_size, False)
        ]

    def run(self) -> History:
        settings, history = self.settings, self.history
        first, finite = self._loss_of_watched(), True
        for epoch in _with_progress(settings, history):
            finite = self._learn(epoch)
            loss = history.losses[-1]
            held_out = None
            if self.held_out:
                held_out = self._validate()
                history.validation_losses.append(held_out)
            decisive = loss if held_out is None else held_out
            finite = finite and math.isfinite(decisive)
            if not finite:
                self._warn(epoch, "the loss or its gradients are infinite or NaN")
                break
            if decisive < self.best[0]:
                self.best = (decisive, epoch)
                if self.held_out:
                    self.kept = self.network.state_dict()
            progress = Epoch(epoch, loss, held_out, self.optimizer.lr)
            ends = [callback(progress) for callback in settings.callbacks]
            if any(ends):
                break
            without = epoch - self.best[1]
            if self.held_out and settings.early_stopping and without >= settings.early_stopping:
                break
            if settings.schedule == "plateau" and without and without % _PATIENCE_OF_PLATEAU == 0:
                self.lr /= 2
        history.best_epoch = len(history.losses)
        if self.kept:
            self.network.load_state_dict(self.kept)
            history.best_epoch = self.best[1]
        last = self._loss_of_watched()
        if finite and last > first + max(abs(first), _SMALL):
            what = f"the loss has risen from {first:.3g} to {last:.3g}"
            self._warn(len(history.losses), what)
        return history

    def _learn(self, epoch: int) -> bool:
        """One epoch; whether all steps could be made."""
        settings, problem, network = self.settings, self.problem, self.network
        seed = int(self.random.integers(2**63))
        lengths = problem.lengths[self.training]
        batches = bucket_batches(lengths, settings.batch_size, seed=seed)
        total, finite = 0.0, True
        clip = math.inf if settings.clip is None else settings.clip
        for k, batch in enumerate(batches):
            self.optimizer.lr = self.lr * self._factor(epoch - 1 + k / len(batches))
            loss, grads = problem.gradients(self.training[batch], self.random)
            norm = network.step(self.optimizer, grads, clip=clip)
            total += loss * len(batch)
            finite = math.isfinite(loss) and norm is not None and math.isfinite(norm)
            if not finite:  # no step has been made
                break
        self.history.losses.append(total / max(len(self.training), 1))
        return finite

    def _factor(self, epochs: float) -> float:
        """What the schedule makes of the learning rate after so many epochs."""
        part = epochs / self.settings.epochs
        if self.settings.schedule == "linear":
            return 1 - part
        if self.settings.schedule == "cosine":
            return (1 + math.cos(math.pi * part)) / 2
        return 1.0

    def _validate(self) -> float:
        count = sum(len(rows) for rows in self.held_out)
        return sum(self.problem.loss(rows) * len(rows) for rows in self.held_out) / count

    def _loss_of_watched(self) -> float:
        return self.problem.loss(self.watched) if len(self.watched) else 0.0

    def _warn(self, epoch: int, what: str) -> None:
        settings = self.settings
        clip = "clip=1.0" if settings.clip is None else f"a clip below {settings.clip:g}"
        warnings.warn(
            f"training diverged in epoch {epoch}: {what}. Try a lr below {settings.lr:g}, {clip}, "
            "or inputs and targets that are scaled to about -1 to 1",
            ConvergenceWarning,
            stacklevel=2,
        )


def _with_progress(settings: Settings, history: History) -> Iterable[int]:
    """The epochs, with a progress bar where it is asked for."""
    epochs = range(1, settings.epochs + 1)
    if not settings.verbose:
        return epochs
    with needs_extra("verbose", "sklearn"):
        from tqdm import tqdm

    def shown() -> Iterable[int]:
        with tqdm(epochs, unit="epoch") as bar:
            for epoch in bar:
                yield epoch
                last = {"loss": history.losses[-1]} if history.losses else {}
                if history.validation_losses:
                    last["validation"] = history.validation_losses[-1]
                bar.set_postfix(last)

    return shown()

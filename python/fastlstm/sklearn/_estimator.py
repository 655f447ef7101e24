"""What all estimators share: layers' options and those of training, threads, seeds, files."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastlstm import num_threads
from fastlstm._checks import IndexArray, as_bool
from fastlstm.layers.options import as_dtype_name
from fastlstm.nn import Module
from fastlstm.optim import Adam

from ._network import CELLS, Network
from ._options import (
    anything,
    as_callables,
    as_count,
    as_count_or_zero,
    as_fraction,
    as_positive,
    as_verbosity,
    checked,
    estimator,
    one_of,
    option,
    or_none,
)
from ._plain import from_plain, to_plain
from ._training import SCHEDULES, Epoch, Problem, Settings, train


@estimator
class Estimator(BaseEstimator, ABC):  # type: ignore[misc]
    """A network, how it is trained, and what it is saved as.

    A kind of estimator has its ``fit``, which makes ``network_`` and a problem of the data, and
    calls :meth:`_train`. All it learns is in attributes that end with an underscore, of what
    :mod:`._plain` knows: these are in a file, too.
    """

    # What a file's parts are loaded as.
    _network_type: ClassVar[type[Module]] = Network

    cell: str = option("lstm", one_of(*CELLS), '{"lstm", "gru", "rnn"}', "The kind of layer.")
    hidden_size: int = option(64, as_count, "int", "H, the hidden units of a direction.")
    num_layers: int = option(1, as_count, "int", "Layers on top of each other.")
    dropout: float = option(
        0.3,
        as_fraction,
        "float",
        "The part of the values that training drops between layers and before the last, linear "
        "one.",
    )
    recurrent_dropout: float = option(
        0.0, as_fraction, "float", "The part of h that training drops where R reads it."
    )
    zoneout: float | tuple[float, float] = option(
        0.0,
        anything,
        "float or (float, float)",
        "The probability that a unit of h keeps its value in training; of an LSTM also (p_h, p_c).",
    )
    weight_dropout: float = option(
        0.0, as_fraction, "float", "The part of R that training drops in each step."
    )
    layer_norm: bool = option(
        False, as_bool, "bool", "Layer normalisation inside the gates, of an LSTM."
    )
    dtype: str = option(
        "float32", as_dtype_name, '{"float32", "float64"}', "Of parameters and results."
    )
    epochs: int = option(20, as_count, "int", "How often training sees all examples, at most.")
    batch_size: int = option(32, as_count, "int", "Examples of a step.")
    lr: float = option(2e-3, as_positive, "float", "The learning rate of Adam.")
    schedule: str = option(
        "constant",
        one_of(*SCHEDULES),
        '{"constant", "linear", "cosine", "plateau"}',
        "What becomes of the learning rate: it stays, falls to zero, or is halved where the loss "
        "does not fall.",
    )
    clip: float | None = option(
        1.0,
        or_none(as_positive),
        "float or None",
        "The largest norm of a step's gradients; None: any.",
    )
    early_stopping: int | None = option(
        5,
        or_none(as_count_or_zero),
        "int or None",
        "Training ends after so many epochs in which the loss of the held-out examples has not "
        "fallen; the parameters of the best epoch are kept. None or 0: nothing is held out.",
    )
    validation_fraction: float = option(
        0.1, as_fraction, "float", "The part of the examples that is held out for that."
    )
    random_state: Any = option(
        None,
        anything,
        "int, RandomState or None",
        "Of all that is random. The same number gives the same model, bit for bit, for any number "
        "of threads.",
    )
    n_threads: int | None = option(
        None,
        or_none(as_count),
        "int or None",
        "How many threads compute; None: as fastlstm.num_threads says.",
    )
    verbose: int = option(
        0, as_verbosity, "int or bool", "1: a progress bar of epochs, with their losses (tqdm)."
    )
    callbacks: Sequence[Callable[..., Any]] = option(
        (),
        as_callables,
        "sequence of callable",
        "Each is called after an epoch as callback(estimator, epoch), with its number, losses and "
        "learning rate. Where one returns True training ends.",
    )

    # --- for kinds of estimators ---------------------------------------------------------------

    def _checked(self) -> SimpleNamespace:
        """Return all options, checked."""
        return checked(self)

    def _new_random(self) -> np.random.Generator:
        """Return the random numbers of ``random_state``, from their beginning, and keep them."""
        self._random = new_random(self.random_state)
        return self._random

    def _threads(self) -> contextlib.AbstractContextManager[Any]:
        """Return a block in which calls have ``n_threads``."""
        return contextlib.nullcontext() if self.n_threads is None else num_threads(self.n_threads)

    @contextlib.contextmanager
    def _attributes_unless_an_error(self, *, forget: bool = False) -> Iterator[None]:
        """A block of what learns: after an error the attributes are what they were.

        Parameters
        ----------
        forget : bool
            Whether what was learned before is forgotten.
        """
        before = dict(self.__dict__)
        for name in before if forget else ():
            if _is_learned(name):
                delattr(self, name)
        try:
            yield
        except BaseException:  # Ctrl-C, too
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @staticmethod
    def _hold_out(
        n: int, options: SimpleNamespace, random: np.random.Generator
    ) -> tuple[IndexArray, IndexArray]:
        """Divide examples into those to learn from, and those that are held out."""
        count = held_out_of(n, options)
        order = random.permutation(n) if count else np.arange(n)
        return np.sort(order[count:]), np.sort(order[:count])

    def _train(
        self,
        problem: Problem,
        options: SimpleNamespace,
        *,
        held_out: int | None = None,
        one_epoch: bool = False,
    ) -> None:
        """Train the network that a problem has, which becomes ``network_``, and note how it went.

        Parameters
        ----------
        held_out : int, optional
            That the last so many examples are held out; by default some at random.
        one_epoch : bool
            Go on for an epoch with all examples, and with the optimiser that there is.
        """
        random = self._random
        n = len(problem.lengths)
        if one_epoch:
            training, validation = np.arange(n), np.arange(0)
        else:
            if held_out is None:
                training, validation = self._hold_out(n, options, random)
            else:
                training, validation = np.arange(n - held_out), np.arange(n - held_out, n)
            self.loss_curve_: list[float] = []
            self.validation_loss_curve_: list[float] = []
            self._optimizer: Adam | None = None
        if self._optimizer is None:
            self._optimizer = Adam(lr=options.lr)
        self.network_: Any = problem.network
        settings = Settings(
            epochs=1 if one_epoch else options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            schedule="constant" if one_epoch else options.schedule,
            clip=options.clip,
            early_stopping=options.early_stopping,
            from_scratch=not one_epoch,
            verbose=options.verbose,
            callbacks=[self._called(callback) for callback in options.callbacks],
        )
        history = train(problem, training, validation, settings, random, self._optimizer)
        self.loss_curve_ = [*self.loss_curve_, *history.losses]
        self.validation_loss_curve_ = [*self.validation_loss_curve_, *history.validation_losses]
        self.n_iter_: int = len(self.loss_curve_)
        self.best_epoch_: int = self.n_iter_ - len(history.losses) + history.best_epoch

    def _called(self, callback: Callable[..., Any]) -> Callable[[Epoch], Any]:
        return lambda epoch: callback(self, epoch)

    def _begin_partial(self) -> bool:
        """Return whether this is the first ``partial_fit``, and make what later ones go on with."""
        first = not hasattr(self, "network_")
        if first:
            self.loss_curve_, self.validation_loss_curve_ = [], []
        if first or not hasattr(self, "_random"):  # a file has neither
            self._new_random()
            self._optimizer = None
        return first

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    # --- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted estimator as one safetensors file, which :func:`fastlstm.load` reads.

        There is no code in it and no pickle: options that are functions or objects (a tokenizer of
        yours, callbacks, embeddings, a generator of random numbers) are not in the file; the
        vectors of tokens are, as they have become. An optimiser's state is not, either.

        Parameters
        ----------
        path : path-like
            The file, written as a layer's: complete or as it was before (docs/files.md).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There is nothing to save yet.
        OSError
            It cannot be written; the one that was there is as it was.
        TypeError
            The path is no path, or the class is derived from the library's.
        """
        check_is_fitted(self)
        cls = type(self)
        if cls.__module__ != "fastlstm.sklearn":
            raise TypeError(f"save: expected a class of fastlstm.sklearn, got {cls.__qualname__}")
        learned = {
            name: to_plain(name, value)
            for name, value in vars(self).items()
            if _is_learned(name) and name != "network_"
        }
        network = copy.copy(self.network_)
        network.meta = {
            "estimator": cls.__name__,
            "options": self._saved_options(),
            "learned": learned,
        }
        network.save(path)

    def _saved_options(self) -> dict[str, Any]:
        """The options that JSON can hold."""
        saved = {}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            with contextlib.suppress(TypeError):
                saved[name] = _option_to_plain(name, value, field.metadata["check"])
        return saved

    def _loaded(self) -> None:
        """Do what is to be done after a file was read."""


def _option_to_plain(name: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    """What JSON can hold of an option as it was given, or else as fitting takes it: np.float64 is
    "float64" then, and a path text.
    """
    try:
        return to_plain(name, value)
    except TypeError:
        return to_plain(name, check(name, value))


def new_random(random_state: Any) -> np.random.Generator:
    """Return the random numbers of what scikit-learn calls a random state."""
    return np.random.default_rng(int(check_random_state(random_state).randint(2**31 - 1)))


def held_out_of(n: int, options: SimpleNamespace) -> int:
    """Return how many of n examples are held out: one remains to learn from."""
    part = options.validation_fraction if options.early_stopping else 0.0
    return min(round(n * part), n - 1)


def _is_learned(name: str) -> bool:
    """Whether an attribute is what fitting made, by scikit-learn's convention."""
    return name.endswith("_") and not name.startswith("_")


def load_as(cls: type[Estimator], path: str) -> Estimator:
    """Make an estimator of a file that :meth:`Estimator.save` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError
        The file says something else.
    """
    network = cls._network_type.load(path)
    meta, network.meta = network.meta, {}
    made = cls(**{name: from_plain(value) for name, value in meta["options"].items()})
    for name, value in meta["learned"].items():
        if not _is_learned(name):
            raise ValueError(f"an attribute {name!r}")
        setattr(made, name, from_plain(value))
    made.network_ = network
    made._loaded()
    return made

"""Estimators whose X is sequences: of numbers, or of tokens."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastlstm import embeddings
from fastlstm._checks import FloatArray, IndexArray, as_bool
from fastlstm._saving import write_whole
from fastlstm.embeddings import Embeddings
from fastlstm.nn import Embedding, bucket_batches

from ._estimator import Estimator
from ._inputs import (
    UNKNOWN,
    Sequences,
    as_tokenize,
    encode,
    make_vocabulary,
    moments,
    read_numbers,
    read_tokens,
    scaled,
)
from ._network import Network, make_network
from ._onnx import onnx_model
from ._options import as_count, estimator, one_of, option
from ._training import Problem

SelfT = TypeVar("SelfT", bound="SequenceEstimator")
POOLING = ("max", "mean", "last", "ends")
# Values of a batch in inference, about: its padded outputs.
_MOST_VALUES = 1 << 22
_MOST_ROWS = 256


def _as_embedding(name: str, value: Any) -> Any:
    if value is None or isinstance(value, Embeddings):
        return value
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    return as_count(name, value)


class Targets(Protocol):
    """What the scores of examples should say."""

    def loss(
        self, network: Network, scores: FloatArray, rows: IndexArray, lengths: IndexArray
    ) -> tuple[float, FloatArray, dict[str, Any]]:
        """Return the mean loss of examples, the gradient of scores, and those of other parts."""


class Supervised(Problem):
    """To say of sequences what they should be."""

    def __init__(self, network: Network, sequences: Sequences, targets: Targets) -> None:
        self.network: Network = network
        self.lengths = sequences.lengths
        self._sequences = sequences
        self._targets = targets

    def gradients(self, rows: IndexArray, random: np.random.Generator) -> tuple[float, Any]:
        """As :meth:`Problem.gradients`."""
        x, lengths = self._sequences.batch(rows)
        scores, tape = self.network.forward(x, lengths, random)
        loss, d_scores, grads = self._targets.loss(self.network, scores, rows, lengths)
        return loss, {**tape.backward(d_scores), **grads}

    def loss(self, rows: IndexArray) -> float:
        """As :meth:`Problem.loss`."""
        x, lengths = self._sequences.batch(rows)
        return self._targets.loss(self.network, self.network(x, lengths), rows, lengths)[0]


@estimator
class SequenceEstimator(Estimator):
    """An estimator that is fitted to sequences and to what they should be.

    A kind of it checks y (:meth:`_check_targets`), learns what labels or scales there are
    (:meth:`_learn_targets`), makes targets of it (:meth:`_read_targets`), says how many scores
    there are (:meth:`_width`), and what they mean, in its ``predict``.
    """

    _result: ClassVar[str] = "probabilities"  # what an ONNX model gives

    bidirectional: bool = option(
        True, as_bool, "bool", "Whether a second direction reads each sequence from its end."
    )
    embedding: int | Embeddings | str | os.PathLike[str] | None = option(
        None,
        _as_embedding,
        "int, Embeddings, path or None",
        "None: X is numbers. Otherwise X is tokens, text or integers: the size of the vector that "
        "is learned for each, or vectors to begin with, or their file "
        "(fastlstm.embeddings.load).",
    )
    fine_tune: bool = option(
        True, as_bool, "bool", "Whether training changes the vectors of tokens."
    )
    tokenize: Any = option(
        None,
        as_tokenize,
        '{"words", "space", "characters"}, callable or None',
        "What makes tokens of a text, where X is texts. A function is not saved.",
    )
    min_count: int = option(
        1, as_count, "int", "Tokens that come less often in the training data are unknown."
    )
    unknown: str = option(
        "token",
        one_of("token", "error"),
        '{"token", "error"}',
        "Whether unknown tokens share a vector of their own, or are an error.",
    )
    standardize: bool = option(
        True,
        as_bool,
        "bool",
        "Whether numbers are scaled, each feature by its mean and deviation in the training data.",
    )

    # --- for kinds of estimators ---------------------------------------------------------------

    @abstractmethod
    def _check_targets(self, y: Any, sequences: Sequences) -> Any:
        """Return y as the other methods want it."""

    @abstractmethod
    def _learn_targets(self, y: Any, classes: Any) -> None:
        """Learn what there is to be said, of a checked y, or all classes, where they are given."""

    @abstractmethod
    def _read_targets(self, y: Any, options: SimpleNamespace) -> Targets:
        """Return what scores should say, of a checked y."""

    @abstractmethod
    def _width(self) -> int:
        """Return the number of scores, once targets were read."""

    def _parts(self, options: Any, random: np.random.Generator) -> dict[str, Any]:
        """Return parts of the network beside the usual."""
        return {}

    # --- fit -----------------------------------------------------------------------------------

    def fit(self: SelfT, X: Any, y: Any, lengths: Any = None) -> SelfT:
        """Fit the estimator.

        Parameters
        ----------
        X : list of array_like, or array_like
            n sequences: (T_i, F) arrays of numbers, or (T_i,) of one feature; lists of tokens, or
            texts, with ``embedding``; or one array, (n, T, F), (n, T) of one feature, or (n, T) of
            tokens.
        y : array_like or list
            What they should be.
        lengths : array_like of int, optional
            (n,): the steps that sequences of one array have. The others are not looked at.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            An option or an argument has another shape, value or type than stated.
        """
        options = self._checked()
        with self._attributes_unless_an_error(forget=True), self._threads():
            random = self._new_random()
            sequences = self._learn_inputs(X, lengths, options)
            checked_y = self._given_targets(y, sequences)
            self._learn_targets(checked_y, None)
            targets = self._read_targets(checked_y, options)
            network = self._make_network(options, random)
            self._train(Supervised(network, sequences, targets), options)
        return self

    def _fit_part(self: SelfT, X: Any, y: Any, lengths: Any, classes: Any = None) -> SelfT:
        """Do what ``partial_fit`` is to do."""
        options = self._checked()
        with self._attributes_unless_an_error(), self._threads():
            first = self._begin_partial()
            if first:
                sequences = self._learn_inputs(X, lengths, options)
            else:
                sequences = self._read_inputs(X, lengths)
            checked_y = self._given_targets(y, sequences)
            if first:
                self._learn_targets(checked_y, classes)
            targets = self._read_targets(checked_y, options)
            network = self._make_network(options, self._random) if first else self.network_
            network.fine_tune = options.fine_tune
            self._train(Supervised(network, sequences, targets), options, one_epoch=True)
        return self

    def _given_targets(self, y: Any, sequences: Sequences) -> Any:
        if y is None:
            raise ValueError("y: the estimator requires y to be passed, but the target y is None")
        return self._check_targets(y, sequences)

    def _make_network(self, options: SimpleNamespace, random: np.random.Generator) -> Network:
        words = self._make_words(options, random)
        return make_network(
            options,
            self.n_features_in_ if words is None else words.D,
            self._width(),
            random,
            words=words,
            pooling=getattr(options, "pooling", None),
            bidirectional=options.bidirectional,
            fine_tune=options.fine_tune,
            **self._parts(options, random),
        )

    def _make_words(self, options: SimpleNamespace, random: np.random.Generator) -> Any:
        """The vectors of tokens; that of unknown ones is zero at first."""
        if options.embedding is None:
            return None
        given = options.embedding if isinstance(options.embedding, Embeddings) else None
        V, D = len(self.vocabulary_) + 1, given.dim if given is not None else options.embedding
        if given is None:
            weight = random.standard_normal((V, D)).astype(options.dtype)
            weight[UNKNOWN] = 0
        else:
            weight = np.zeros((V, D), options.dtype)
            words, first = np.unique([self.vocabulary_[w] for w in given], return_index=True)
            weight[words] = given.vectors[first]
            others = np.setdiff1d(np.arange(UNKNOWN + 1, V), words)
            weight[others] = given.vectors.std() * random.standard_normal((len(others), D))
        return Embedding(V, D, weight, dtype=options.dtype)

    def _loaded(self) -> None:
        if self.network_.out.n_out != self._width():
            raise ValueError(f"{self._width()} scores, and a network of {self.network_.out.n_out}")
        self.network_.fine_tune = self.fine_tune
        if self.embedding is None and "words" in self.network_.parts:
            self.embedding = self.network_.words.D

    # --- X -------------------------------------------------------------------------------------

    def _learn_inputs(self, X: Any, lengths: Any, options: SimpleNamespace) -> Sequences:
        """Read sequences, and learn their vocabulary, or features and scales."""
        if options.embedding is None:
            sequences = read_numbers(X, lengths, self)
            self.n_features_in_: int = sequences.values.shape[1]
            self.mean_: FloatArray | None = None
            self.scale_: FloatArray | None = None
            if options.standardize:
                self.mean_, self.scale_ = moments(sequences.values)
            return scaled(sequences, self.mean_, self.scale_, options.dtype)
        if isinstance(options.embedding, str):
            options.embedding = embeddings.load(options.embedding)
        given = options.embedding
        tokens = read_tokens(X, lengths, options.tokenize)
        known = given if isinstance(given, Embeddings) else ()
        # A token without a vector is unknown for good where vectors do not change.
        learned = tokens if options.fine_tune or not known else ()
        self.vocabulary_: dict[Any, int] = make_vocabulary(learned, options.min_count, known)
        return encode(tokens, self.vocabulary_)

    def _read_inputs(self, X: Any, lengths: Any) -> Sequences:
        """Read sequences as they were learned."""
        if "words" in self.network_.parts:
            tokens = read_tokens(X, lengths, self.tokenize)
            return encode(tokens, self.vocabulary_, self.unknown)
        sequences = read_numbers(X, lengths, self)
        features = sequences.values.shape[1]
        if features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return scaled(sequences, self.mean_, self.scale_, self.dtype)

    # --- predictions ---------------------------------------------------------------------------

    def _read_new(self, X: Any, lengths: Any) -> Sequences:
        """Read sequences that are to be predicted."""
        check_is_fitted(self)
        return self._read_inputs(X, lengths)

    def _batches(self, sequences: Sequences) -> Iterator[tuple[IndexArray, FloatArray, IndexArray]]:
        """Sequences' numbers, scores and lengths, some at a time: bounded memory."""
        if len(sequences.lengths) == 1:
            batches = [np.zeros(1, np.int64)]
        else:
            layer = self.network_.layer
            width = layer.hidden_size * (2 if layer.bidirectional else 1)
            at_once = _MOST_VALUES // (int(sequences.lengths.max()) * width)
            at_once = min(max(at_once, 1), _MOST_ROWS)
            batches = bucket_batches(sequences.lengths, at_once, shuffle=False)
        for rows in batches:
            x, lengths = sequences.batch(rows)
            yield rows, self.network_(x, lengths), lengths

    # --- files ---------------------------------------------------------------------------------

    def trace(self, x: Any) -> list[list[Any]]:
        """Return every gate, cell and hidden value while a sequence is read.

        Parameters
        ----------
        x : str, list of tokens, or array_like
            One sequence, as X has them.

        Returns
        -------
        list of list
            By layer and direction, as a layer's ``trace`` returns them, for
            :func:`fastlstm.plot.gates`: (T, H) values.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            The sequence has another shape, value or type than stated.
        """
        with self._threads():
            steps, _ = self._read_new([x], None).batch(np.zeros(1, np.int64))
            traces: list[list[Any]] = self.network_.layer.trace(self.network_.read(steps[:, 0]))
        return traces

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator as an ONNX model with the same predictions.

        Its inputs are ``X``, (batch, time, F) numbers as ``fit`` takes them or (batch, time) places
        of tokens (int64: those of ``vocabulary_``, 0 of what is not in it), and ``lengths``,
        (batch,) int32. Its output is ``probabilities``, of a regressor ``prediction``: (batch, k),
        or (batch, time, k) where each step has some. Vocabulary and labels are in its metadata, as
        JSON.

        Parameters
        ----------
        path : path-like
            The file, written as a layer's: complete or as it was before (docs/files.md).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There is nothing to write yet.
        ValueError
            ONNX cannot represent it: it has a CRF, zoneout or layer normalisation.
        ModuleNotFoundError
            The package onnx is not installed.
        OSError
            The file cannot be written.
        """
        check_is_fitted(self)
        learned = {name: getattr(self, name, None) for name in ("classes_", "vocabulary_")}
        notes: dict[str, Any] = {
            "classes": None if learned["classes_"] is None else learned["classes_"].tolist(),
            # As pairs: a token may be a number.
            "vocabulary": list((learned["vocabulary_"] or {}).items()),
        }
        model = onnx_model(
            self.network_,
            mean=getattr(self, "mean_", None),
            scale=getattr(self, "scale_", None),
            result=self._result,
            y_mean=getattr(self, "y_mean_", None),
            y_scale=getattr(self, "y_scale_", None),
            notes={name: note for name, note in notes.items() if note},
        )
        write_whole(path, model.SerializeToString())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = True
        tags.input_tags.string = self.embedding is not None
        return tags


@estimator
class LabelEstimator(SequenceEstimator):
    """An estimator whose y has labels: these are known from the first examples on."""

    def partial_fit(self: SelfT, X: Any, y: Any, classes: Any = None, lengths: Any = None) -> SelfT:
        """Learn from some more examples: one epoch, in which nothing is held out.

        Vocabulary, scales and labels are those of the first call, or of ``fit``.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.
        classes : array_like, optional
            All labels that there will be, in the first call; by default those in y.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of :meth:`fit`, and for labels that there were not at first.
        """
        return self._fit_part(X, y, lengths, classes)


@estimator
class PooledEstimator(SequenceEstimator):
    """An estimator of which each sequence has one vector of scores."""

    pooling: str = option(
        "max",
        one_of(*POOLING),
        '{"max", "mean", "last", "ends"}',
        "What makes one vector of a sequence's outputs (fastlstm.nn.Pool).",
    )

    def _scores(self, X: Any, lengths: Any) -> FloatArray:
        """(n, width): scores of each sequence."""
        with self._threads():
            sequences = self._read_new(X, lengths)
            out = self.network_.out
            scores = np.empty((len(sequences.lengths), out.n_out), out.dtype)
            for rows, some, _ in self._batches(sequences):
                scores[rows] = some
        return scores


@estimator
class StepwiseEstimator(SequenceEstimator):
    """An estimator of which each step has scores."""

    def _of_each(
        self, X: Any, lengths: Any, say: Callable[[FloatArray, IndexArray], Iterable[Any]]
    ) -> list[Any]:
        """What a function makes of the scores of some sequences, (T, B, width), and their lengths.

        It gives something for each, and so does this.
        """
        with self._threads():
            sequences = self._read_new(X, lengths)
            said: list[Any] = [None] * len(sequences.lengths)
            for rows, scores, of_each in self._batches(sequences):
                for row, of_row in zip(rows.tolist(), say(scores, of_each), strict=True):
                    said[row] = of_row
        return said

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

"""A label for each step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, IndexArray, as_bool
from fastlstm.nn import CRF, cross_entropy

from ._inputs import Sequences
from ._labels import (
    Labels,
    as_class_weight,
    check_sequences,
    class_weights,
    encode_labels,
    flat_labels,
    softmax,
    split,
)
from ._network import Network
from ._options import estimator, option
from ._sequences import LabelEstimator, StepwiseEstimator, Targets


class _Tags:
    """The places of labels, of each step."""

    def __init__(self, places: Sequences, weights: FloatArray | None) -> None:
        self._places = places
        self._weights = weights

    def loss(
        self, network: Network, scores: FloatArray, rows: IndexArray, lengths: IndexArray
    ) -> tuple[float, FloatArray, dict[str, Any]]:
        tags, _ = self._places.batch(rows)
        if "crf" in network.parts:
            loss, grads = network.crf.loss(scores, tags, lengths)
            return loss, grads.x, {"crf": grads}
        return *cross_entropy(scores, tags, lengths, class_weights=self._weights), {}


@estimator
class SequenceTagger(LabelEstimator, StepwiseEstimator):
    """A label for each step of a sequence: parts of speech, names in text, states of a machine.

    A recurrent layer reads the sequence, and a linear layer makes scores of the labels at each
    step. With a CRF (:class:`fastlstm.nn.CRF`) the labels of a sequence are decided together: what
    follows what is learned, too, so that, say, an "I-" comes after its "B-".

    Parameters
    ----------
    {options}

    Attributes
    ----------
    classes_ : ndarray
        The labels, in the order of probabilities.
    network_ : fastlstm.nn.Module
        With the parts ``words`` (of tokens), ``layer``, ``drop``, ``out`` and ``crf``.
    loss_curve_, validation_loss_curve_ : list of float
        By epoch.
    n_iter_, best_epoch_ : int
        Epochs, and that whose parameters were kept.
    n_features_in_ : int
        F, of numbers.
    vocabulary_ : dict
        Of tokens.

    Examples
    --------
    >>> X = [["we", "saw", "Ada", "Lovelace"], ["Ada", "saw", "us"]] * 20
    >>> y = [["O", "O", "B", "I"], ["B", "O", "O"]] * 20
    >>> tagger = SequenceTagger(embedding=16, random_state=0).fit(X, y)
    >>> tagger.predict([["we", "saw", "Ada"]])
    [['O', 'O', 'B']]
    """

    crf: bool = option(
        True, as_bool, "bool", "Whether the labels of a sequence are decided together."
    )
    class_weight: Any = option(
        None,
        as_class_weight,
        '"balanced", dict or None',
        "How much the loss counts each label, without a CRF: inversely to its frequency, or by "
        "the label.",
    )

    def _check_targets(self, y: Any, sequences: Sequences) -> Any:
        of_x = sequences.lengths
        check_sequences(y, len(of_x), "sequences of labels")
        labels = list(y)
        if getattr(y, "ndim", 0) == 2 and not np.array_equal(of_x, [len(tags) for tags in labels]):
            labels = [tags[:length] for tags, length in zip(labels, of_x, strict=True)]
        flat, counts = flat_labels(labels)
        if not np.array_equal(counts, of_x):
            i = int(np.flatnonzero(counts != of_x)[0])
            raise ValueError(f"y[{i}]: expected {of_x[i]} labels, one a step, got {counts[i]}")
        return flat, counts

    def _learn_targets(self, y: Any, classes: Any) -> None:
        self.classes_: Labels = np.unique(y[0] if classes is None else np.asarray(classes))

    def _read_targets(self, y: Any, options: Any) -> Targets:
        flat, counts = y
        if options.crf and options.class_weight is not None:
            raise ValueError(
                f"class_weight: expected None with a CRF, got {options.class_weight!r}"
            )
        places = encode_labels(flat, self.classes_)
        weights = class_weights(options.class_weight, self.classes_, flat)
        return _Tags(split(places, counts), weights)

    def _width(self) -> int:
        return len(self.classes_)

    def _parts(self, options: Any, random: np.random.Generator) -> dict[str, Any]:
        if not options.crf:
            return {}
        seed = int(random.integers(2**63))
        return {"crf": CRF(self._width(), dtype=options.dtype, seed=seed)}

    def predict(self, X: Any, lengths: Any = None) -> list[list[Any]]:
        """Return the labels of each sequence's steps.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        list of list
            A label a step.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """

        def say(scores: FloatArray, of_each: IndexArray) -> Iterable[list[Any]]:
            crf = self.network_.parts.get("crf")
            places = scores.argmax(axis=2) if crf is None else crf.decode(scores, of_each)
            columns = zip(places.T, of_each, strict=True)
            return (self.classes_[column[:length]].tolist() for column, length in columns)

        return self._of_each(X, lengths, say)

    def predict_proba(self, X: Any, lengths: Any = None) -> list[FloatArray]:
        """Return the probability of each label at each step; with a CRF, over all paths.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        list of ndarray
            (T_i, labels), in the order of ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """

        def say(scores: FloatArray, of_each: IndexArray) -> Iterable[FloatArray]:
            crf = self.network_.parts.get("crf")
            p = softmax(scores) if crf is None else crf.marginals(scores, of_each)
            return (p[:length, b].copy() for b, length in enumerate(of_each))

        return self._of_each(X, lengths, say)

    def score(self, X: Any, y: Any, lengths: Any = None) -> float:
        """Return the part of the labels that are right, of all steps of all sequences.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.
        """
        found = self.predict(X, lengths)
        if len(y) != len(found):
            raise ValueError(f"y: expected {len(found)} sequences of labels, got {len(y)}")
        right = steps = 0
        for labels, of_y in zip(found, y, strict=True):
            steps += len(labels)
            right += sum(a == b for a, b in zip(labels, of_y, strict=False))
        return right / steps

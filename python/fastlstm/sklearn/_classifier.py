"""A label for each sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.nn import cross_entropy

from ._inputs import Sequences
from ._labels import Labels, as_class_weight, class_weights, encode_labels, softmax
from ._network import Network
from ._options import estimator, option
from ._sequences import LabelEstimator, PooledEstimator, Targets


class _Classes:
    """(n,): the places of labels."""

    def __init__(self, places: IndexArray, weights: FloatArray | None) -> None:
        self._places = places
        self._weights = weights

    def loss(
        self, network: Network, scores: FloatArray, rows: IndexArray, lengths: IndexArray
    ) -> tuple[float, FloatArray, dict[str, Any]]:
        return *cross_entropy(scores, self._places[rows], class_weights=self._weights), {}


@estimator
class SequenceClassifier(ClassifierMixin, LabelEstimator, PooledEstimator):  # type: ignore[misc]
    """A label for each sequence: of texts, of sensors' data, of anything over time.

    A recurrent layer reads the sequence, pooling makes one vector of its outputs, and a linear
    layer the scores of the labels. The loss is their cross-entropy.

    Parameters
    ----------
    {options}

    Attributes
    ----------
    classes_ : ndarray
        The labels, in the order of probabilities.
    network_ : fastlstm.nn.Module
        With the parts ``words`` (of tokens), ``layer``, ``pool``, ``drop`` and ``out``.
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
    >>> texts = ["good", "very good", "bad", "not good", "very bad", "not bad"] * 10
    >>> labels = ["+", "+", "-", "-", "-", "+"] * 10
    >>> classifier = SequenceClassifier(embedding=16, tokenize="words", lr=0.01, random_state=0)
    >>> classifier.fit(texts, labels).predict(["very very good", "not very good"])
    array(['+', '-'], dtype='<U1')
    """

    class_weight: Any = option(
        None,
        as_class_weight,
        '"balanced", dict or None',
        "How much the loss counts each label: inversely to its frequency, or by the label.",
    )

    def _check_targets(self, y: Any, sequences: Sequences) -> Any:
        labels = column_or_1d(
            check_array(y, dtype=None, ensure_2d=False, input_name="y", estimator=self), warn=True
        )
        check_classification_targets(labels)
        check_consistent_length(sequences.lengths, labels)
        return labels

    def _learn_targets(self, y: Any, classes: Any) -> None:
        self.classes_: Labels = np.unique(y if classes is None else np.asarray(classes))

    def _read_targets(self, y: Any, options: Any) -> Targets:
        places = encode_labels(y, self.classes_)
        return _Classes(places, class_weights(options.class_weight, self.classes_, y))

    def _width(self) -> int:
        return len(self.classes_)

    def predict_proba(self, X: Any, lengths: Any = None) -> FloatArray:
        """Return the probability of each label.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        ndarray
            (n, labels), in the order of ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        return softmax(self._scores(X, lengths))

    def predict(self, X: Any, lengths: Any = None) -> Labels:
        """Return the likeliest label of each sequence.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        ndarray
            (n,).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        places = self._scores(X, lengths).argmax(axis=1)
        labels: Labels = self.classes_[places]
        return labels

    def score(self, X: Any, y: Any, lengths: Any = None) -> float:
        """Return the part of the labels that are right.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.
        """
        return float(accuracy_score(y, self.predict(X, lengths)))

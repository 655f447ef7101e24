"""Numbers for sequences."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import column_or_1d

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.nn import mse

from ._inputs import Sequences, moments
from ._network import Network
from ._options import estimator
from ._sequences import PooledEstimator, Targets

SelfT = TypeVar("SelfT", bound="SequenceRegressor")


class _Numbers:
    """(n, k): scaled numbers."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values

    def loss(
        self, network: Network, scores: FloatArray, rows: IndexArray, lengths: IndexArray
    ) -> tuple[float, FloatArray, dict[str, Any]]:
        return *mse(scores, self._values[rows]), {}


@estimator
class SequenceRegressor(RegressorMixin, PooledEstimator):  # type: ignore[misc]
    """A number, or several, for each sequence.

    A recurrent layer reads the sequence, pooling makes one vector of its outputs, and a linear
    layer the numbers. The loss is the squared error of numbers that are scaled by their mean and
    deviation in the training data.

    Parameters
    ----------
    {options}

    Attributes
    ----------
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
    >>> X = [np.full((T, 1), T / 10) for T in range(3, 30)]
    >>> regressor = SequenceRegressor(hidden_size=8, epochs=2, random_state=0)
    >>> regressor.fit(X, [len(x) for x in X]).predict(X[:2]).shape
    (2,)
    """

    _result = "prediction"

    def _check_targets(self, y: Any, sequences: Sequences) -> Any:
        y = check_array(y, dtype="numeric", ensure_2d=False, input_name="y", estimator=self)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_consistent_length(sequences.lengths, y)
        return y

    def _learn_targets(self, y: Any, classes: Any) -> None:
        self.y_mean_: FloatArray
        self.y_scale_: FloatArray
        self.y_mean_, self.y_scale_ = moments(y.reshape(len(y), -1))
        self.is_single_: bool = y.ndim == 1

    def _read_targets(self, y: Any, options: Any) -> Targets:
        values = y.astype(np.float64).reshape(len(y), -1)
        if values.shape[1] != len(self.y_mean_):
            raise ValueError(f"y: expected {len(self.y_mean_)} numbers each, got {values.shape[1]}")
        return _Numbers((values - self.y_mean_) / self.y_scale_)

    def _width(self) -> int:
        return len(self.y_mean_)

    def partial_fit(self: SelfT, X: Any, y: Any, lengths: Any = None) -> SelfT:
        """Learn from some more examples: one epoch, in which nothing is held out.

        Vocabulary and scales are those of the first call, or of ``fit``.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As of :meth:`fit`.
        """
        return self._fit_part(X, y, lengths)

    def predict(self, X: Any, lengths: Any = None) -> FloatArray:
        """Return a number for each sequence.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        ndarray of float64
            (n,), or (n, k) where y was.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        y = self._scores(X, lengths) * self.y_scale_ + self.y_mean_
        return y[:, 0] if self.is_single_ else y

    def score(self, X: Any, y: Any, lengths: Any = None) -> float:
        """Return R², the part of the variance of y that the predictions have.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.
        """
        return float(r2_score(y, self.predict(X, lengths)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

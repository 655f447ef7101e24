"""A linear-chain conditional random field: the tags of a sequence, decided together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm._checks import (
    MOST_SIZE,
    FloatArray,
    IndexArray,
    as_bool,
    as_int,
    check_shape,
)
from fastlstm.layers.options import Option, table_of

from ._block import DTYPE, Block, Gradients, Shapes, random_of
from ._sequences import Sequences, as_indices, as_reduction, as_sequences


def _as_tags(name: str, value: Any) -> int:
    """As a size, whose square is one, too."""
    return as_int(name, value, 1, int(MOST_SIZE**0.5))


class CRF(Block):
    """A linear-chain conditional random field over n tags.

    What a layer says of each step alone, the emissions, and how well neighbouring tags go together,
    the transitions, give a path of tags its score, and a probability among all paths:

    .. code-block:: text

        score(y) = start[y_0] + end[y_{T-1}]
                   + sum_t emissions[t, y_t] + sum_t transitions[y_{t-1}, y_t]
        p(y) = exp(score(y)) / (the sum of exp(score) over all paths)

    (Lafferty, McCallum and Pereira: Conditional Random Fields, ICML 2001.) Parameters have the
    names and shapes of the package pytorch-crf: ``start_transitions`` and ``end_transitions``,
    (n,), and ``transitions``, (n, n) of from and to. A transition of -inf is one that never is.

    Parameters
    ----------
    n : int
        The number of tags.
    batch_first : bool
        Whether sequences are (B, T, n) instead of (T, B, n).
    dtype : {"float32", "float64"}
        The type of parameters, emissions and results.
    seed : int, optional
        Makes the initial values, uniform in +-0.1, reproducible.

    Raises
    ------
    ValueError, TypeError
        An argument is not as stated.

    Examples
    --------
    >>> crf = CRF(3, seed=0)
    >>> emissions = np.zeros((4, 1, 3), np.float32)
    >>> emissions[[0, 1, 2, 3], 0, [0, 1, 1, 2]] = 5.0
    >>> loss, grads = crf.loss(emissions, [[0], [1], [1], [2]])
    >>> grads.x.shape, grads.params["transitions"].shape
    ((4, 1, 3), (3, 3))
    >>> crf.decode(emissions)[:, 0]
    array([0, 1, 1, 2])
    """

    n = Option[int](_as_tags, "The number of tags.")
    batch_first = Option[bool](as_bool, "Whether sequences are (B, T, n) instead of (T, B, n).")
    dtype = DTYPE

    def __init__(
        self,
        n: int,
        *,
        batch_first: bool = False,
        dtype: Any = "float32",
        seed: int | None = None,
    ) -> None:
        options = table_of(CRF).checked({"n": n, "batch_first": batch_first, "dtype": dtype})
        random = random_of(seed)
        values = {
            name: random.uniform(-0.1, 0.1, shape).astype(options["dtype"])
            for name, shape in self._shapes(options).items()
        }
        super().__init__(options, values)

    @classmethod
    def _shapes(cls, options: Mapping[str, Any]) -> Shapes:
        n = options["n"]
        return {"start_transitions": (n,), "end_transitions": (n,), "transitions": (n, n)}

    # --- calls --------------------------------------------------------------------------------

    def loss(
        self, emissions: Any, tags: Any, lengths: Any = None, *, reduction: str = "mean"
    ) -> tuple[float, Gradients]:
        """Return -log p of the tags, and its gradients.

        Parameters
        ----------
        emissions : array_like
            (T, B, n), or (B, T, n) with ``batch_first``: a score for each tag at each step.
        tags : array_like of int
            (T, B), or (B, T): from 0 to n - 1. What is past a sequence's end is not read.
        lengths : array_like of int, optional
            (B,), from 0 to T.
        reduction : {"mean", "sum"}
            Of the losses of sequences; the mean is over those that have steps.

        Returns
        -------
        loss : float
            Computed in float64 from the sums' logarithms; 0.0 of no sequences. Infinite where the
            tags have a score of -inf; NaN where all paths have, or a score is NaN.
        grads : Gradients

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, type or value than stated.

        Notes
        -----
        Gradients have the same bits for any number of threads.
        """
        x = self._sequences(emissions, lengths)
        tags = self._tags(tags, x)
        mean = as_reduction(reduction) == "mean"
        count = max(1, int(np.count_nonzero(x.all_lengths()))) if mean else 1
        gradients = {name: np.empty(a.shape, self.dtype) for name, a in self._params.items()}
        d_x = np.empty(x.values.shape, self.dtype)
        losses = np.empty(x.B)
        _core.crf_loss(
            x.values,
            x.batch_first,
            x.lengths,
            *self._scores(),
            tags,
            1.0 / count,
            d_x,
            gradients["start_transitions"],
            gradients["end_transitions"],
            gradients["transitions"],
            losses,
        )
        return float(losses.sum()) / count, Gradients(d_x, gradients)

    def decode(self, emissions: Any, lengths: Any = None) -> IndexArray:
        """Return the tags with the highest score, by Viterbi's algorithm.

        Parameters
        ----------
        emissions, lengths
            As of :meth:`loss`.

        Returns
        -------
        ndarray of int64
            (T, B), or (B, T): tags, and -1 past a sequence's end. Of paths with equal scores, that
            with the lowest tag where they differ last. With NaN among the scores the tags mean
            nothing.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, type or value than stated.
        """
        x = self._sequences(emissions, lengths)
        tags = np.empty(x.step_shape, np.int64)
        _core.crf_decode(x.values, x.batch_first, x.lengths, *self._scores(), tags)
        return tags

    def marginals(self, emissions: Any, lengths: Any = None) -> FloatArray:
        """Return the probability of each tag at each step, over all paths.

        Parameters
        ----------
        emissions, lengths
            As of :meth:`loss`.

        Returns
        -------
        ndarray
            Like the emissions; zero past a sequence's end.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, type or value than stated.
        """
        x = self._sequences(emissions, lengths)
        p = np.empty(x.values.shape, self.dtype)
        _core.crf_marginals(x.values, x.batch_first, x.lengths, *self._scores(), p)
        return p

    def _scores(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        params = self._params
        return params["start_transitions"], params["end_transitions"], params["transitions"]

    def _sequences(self, emissions: Any, lengths: Any) -> Sequences:
        return as_sequences("emissions", emissions, self.n, lengths, self.batch_first, self.dtype)

    def _tags(self, value: Any, x: Sequences) -> IndexArray:
        tags = as_indices("tags", value)
        check_shape("tags", tags, x.step_shape)
        read = tags if x.lengths is None else tags[x.inside()]
        if read.size and (read.min() < 0 or read.max() >= self.n):
            raise ValueError(
                f"tags: expected values from 0 to {self.n - 1}, got {read.min()} to {read.max()}"
            )
        return tags

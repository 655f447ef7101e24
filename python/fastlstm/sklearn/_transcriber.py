"""Labels for sequences, fewer than steps, which say no times: speech, handwriting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, IndexArray
from fastlstm.nn import ctc, ctc_decode

from ._inputs import Sequences
from ._labels import Labels, check_sequences, encode_labels, flat_labels, split
from ._network import Network
from ._options import as_count, estimator, option
from ._sequences import LabelEstimator, StepwiseEstimator, Targets


class _Transcripts:
    """The places of labels, from 1: 0 is the blank."""

    def __init__(self, places: Sequences) -> None:
        self._places = places

    def loss(
        self, network: Network, scores: FloatArray, rows: IndexArray, lengths: IndexArray
    ) -> tuple[float, FloatArray, dict[str, Any]]:
        targets, counts = self._places.batch(rows)
        return *ctc(scores, lengths, targets.T, counts), {}


@estimator
class SequenceTranscriber(LabelEstimator, StepwiseEstimator):
    """A few labels for each sequence, of which nobody says when: speech, handwriting.

    A recurrent layer reads the sequence, and a linear layer makes scores of the labels, and of none
    of them, at each step. The loss is connectionist temporal classification
    (:func:`fastlstm.nn.ctc`).

    Parameters
    ----------
    {options}

    Attributes
    ----------
    classes_ : ndarray
        The labels; scores have the blank before them.
    is_text_ : bool
        Whether the labels of a sequence are a text's characters.
    network_ : fastlstm.nn.Module
        With the parts ``words`` (of tokens), ``layer``, ``drop`` and ``out``.
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
    >>> random = np.random.default_rng(0)
    >>> y = ["".join(random.choice(list("abc"), 3)) for _ in range(300)]
    >>> X = [np.repeat(np.eye(3)[[ord(c) - 97 for c in text]], 3, axis=0) for text in y]
    >>> X = [x + random.normal(0, 0.1, x.shape) for x in X]
    >>> transcriber = SequenceTranscriber(hidden_size=32, lr=0.01, random_state=0).fit(X, y)
    >>> transcriber.predict([np.repeat(np.eye(3)[[0, 1, 2]], 3, axis=0)])
    ['abc']
    """

    beam_size: int = option(
        1,
        as_count,
        "int",
        "1: predictions are the likeliest path's labels. Above: a search that sums over paths "
        "(fastlstm.nn.ctc_decode), which takes longer.",
    )

    def _check_targets(self, y: Any, sequences: Sequences) -> Any:
        of_x = sequences.lengths
        check_sequences(y, len(of_x), "texts or sequences of labels")
        flat, counts = flat_labels(list(y))
        if flat.size == 0:
            raise ValueError("y: expected labels, got none")
        ends = np.cumsum(counts)
        # Between two equal ones a step is none.
        repeats = np.concatenate([[0], np.cumsum(flat[1:] == flat[:-1])])
        first, last = ends - counts, np.maximum(ends - 1, 0)
        needed = counts + repeats[last] - repeats[np.minimum(first, last)]
        if (needed > of_x).any():
            i = int(np.flatnonzero(needed > of_x)[0])
            raise ValueError(
                f"y[{i}]: expected labels for {of_x[i]} steps at most, got {counts[i]}, which need "
                f"{needed[i]} (equal neighbours have a step between them)"
            )
        return flat, counts, all(isinstance(labels, str) for labels in y)

    def _learn_targets(self, y: Any, classes: Any) -> None:
        flat, _, self.is_text_ = y
        self.classes_: Labels = np.unique(flat if classes is None else np.asarray(classes))

    def _read_targets(self, y: Any, options: Any) -> Targets:
        flat, counts, _ = y
        return _Transcripts(split(encode_labels(flat, self.classes_) + 1, counts))

    def _width(self) -> int:
        return len(self.classes_) + 1

    def predict(self, X: Any, lengths: Any = None) -> list[Any]:
        """Return the labels of each sequence.

        Parameters
        ----------
        X, lengths
            As of :meth:`fit`.

        Returns
        -------
        list of str or of list
            As y was: texts, or lists of labels.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            There was no ``fit``.
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """

        def say(scores: FloatArray, of_each: IndexArray) -> Iterable[Any]:
            for found in ctc_decode(scores, of_each, beam_size=self.beam_size):
                labels = self.classes_[found.tokens - 1].tolist()
                yield "".join(labels) if self.is_text_ else labels

        return self._of_each(X, lengths, say)

    def score(self, X: Any, y: Any, lengths: Any = None) -> float:
        """Return 1 - the label error rate: insertions, deletions and changes for each label of y.

        It is below 0 where there are more of these than labels.

        Parameters
        ----------
        X, y, lengths
            As of :meth:`fit`.
        """
        found = self.predict(X, lengths)
        if len(y) != len(found):
            raise ValueError(f"y: expected {len(found)} sequences of labels, got {len(y)}")
        errors = sum(edit_distance(a, b) for a, b in zip(found, y, strict=True))
        return 1 - errors / max(sum(len(labels) for labels in y), 1)


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the fewest insertions, deletions and changes that make one sequence of the other.

    Parameters
    ----------
    a, b : str, or sequence of labels
        Labels are hashable.

    Returns
    -------
    int
        The Levenshtein distance: divided by the labels that there should be, the label error rate
        of :meth:`SequenceTranscriber.score`.

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3
    """
    places: dict[Any, int] = {}
    x, y = (np.array([places.setdefault(item, len(places)) for item in s], int) for s in (a, b))
    columns = np.arange(len(y) + 1)
    row = columns.copy()  # of the beginning of a that was looked at, to each beginning of b
    for i, item in enumerate(x, 1):
        new = np.minimum(row + 1, np.concatenate([[i], row[:-1] + (y != item)]))
        row = np.minimum.accumulate(new - columns) + columns  # insertions
    return int(row[-1])

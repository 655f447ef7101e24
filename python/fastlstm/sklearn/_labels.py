"""Labels and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import compute_class_weight

from fastlstm._checks import FloatArray, IndexArray

from ._inputs import Sequences

Labels = npt.NDArray[Any]
_MOST_NAMED = 10


def encode_labels(y: Labels, classes: Labels) -> IndexArray:
    """Return the places of labels among sorted classes.

    Raises
    ------
    ValueError
        There are others.
    """
    comparable = (y.dtype.kind in "US") == (classes.dtype.kind in "US")
    places = np.zeros(len(y), np.int64)
    if comparable:
        places = np.minimum(np.searchsorted(classes, y), len(classes) - 1).astype(np.int64)
    others = classes[places] != y
    if np.any(others):
        new, known = (
            ", ".join(map(repr, np.unique(labels).tolist()[:_MOST_NAMED]))
            for labels in (y[others] if comparable else y, classes)
        )
        raise ValueError(f"y: expected labels that were there at first ({known}), got {new}")
    return places


def check_sequences(y: Any, n: int, what: str) -> None:
    """Raise TypeError or ValueError unless y has something for n sequences; `what` it is."""
    if isinstance(y, str) or not hasattr(y, "__len__"):
        raise TypeError(f"y: expected {what}, got {type(y).__name__}")
    if len(y) != n:
        raise ValueError(f"y: expected {n} sequences of labels, as of X, got {len(y)}")


def flat_labels(y: Sequence[Any]) -> tuple[Labels, IndexArray]:
    """Return the labels of all sequences in one array, and how many each has.

    Raises
    ------
    TypeError
        They are no sequences of labels: text or integers.
    """
    for i, labels in enumerate(y):
        if not hasattr(labels, "__len__") or not hasattr(labels, "__getitem__"):
            raise TypeError(f"y[{i}]: expected a sequence of labels, got {type(labels).__name__}")
    counts = np.array([len(labels) for labels in y], np.int64)
    flat = [label for labels in y for label in labels]
    is_text = {isinstance(label, str) for label in flat}
    array = np.array(flat if flat else np.zeros(0, np.int64))
    if len(is_text) > 1 or array.ndim != 1 or array.dtype.kind not in "iubU":
        kinds = ", ".join(sorted({type(label).__name__ for label in flat}))
        raise TypeError(f"y: expected labels that are all text or all integers, got {kinds}")
    return array, counts


def split(flat: npt.NDArray[Any], counts: IndexArray) -> Sequences:
    """Return the sequences that were joined to one array."""
    return Sequences(flat, np.cumsum(counts) - counts, counts)


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities, in the logits' type, computed in float64."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores.astype(logits.dtype)


def class_weights(how: Any, classes: Labels, y: Labels) -> FloatArray | None:
    """Return how much the loss counts each class; "balanced" by those that there are in y."""
    if how is None:
        return None
    there = np.isin(classes, y) if how == "balanced" else np.ones(len(classes), np.bool_)
    weights = np.ones(len(classes))
    weights[there] = compute_class_weight(how, classes=classes[there], y=y)
    return weights


def as_class_weight(name: str, value: Any) -> Any:
    """Return "balanced", a mapping of labels to weights, or None."""
    if value is not None and value != "balanced" and not isinstance(value, dict):
        raise ValueError(f"{name}: expected 'balanced', a dict or None, got {value!r}")
    return value

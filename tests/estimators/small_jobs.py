"""A small job for each estimator, which it can learn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from fastlstm.sklearn import (
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    SequenceTranscriber,
)


class Job(NamedTuple):
    """X and y, and an estimator with options that are enough for them."""

    estimator: Any
    X: Any
    y: Any


def steps(n: int, least: int = 2, most: int = 12, seed: int = 0) -> list[np.ndarray]:
    """n sequences of two features."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((T, 2)) for T in rng.integers(least, most + 1, n)]


def words(n: int, seed: int = 0) -> list[list[str]]:
    """n sequences of ten words."""
    rng = np.random.default_rng(seed)
    return [list(rng.choice(list("abcdefghij"), T)) for T in rng.integers(2, 13, n)]


def classify(**options: Any) -> Job:
    """Which of two features is larger on the whole."""
    X = steps(200)
    y = np.where([x[:, 0].mean() > x[:, 1].mean() for x in X], "first", "second")
    options = {"hidden_size": 8, "epochs": 15, "lr": 0.02, "random_state": 0, **options}
    return Job(SequenceClassifier(**options), X, y)


def classify_texts(**options: Any) -> Job:
    """Whether a word is there."""
    X = words(200)
    y = np.array([1 if "a" in x else 7 for x in X])
    defaults = {"hidden_size": 8, "embedding": 6, "epochs": 15, "lr": 0.02, "random_state": 0}
    return Job(SequenceClassifier(**{**defaults, **options}), X, y)


def regress(**options: Any) -> Job:
    """A mean, on a scale of its own."""
    X = steps(200)
    y = np.array([1000 + 50 * x[:, 0].mean() for x in X])
    options = {"hidden_size": 8, "epochs": 25, "lr": 0.02, "random_state": 0, **options}
    return Job(SequenceRegressor(**options), X, y)


def tag(**options: Any) -> Job:
    """What was before."""
    X = words(100)
    y = [["O", *("A" if word == "a" else "O" for word in x[:-1])] for x in X]
    defaults = {"hidden_size": 8, "embedding": 6, "epochs": 15, "lr": 0.02, "random_state": 0}
    return Job(SequenceTagger(**{**defaults, **options}), X, y)


def transcribe(**options: Any) -> Job:
    """Letters that each take some steps."""
    rng = np.random.default_rng(0)
    y = ["".join(rng.choice(list("xyz"), n)) for n in rng.integers(1, 5, 150)]
    X = []
    for text in y:
        clean = np.repeat(np.eye(4)[["xyz".index(c) for c in text]], 3, axis=0)
        clean[::3] = np.eye(4)[3]
        X.append(clean + 0.1 * rng.standard_normal(clean.shape))
    options = {"hidden_size": 16, "epochs": 25, "lr": 0.02, "random_state": 0, **options}
    return Job(SequenceTranscriber(**options), X, y)


JOBS = {
    "classify": classify,
    "classify_texts": classify_texts,
    "regress": regress,
    "tag": tag,
    "transcribe": transcribe,
}
# Where it does not matter how well they learn.
BRIEF = {"epochs": 2, "early_stopping": None}

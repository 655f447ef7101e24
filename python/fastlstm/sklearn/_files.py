"""Estimators from the files that they wrote: which classes there are."""

from __future__ import annotations

from typing import Any

from ._classifier import SequenceClassifier
from ._estimator import Estimator, load_as
from ._forecaster import Forecaster
from ._generator import SequenceGenerator
from ._regressor import SequenceRegressor
from ._tagger import SequenceTagger
from ._transcriber import SequenceTranscriber

ESTIMATORS: dict[str, type[Estimator]] = {
    cls.__name__: cls
    for cls in (
        Forecaster,
        SequenceClassifier,
        SequenceGenerator,
        SequenceRegressor,
        SequenceTagger,
        SequenceTranscriber,
    )
}


def load_estimator(path: str, name: str) -> Any:
    """Load an estimator of the class that a file names.

    Raises
    ------
    ValueError
        The file is damaged, or there is no such class.
    OSError
        It cannot be read.
    """
    try:
        if name not in ESTIMATORS:
            raise ValueError(f"no class {name!r}")
        return load_as(ESTIMATORS[name], path)
    except (
        *(KeyError, TypeError, ValueError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise ValueError(f"{path}: damaged, or of another version of fastlstm: {error}") from error

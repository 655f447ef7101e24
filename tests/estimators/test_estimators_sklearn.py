"""What scikit-learn asks of estimators, and does with them."""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastlstm.sklearn import (
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    SequenceTranscriber,
)
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from small_jobs import BRIEF, JOBS, classify, classify_texts, regress, tag

# Enough for what the checks have to be learned.
LEARNS = {"hidden_size": 8, "epochs": 30, "lr": 0.03, "early_stopping": None, "pooling": "mean"}
# A 2-D X is sequences of one feature. Their lengths may differ from those in training, where the
# checks want another number of columns to be an error.
WITH_OTHER_LENGTHS = dict.fromkeys(
    (
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_estimators_partial_fit_n_features",
        "check_classifiers_train",
    ),
    "columns of a 2-D X are steps, not features: another number of them is no error",
)


def expected_to_fail(estimator: Any) -> dict[str, str]:
    """The checks that sequences cannot meet, and why."""
    return WITH_OTHER_LENGTHS


@pytest.mark.slow
@parametrize_with_checks(
    [SequenceClassifier(**LEARNS), SequenceRegressor(**LEARNS)],
    expected_failed_checks=expected_to_fail,
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that nothing can be learned of
        check(estimator)


def test_what_fails_fails_for_that_reason_alone() -> None:
    """The checks above end at the first failure: this is the last thing that they look at."""
    check = functools.partial(estimator_checks.check_classifiers_train, "SequenceClassifier")
    estimator = SequenceClassifier(**LEARNS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(AssertionError, match="number of features in"):
            check(estimator)


# Of the checks those that do not make a y, which here is a sequence for each.
WITHOUT_Y = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
)


@pytest.mark.parametrize("cls", [SequenceTagger, SequenceTranscriber])
@pytest.mark.parametrize("name", WITHOUT_Y)
def test_checks_that_make_no_y(cls: Any, name: str) -> None:
    check = getattr(estimator_checks, name)
    check(cls.__name__, cls())


def test_kinds() -> None:
    assert is_classifier(SequenceClassifier())
    assert is_regressor(SequenceRegressor())
    assert not is_classifier(SequenceTagger())


# --- what it does with them -----------------------------------------------------------------------


@pytest.mark.parametrize("name", JOBS)
def test_clones_and_pickles(name: str) -> None:
    estimator, X, y = JOBS[name](num_layers=2, zoneout=0.1, **BRIEF)
    assert clone(estimator).get_params() == estimator.get_params()
    estimator.fit(X, y)
    again = pickle.loads(pickle.dumps(estimator))
    assert again.get_params() == estimator.get_params()
    assert again.loss_curve_ == estimator.loss_curve_
    assert list(again.predict(X)) == list(estimator.predict(X))
    # It goes on as the other does, with its optimiser and its random numbers.
    assert again.partial_fit(X, y).loss_curve_ == estimator.partial_fit(X, y).loss_curve_
    assert not hasattr(clone(estimator), "network_")


def test_cross_validation() -> None:
    for make in (classify, classify_texts, regress):
        estimator, X, y = make()
        assert cross_val_score(estimator, X, y, cv=3).mean() > 0.6
    estimator, X, y = tag()
    scores = cross_val_score(estimator, X, np.array(y, object), cv=3)
    assert scores.mean() > 0.8


def test_predictions_out_of_folds() -> None:
    estimator, X, y = classify()
    p = cross_val_predict(estimator, X, y, cv=3, method="predict_proba")
    assert p.shape == (200, 2)
    assert ((p[:, 1] > 0.5) == (y == "second")).mean() > 0.8


def test_grid_search() -> None:
    estimator, X, y = classify(epochs=4)
    search = GridSearchCV(estimator, {"cell": ["gru", "rnn"], "lr": [1e-6, 0.02]}, cv=2)
    search.fit(X, y)
    assert search.best_params_["lr"] == 0.02
    assert search.best_estimator_.score(X, y) > 0.8
    assert search.predict(X[:3]).shape == (3,)


def test_pipelines() -> None:
    X, y = np.random.default_rng(0).normal(3, 5, (150, 6)), [0, 1] * 75
    X[::2] = np.sort(X[::2])
    classifier = SequenceClassifier(**{**LEARNS, "standardize": False}, random_state=0)
    pipeline = make_pipeline(StandardScaler(), classifier)
    assert pipeline.fit(X, y).score(X, y) > 0.8
    estimator, X, y = classify_texts()
    lower = FunctionTransformer(lambda texts: [[word.lower() for word in text] for text in texts])
    shouted = [[word.upper() for word in text] for text in X]
    pipeline = make_pipeline(lower, estimator).fit(shouted, y)
    assert pipeline.score(shouted, y) > 0.9
    assert list(pipeline.predict(shouted)) == list(estimator.predict(X))


def test_options_are_described() -> None:
    """Each argument has its line in the docstring, and is on the page."""
    page = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text()
    for cls in (SequenceClassifier, SequenceRegressor, SequenceTagger, SequenceTranscriber):
        assert "{options}" not in cls.__doc__
        for name in cls().get_params():
            assert f"\n{name} : " in cls.__doc__, name
            assert re.search(rf"`{name}\b", page), name

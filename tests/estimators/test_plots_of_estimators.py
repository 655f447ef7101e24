"""Plots of estimators show their numbers."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from fastlstm import plot
from fastlstm.sklearn import (
    Forecaster,
    SequenceClassifier,
    SequenceGenerator,
    SequenceTagger,
    SequenceTranscriber,
)

SMALL: dict[str, Any] = {"hidden_size": 8, "epochs": 4, "random_state": 0}
WORDS = [["good", "very", "good"], ["bad"], ["not", "good"], ["bad", "bad"]] * 10
LABELS = ["+", "-", "-", "-"] * 10
SERIES = np.sin(np.arange(150) / 5) + 0.1 * np.random.default_rng(0).standard_normal(150)


def lines_of(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}


def test_training() -> None:
    classifier = SequenceClassifier(**SMALL, embedding=4).fit(WORDS, LABELS)
    (axes,) = plot.training(classifier).axes
    lines = lines_of(axes)
    np.testing.assert_array_equal(lines["training"], classifier.loss_curve_)
    np.testing.assert_array_equal(lines["held out"], classifier.validation_loss_curve_)
    (kept,) = (line for line in axes.lines if line.get_label() == "kept")
    assert set(kept.get_xdata()) == {classifier.best_epoch_}
    (axes,) = plot.training(classifier.set_params(early_stopping=None).fit(WORDS, LABELS)).axes
    assert set(lines_of(axes)) == {"training"}


def test_training_of_a_forecaster_shows_what_it_corrects() -> None:
    forecaster = Forecaster(**SMALL, window=8, horizon=4).fit(SERIES)
    (axes,) = plot.training(forecaster).axes
    assert set(lines_of(axes)["simple forecast, held out"]) == {forecaster.baseline_loss_}


@pytest.mark.parametrize("normalize", [False, True])
def test_confusion(normalize: bool) -> None:
    classifier = SequenceClassifier(**SMALL, embedding=4).fit(WORDS, LABELS)
    true = [*LABELS[:-2], "?", "?"]  # never seen
    figure = plot.confusion(classifier, WORDS, true, normalize=normalize)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["+", "-", "?"]
    want = np.zeros((3, 3))
    for t, p in zip(true, classifier.predict(WORDS), strict=True):
        want["+-?".index(t), "+-?".index(p)] += 1
    if normalize:
        want /= want.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(axes.images[0].get_array(), want)
    texts = [text.get_text() for text in axes.texts]
    assert texts == [f"{v:.2f}" if normalize else f"{v:.0f}" for v in want.ravel()]


def test_confusion_of_steps() -> None:
    tags = [["A" if word == "good" else "O" for word in words] for words in WORDS]
    tagger = SequenceTagger(**SMALL, embedding=4).fit(WORDS, tags)
    image = plot.confusion(tagger, WORDS, tags).axes[0].images[0].get_array()
    assert image.shape == (2, 2)
    assert image.sum() == sum(map(len, WORDS))
    np.testing.assert_array_equal(image.sum(axis=1), [30, 50])
    with pytest.raises(ValueError, match="y: expected a label for each of 80 steps of X"):
        plot.confusion(tagger, WORDS, [*tags[:-1], ["O"]])
    shifted = [[tag for of in tags for tag in of][: len(tags[0]) + 1], tags[1][:-1], *tags[2:]]
    with pytest.raises(ValueError, match="y: expected a label for each of 80 steps of X"):
        plot.confusion(tagger, WORDS, shifted)


def test_gates_of_a_sequence() -> None:
    classifier = SequenceClassifier(**SMALL, embedding=4).fit(WORDS, LABELS)
    ((forward, backward),) = classifier.trace(["not", "very", "good"])
    shown = plot.gates(forward).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, forward.i.T)
    assert shown.shape == (8, 3)
    vectors = classifier.network_.words(
        np.array([classifier.vocabulary_[word] for word in ("not", "very", "good")])
    )
    want = np.concatenate([forward.h, backward.h], axis=1)
    np.testing.assert_allclose(classifier.network_.layer(vectors)[0], want, atol=1e-6)
    generator = SequenceGenerator(**SMALL).fit(["abc"] * 20)
    assert len(plot.gates(generator.trace("ab")[0][0]).axes) == 12


def test_forecast() -> None:
    forecaster = Forecaster(**SMALL, window=8, horizon=4, quantiles=(0.1, 0.3, 0.5, 0.7, 0.9))
    forecaster.fit(SERIES)
    (axes,) = plot.forecast(forecaster, SERIES, actual=[0.5, 0.25], past=20).axes
    lines = lines_of(axes)
    np.testing.assert_array_equal(lines["past"], SERIES[-20:])
    np.testing.assert_array_equal(lines["forecast"], forecaster.predict())
    np.testing.assert_array_equal(lines["actual"], [0.5, 0.25])
    (line,) = (line for line in axes.lines if line.get_label() == "forecast")
    assert line.get_xdata().tolist() == [150, 151, 152, 153]
    assert [band.get_label() for band in axes.collections] == ["0.1 to 0.9", "0.3 to 0.7"]
    lower, upper = forecaster.predict_interval()
    ys = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert ys.min() == pytest.approx(lower.min())
    assert ys.max() == pytest.approx(upper.max())


@pytest.mark.parametrize("kind", ["dates", "periods"])
def test_forecast_of_pandas(kind: str) -> None:
    pd = pytest.importorskip("pandas")
    index = pd.date_range("2001-01-01", periods=150, freq="MS")
    labels = index if kind == "dates" else index.to_period("M")
    y = pd.DataFrame({"a": SERIES, "b": SERIES[::-1]}, labels)
    forecaster = Forecaster(**SMALL, window=8, horizon=4).fit(y)
    figure = plot.forecast(forecaster, y)
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "b"]
    line = figure.axes[1].lines[1]
    np.testing.assert_array_equal(line.get_ydata(), forecaster.predict()["b"])
    assert pd.DatetimeIndex(line.get_xdata())[0] == pd.Timestamp("2013-07-01")
    assert len(figure.axes[0].lines[0].get_xdata()) == 16


def test_what_is_refused() -> None:
    forecaster = Forecaster(**SMALL, window=8, horizon=4)
    with pytest.raises(Exception, match="not fitted yet"):
        plot.training(forecaster)
    with pytest.raises(TypeError, match=r"estimator: expected one of fastlstm\.sklearn, got LSTM"):
        plot.training(fastlstm.LSTM(3, 4))
    forecaster.fit(SERIES)
    with pytest.raises(TypeError, match="estimator: Forecaster has no classes_"):
        plot.confusion(forecaster, SERIES, SERIES)
    transcriber = SequenceTranscriber(**SMALL, embedding=4).fit(WORDS, ["a"] * len(WORDS))
    with pytest.raises(TypeError, match="estimator: SequenceTranscriber has no predict_proba"):
        plot.confusion(transcriber, WORDS, ["a"] * len(WORDS))
    with pytest.raises(ValueError, match=r"actual: expected \(n, 1\) with n of at most 4"):
        plot.forecast(forecaster, SERIES, actual=np.zeros(5))
    with pytest.raises(ValueError, match="y: expected one series, got a list"):
        plot.forecast(forecaster, [SERIES, SERIES])
    classifier = SequenceClassifier(**SMALL, embedding=4).fit(WORDS, LABELS)
    with pytest.raises(TypeError, match="estimator: SequenceClassifier has no horizon"):
        plot.forecast(classifier, SERIES)
    with pytest.raises(ValueError, match="y: expected 40 labels, as of X, got 3"):
        plot.confusion(classifier, WORDS, LABELS[:3])


class Mine(SequenceClassifier):
    """A class of a user's."""


def test_a_derived_class() -> None:
    classifier = Mine(**SMALL, embedding=4).fit(WORDS, LABELS)
    assert lines_of(plot.training(classifier).axes[0])

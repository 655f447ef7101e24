"""X and y, however they are passed, and what is said where they are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastlstm.embeddings import Embeddings
from fastlstm.sklearn import (
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    SequenceTranscriber,
)
from fastlstm.sklearn._inputs import TOKENIZERS, Sequences, join
from sklearn.exceptions import NotFittedError
from small_jobs import BRIEF, JOBS, classify, classify_texts, steps, tag, transcribe, words

OF_NUMBERS = {"hidden_size": 4, "random_state": 0, **BRIEF}
OF_TOKENS = {"embedding": 3, **OF_NUMBERS}


def fitted(X: Any, y: Any, lengths: Any = None, **options: Any) -> np.ndarray:
    """The probabilities of X after a fit."""
    estimator = SequenceClassifier(**OF_NUMBERS, **options).fit(X, y, lengths)
    return estimator.predict_proba(X, lengths)


# --- the same sequences ---------------------------------------------------------------------------


def test_an_array_is_sequences_of_one_length() -> None:
    X, y = np.random.default_rng(0).standard_normal((20, 5, 3)), [0, 1] * 10
    expected = fitted(list(X), y)
    assert np.array_equal(fitted(X, y), expected)
    assert np.array_equal(fitted(tuple(x.tolist() for x in X), y), expected)
    assert np.array_equal(fitted(np.asfortranarray(X), y), expected)


def test_lengths_say_what_of_an_array_counts() -> None:
    rng = np.random.default_rng(0)
    X, y, lengths = rng.standard_normal((20, 6, 3)), [0, 1] * 10, rng.integers(1, 7, 20)
    ragged = [x[:length] for x, length in zip(X, lengths, strict=True)]
    for i, length in enumerate(lengths):
        X[i, length:] = (np.nan, np.inf, 1e300)[i % 3]
    assert np.array_equal(fitted(X, y, lengths), fitted(ragged, y))


def test_two_axes_are_sequences_of_one_feature() -> None:
    X, y = np.random.default_rng(0).standard_normal((20, 5)), [0, 1] * 10
    expected = fitted(X[:, :, None], y)
    for same in (X, list(X), X.tolist()):
        assert np.array_equal(fitted(same, y), expected)
    estimator = SequenceClassifier(**OF_NUMBERS).fit(X, y)
    assert estimator.n_features_in_ == 1
    assert estimator.predict(X[:, :3]).shape == (20,)  # another length


def test_an_array_of_objects_is_a_list() -> None:
    X, y = steps(20), [0, 1] * 10
    objects = np.empty(20, object)
    objects[:] = X
    assert np.array_equal(fitted(objects, y), fitted(X, y))


def test_frames_and_series_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = np.random.default_rng(0).standard_normal((20, 5)), ["no", "yes"] * 10
    expected = fitted(X, y)
    assert np.array_equal(fitted(pandas.DataFrame(X), pandas.Series(y)), expected)
    X = steps(20)
    frames = [pandas.DataFrame(x, columns=["a", "b"]) for x in X]
    assert np.array_equal(fitted(frames, y), fitted(X, y))
    texts = [" ".join(x) for x in words(20)]
    options = {"embedding": 3, "tokenize": "space"}
    assert np.array_equal(fitted(pandas.Series(texts), y, **options), fitted(texts, y, **options))


def test_numbers_are_scaled_by_what_was_seen() -> None:
    X, y = [x * [1, 1e6] + [1e8, 3] for x in steps(40)], [0, 1] * 20
    steps_of_all = np.concatenate(X)
    estimator = SequenceClassifier(**OF_NUMBERS).fit(X, y)
    np.testing.assert_allclose(estimator.mean_, steps_of_all.mean(axis=0))
    np.testing.assert_allclose(estimator.scale_, steps_of_all.std(axis=0))
    scaled = [(x - estimator.mean_) / estimator.scale_ for x in X]
    plain = SequenceClassifier(standardize=False, **OF_NUMBERS).fit(scaled, y)
    assert plain.mean_ is None
    assert np.array_equal(plain.predict_proba(scaled), estimator.predict_proba(X))


def test_a_feature_that_never_changes_is_not_divided_by_nothing() -> None:
    X = [np.column_stack([x, np.full(len(x), 0.1)]) for x in steps(20)]
    estimator = SequenceClassifier(**OF_NUMBERS).fit(X, [0, 1] * 10)
    assert estimator.scale_[2] == 1
    assert np.isfinite(estimator.predict_proba(X)).all()


def test_inputs_are_not_changed() -> None:
    X = np.random.default_rng(0).standard_normal((20, 5, 3)).astype(np.float32)
    y = np.array([0, 1] * 10)
    before = X.copy(), y.copy()
    X.setflags(write=False)
    y.setflags(write=False)
    fitted(X, y, standardize=False)
    assert np.array_equal(X, before[0])
    assert np.array_equal(y, before[1])


def test_batches_of_sequences() -> None:
    sequences = join([np.arange(n) + 10 * n for n in (3, 1, 4)])
    x, lengths = sequences.batch(np.array([2, 0]))
    assert x.T.tolist() == [[40, 41, 42, 43], [30, 31, 32, 32]]
    assert lengths.tolist() == [4, 3]
    with_none = Sequences(np.arange(3), np.array([0, 0, 3]), np.array([0, 3, 0]))
    x, lengths = with_none.batch(np.array([0, 1, 2]))
    assert x.shape == (3, 3)
    assert x[:, 1].tolist() == [0, 1, 2]


# --- tokens ---------------------------------------------------------------------------------------


def test_texts_are_tokens_of_a_tokenizer() -> None:
    y = [0, 1] * 10
    X = words(20)
    texts = [" ".join(x) for x in X]
    expected = fitted(X, y, embedding=3)
    for tokenize in ("space", "words", str.split, lambda text: iter(text.split())):
        assert np.array_equal(fitted(texts, y, embedding=3, tokenize=tokenize), expected)
    joined = ["".join(x) for x in X]
    assert np.array_equal(fitted(joined, y, embedding=3, tokenize="characters"), expected)
    # Tokens are tokens, with or without one.
    assert np.array_equal(fitted(X, y, embedding=3, tokenize="words"), expected)


def test_words_of_a_text() -> None:
    split = TOKENIZERS["words"]
    assert split("Don't stop, Ada\u2019s 2nd Äpfel!") == [
        *("don't", "stop", ",", "ada\u2019s", "2nd", "äpfel", "!")
    ]
    assert split("  \n ") == []


def test_integers_are_tokens_where_there_is_an_embedding() -> None:
    rng = np.random.default_rng(0)
    X, y, lengths = rng.integers(0, 9, (20, 6)), [0, 1] * 10, rng.integers(1, 7, 20)
    ragged = [x[:length].tolist() for x, length in zip(X, lengths, strict=True)]
    expected = fitted(ragged, y, embedding=3)
    assert np.array_equal(fitted(X, y, lengths, embedding=3), expected)
    assert np.array_equal(fitted([np.array(x) for x in ragged], y, embedding=3), expected)


def test_the_vocabulary_is_what_comes_often_enough() -> None:
    X = [["a", "b", "a"], ["b", "a", "rare"], ["c", "c"]]
    estimator = SequenceClassifier(min_count=2, **OF_TOKENS).fit(X, [0, 1, 1])
    assert estimator.vocabulary_ == {"a": 1, "b": 2, "c": 3}
    assert estimator.network_.words.V == 4
    # What is rare was learned as unknown, and unknown tokens are all the same.
    a, b = estimator.predict_proba([["rare"], ["new"]])
    assert np.array_equal(a, b)
    assert estimator.network_.words.params["weight"][0].any()


def test_unknown_tokens_may_be_an_error() -> None:
    X, y = words(20), [0, 1] * 10
    estimator = SequenceClassifier(unknown="error", **OF_TOKENS).fit(X, y)
    estimator.predict(X)
    with pytest.raises(ValueError, match=r"^X: expected tokens of the training data, got 'z', 8$"):
        estimator.predict([["a", "z"], ["a", 8, "z"]])
    many = [f"w{k}" for k in range(9)]
    with pytest.raises(ValueError, match="'w4' and 4 more"):
        estimator.predict([many])


VECTORS = Embeddings(["d", "other", "a", "d"], np.arange(12, dtype=np.float32).reshape(4, 3))


def test_given_vectors_are_where_training_begins(tmp_path: Path) -> None:
    X, y = words(20), [0, 1] * 10
    VECTORS.save(tmp_path / "vectors")
    results = []
    for given in (VECTORS, tmp_path / "vectors", str(tmp_path / "vectors")):
        estimator = SequenceClassifier(**{**OF_TOKENS, "embedding": given, "lr": 1e-9}).fit(X, y)
        results.append(estimator.predict_proba(X))
        weight = estimator.network_.words.params["weight"]
        assert estimator.network_.words.D == 3
        for word in ("d", "other", "a"):
            place = estimator.vocabulary_[word]
            np.testing.assert_allclose(weight[place], VECTORS[word], atol=1e-6)
        assert set(estimator.vocabulary_) == {*"abcdefghij", "other"}
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_vectors_may_stay_as_they_are() -> None:
    X, y = words(20), [0, 1] * 10
    options = {**OF_TOKENS, "embedding": VECTORS, "fine_tune": False}
    estimator = SequenceClassifier(**options).fit(X, y)
    # What has no vector is unknown then, as nothing would be learned of it.
    assert estimator.vocabulary_ == {"d": 1, "other": 2, "a": 3}
    expected = [np.zeros(3), *(VECTORS[word] for word in ("d", "other", "a"))]
    assert np.array_equal(estimator.network_.words.params["weight"], expected)


def test_tags_of_an_array() -> None:
    rng = np.random.default_rng(0)
    X, y, lengths = rng.normal(size=(20, 6, 2)), rng.integers(0, 3, (20, 6)), rng.integers(1, 7, 20)
    estimator = SequenceTagger(**OF_NUMBERS).fit(X, y, lengths)
    ragged = [[row[:length] for row, length in zip(a, lengths, strict=True)] for a in (X, y)]
    same = SequenceTagger(**OF_NUMBERS).fit(*ragged)
    assert estimator.predict(X, lengths) == same.predict(ragged[0])
    assert estimator.score(X, y, lengths) == same.score(*ragged)


def test_tokens_of_numpy() -> None:
    X, y = [[np.str_("a"), "b"], [np.int64(3), 3]], [0, 1]
    estimator = SequenceClassifier(**OF_TOKENS).fit(X, y)
    assert estimator.vocabulary_ == {3: 1, "a": 2, "b": 3}
    assert {type(token) for token in estimator.vocabulary_} == {str, int}


# --- errors ---------------------------------------------------------------------------------------

SEQUENCES = steps(6)
LABELS = [0, 1] * 3


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("abc", r"^X: expected a list of sequences, got a string"),
        ([], r"^X: expected at least one sequence, got 0 sample\(s\)"),
        ([np.ones((3, 2)), np.ones((0, 2))], r"^X\[1\]: expected at least one step, got an empty"),
        ([[1.0], []], r"^X\[1\]: expected at least one step, got an empty"),
        ([np.ones((3, 2)), np.ones((3, 4))], r"^X\[1\]: expected 2 features, as X\[0\], got 4"),
        ([np.ones((3, 2, 1))], r"^X\[0\]: expected \(T, F\) or \(T,\), got \(3, 2, 1\)"),
        ([np.ones((3, 2)), [[1.0, np.nan]]], r"^X\[1\]: expected finite numbers, got NaN"),
        ([np.ones((3, 2)), [[1.0, -np.inf]]], r"^X\[1\]: expected finite numbers, got infinity"),
        (np.full((2, 3), np.inf), r"^X\[0\]: expected finite numbers, got infinity"),
        ([np.ones((3, 0))], r"^X: expected at least one feature a step, got none"),
        (["a b", "b"], r"^X\[0\]: expected numbers, got text: tokens need an embedding"),
        ([["a"], ["b"]], r"^X\[0\]: expected numbers, got text: tokens need an embedding"),
        ([np.ones((3, 2), complex)], r"^X\[0\]: expected numbers, got an array of complex128"),
        ([1.0, 2.0], r"^X\[0\]: expected \(T, F\) or \(T,\), got \(\)"),
        ([[1.0], [[1.0, 2.0], [3.0]]], r"^X\[1\]: expected an array"),
        (np.ones((2, 3, 4, 5)), r"^X: expected \(n, T, F\) or \(n, T\), got \(2, 3, 4, 5\)"),
        (np.ones(3), r"Expected 2D array, got 1D array instead"),
    ],
)
def test_no_numbers(X: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        SequenceClassifier(**OF_NUMBERS).fit(X, LABELS[: len(X)])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("abc", r"^X: expected a list of sequences, got a string"),
        (["a b", "b"], r"^X\[0\]: expected a list of tokens, got a string: tokenize='words' makes"),
        ([], r"^X: expected at least one sequence"),
        ([["a"], []], r"^X\[1\]: expected at least one token, got an empty sequence"),
        ([["a"], [1.5]], r"^X\[1\]: expected tokens \(text or integers\), got float"),
        ([["a"], [True]], r"^X\[1\]: expected tokens \(text or integers\), got bool"),
        ([["a"], 3], r"^X\[1\]: expected a list of tokens, got int"),
        ({"a": 1}, r"^X: expected sequences of tokens, got dict"),
        (np.ones((2, 3)), r"^X\[0\]: expected tokens \(text or integers\), got float"),
    ],
)
def test_no_tokens(X: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        SequenceClassifier(**OF_TOKENS).fit(X, LABELS[: len(X)])


def test_a_text_of_no_tokens() -> None:
    estimator = SequenceClassifier(tokenize="words", **OF_TOKENS).fit(["a b", "c"], [0, 1])
    with pytest.raises(ValueError, match=r"^X\[1\]: expected at least one token, got an empty"):
        estimator.predict(["a", " "])


@pytest.mark.parametrize("lengths", [[1, 2, 3], [1, 2, 9, 1, 1, 1], [1.5] * 6, [0] * 6])
def test_no_lengths(lengths: Any) -> None:
    X = np.ones((6, 4, 2))
    with pytest.raises((ValueError, TypeError), match=r"lengths|at least one step"):
        SequenceClassifier(**OF_NUMBERS).fit(X, LABELS, lengths)


def test_lists_have_lengths_of_their_own() -> None:
    for options, X in ((OF_NUMBERS, SEQUENCES), (OF_TOKENS, words(6))):
        with pytest.raises(ValueError, match="lengths: expected None for a list of sequences"):
            SequenceClassifier(**options).fit(X, LABELS, [1] * 6)


@pytest.mark.parametrize("name", JOBS)
def test_nothing_was_fitted(name: str) -> None:
    estimator, X, y = JOBS[name]()
    for method in ("predict", "score", "predict_proba", "to_onnx", "save"):
        if hasattr(estimator, method):
            arguments = {"score": (X, y), "to_onnx": ("x",), "save": ("x",)}.get(method, (X,))
            with pytest.raises(NotFittedError):
                getattr(estimator, method)(*arguments)


def test_another_number_of_features() -> None:
    estimator = SequenceClassifier(**OF_NUMBERS).fit(SEQUENCES, LABELS)
    with pytest.raises(ValueError, match="X has 3 features, but SequenceClassifier is expecting 2"):
        estimator.predict([np.ones((2, 3))])


@pytest.mark.parametrize("name", JOBS)
def test_y_of_another_size(name: str) -> None:
    estimator, X, y = JOBS[name](**BRIEF)
    with pytest.raises(
        ValueError, match=r"inconsistent numbers of samples|y: expected 200|150|100"
    ):
        estimator.fit(X, y[:-1])
    with pytest.raises(ValueError, match="requires y to be passed"):
        estimator.fit(X, None)


@pytest.mark.parametrize(
    ("make", "y", "message"),
    [
        (SequenceTagger, "abcdef", r"^y: expected sequences of labels, got str"),
        (SequenceTagger, [0] * 6, r"^y\[0\]: expected a sequence of labels, got int"),
        (SequenceTagger, [["a"]] * 6, r"^y\[0\]: expected \d+ labels, one a step, got 1"),
        (
            SequenceTagger,
            [["a"] * len(SEQUENCES[0]), *([1] * len(x) for x in SEQUENCES[1:])],
            r"^y: expected labels that are all text or all integers, got int, str",
        ),
        (SequenceTranscriber, 5, r"^y: expected texts or sequences of labels, got int"),
        (SequenceTranscriber, [""] * 6, r"^y: expected labels, got none"),
        (SequenceTranscriber, ["a", "b" * 99, *"abcd"], r"^y\[1\]: expected labels for \d+ steps"),
        (SequenceTranscriber, [[1.5]] * 6, r"^y: expected labels that are all text or all int"),
        (SequenceRegressor, [1.0, np.nan] * 3, r"Input y contains NaN"),
        (SequenceRegressor, list("abcdef"), r"could not convert string|dtype='numeric'"),
        (SequenceClassifier, [0.5, 1.7] * 3, r"Unknown label type"),
    ],
)
def test_no_y(make: Any, y: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(**OF_NUMBERS).fit(SEQUENCES, y)


def test_equal_neighbours_need_a_step_between() -> None:
    X = [np.ones((3, 2)), np.ones((2, 2))]
    SequenceTranscriber(**OF_NUMBERS).fit(X, ["aa", "ab"])
    message = r"^y\[1\]: expected labels for 2 steps at most, got 2, which need 3"
    with pytest.raises(ValueError, match=message):
        SequenceTranscriber(**OF_NUMBERS).fit(X, ["aa", "bb"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cell", "xlstm"),
        ("hidden_size", 0),
        ("hidden_size", 1.5),
        ("dropout", 1.0),
        ("epochs", True),
        ("batch_size", -1),
        ("lr", 0.0),
        ("lr", "fast"),
        ("clip", -1.0),
        ("schedule", "step"),
        ("early_stopping", -1),
        ("validation_fraction", 1.0),
        ("n_threads", 0),
        ("verbose", -1),
        ("callbacks", [3]),
        ("callbacks", 3),
        ("dtype", "float16"),
        ("pooling", "min"),
        ("embedding", 0),
        ("tokenize", "letters"),
        ("unknown", "ignore"),
        ("class_weight", "even"),
        ("bidirectional", 1),
        ("random_state", "zero"),
        ("zoneout", 2.0),
    ],
)
def test_options_are_checked_when_fitting(option: str, value: Any) -> None:
    estimator = SequenceClassifier(**{**OF_NUMBERS, option: value})
    with pytest.raises((ValueError, TypeError), match=option.replace("random_state", "seed|zero")):
        estimator.fit(SEQUENCES, LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "gru", "layer_norm": True}, "layer_norm: expected none for cell='gru'"),
        ({"bidirectional": False, "pooling": "ends"}, "pooling: expected .* got 'ends'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(**{**OF_NUMBERS, **options}).fit(SEQUENCES, LABELS)


def test_a_crf_has_no_class_weights() -> None:
    estimator, X, y = tag(class_weight="balanced", **BRIEF)
    with pytest.raises(ValueError, match="class_weight: expected None with a CRF"):
        estimator.fit(X, y)


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn", "recurrent_dropout": 0.2},
        {"cell": "gru", "zoneout": 0.1, "weight_dropout": 0.1},
        {"zoneout": (0.1, 0.2), "layer_norm": True, "num_layers": 2},
        {"pooling": "ends", "dropout": 0.0, "clip": None},
        {"bidirectional": False, "pooling": "last"},
    ],
)
def test_options_of_layers(options: dict[str, Any]) -> None:
    estimator, X, y = classify(**BRIEF, **options)
    estimator.fit(X, y)
    layer = estimator.network_.layer
    for name in set(options) - {"cell", "pooling", "dropout", "clip"}:
        assert getattr(layer, name) == options[name]
    assert type(layer).__name__.lower() == options.get("cell", "lstm")


def test_scores_of_another_size() -> None:
    for make in (tag, transcribe):
        estimator, X, y = make(**BRIEF)
        estimator.fit(X, y)
        with pytest.raises(ValueError, match="y: expected"):
            estimator.score(X, y[1:])
    estimator, X, y = classify_texts(**BRIEF)
    estimator.fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.score(X, y[1:])

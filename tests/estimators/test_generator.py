"""Generators: likelihoods by hand, pieces, samples, frames, and errors."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastlstm.sklearn import Forecaster, SequenceGenerator, _steps
from fastlstm.sklearn._inputs import join
from fastlstm.sklearn._network import Network
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

SMALL: dict[str, Any] = {"hidden_size": 8, "embedding": 6, "epochs": 2, "random_state": 0}
TEXTS = ["to be or not to be", "that is the question", "to sleep", "perchance to dream"] * 3
FRAMES = [(np.random.default_rng(k).random((10 + k, 3)) < 0.3).astype(np.uint8) for k in range(12)]
NUMBERS = [np.random.default_rng(k).standard_normal((10 + k, 2)) * 3 + 50 for k in range(12)]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def scores_of(generator: SequenceGenerator, steps: np.ndarray) -> np.ndarray:
    """(T, n_out) by the blocks: what follows each of (T,) places or (T, F) frames."""
    network = generator.network_
    x = network.words(steps) if "words" in network.parts else steps.astype(np.float32)
    return network.out(network.layer(x)[0])


# --- likelihoods ----------------------------------------------------------------------------------


def test_log_prob_is_that_of_the_blocks() -> None:
    generator = SequenceGenerator(**SMALL).fit(TEXTS)
    boundary = len(generator.vocabulary_) + 1
    for text in ("to be", "t", "unknown: ?!"):
        places = [generator.vocabulary_.get(c, 0) for c in text]
        log_p = log_softmax(scores_of(generator, np.array([boundary, *places])))
        want = log_p[np.arange(len(text) + 1), [*places, boundary]].sum()
        assert generator.log_prob([text])[0] == pytest.approx(want, rel=1e-6)
    all_of_it = generator.log_prob(TEXTS)
    steps = sum(len(text) + 1 for text in TEXTS)
    assert generator.score(TEXTS) == pytest.approx(all_of_it.sum() / steps)
    assert generator.perplexity(TEXTS) == pytest.approx(math.exp(-all_of_it.sum() / steps))


def test_log_prob_of_frames() -> None:
    generator = SequenceGenerator(**SMALL, frames="binary").fit(FRAMES)
    frames = FRAMES[0]
    p = 1 / (1 + np.exp(-scores_of(generator, np.r_[[[0, 0, 0]], frames[:-1]]).astype(np.float64)))
    want = np.log(np.where(frames, p, 1 - p)).sum()
    assert generator.log_prob([frames])[0] == pytest.approx(want, rel=1e-5)

    generator = SequenceGenerator(**SMALL, frames="gaussian").fit(NUMBERS)
    values = NUMBERS[0]
    scaled = (values - generator.mean_) / generator.scale_
    scores = scores_of(generator, np.r_[[[0, 0]], scaled[:-1]])
    mean, deviation = scores[:, :2], np.exp(scores[:, 2:])
    density = np.exp(-(((scaled - mean) / deviation) ** 2) / 2) / deviation / np.sqrt(2 * np.pi)
    want = np.log(density / generator.scale_).sum()
    assert generator.log_prob([values])[0] == pytest.approx(want, rel=1e-5)


def test_binary_frames_begin_with_how_often_each_value_is_1() -> None:
    generator = SequenceGenerator(**{**SMALL, "epochs": 1}, lr=1e-9, frames="binary").fit(FRAMES)
    values = np.concatenate(FRAMES)
    p = 1 / (1 + np.exp(-generator.network_.params["out.bias"].astype(np.float64)))
    np.testing.assert_allclose(p, (values.sum(0) + 0.5) / (len(values) + 1), rtol=1e-4)
    again = SequenceGenerator(**SMALL, lr=1e-9, frames="binary").partial_fit(FRAMES)
    np.testing.assert_allclose(
        again.network_.params["out.bias"], generator.network_.params["out.bias"], rtol=1e-4
    )


def test_long_sequences_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = SequenceGenerator(**SMALL).fit(TEXTS)
    want = generator.log_prob(TEXTS)
    monkeypatch.setattr(_steps, "_MOST_SCORES", 300)
    np.testing.assert_allclose(generator.log_prob(TEXTS), want, rtol=1e-6)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bptt", [None, 4])
@pytest.mark.parametrize("frames", [None, "binary", "gaussian"])
def test_gradients(frames: str | None, bptt: int | None) -> None:
    """Those of all parameters against finite differences; of pieces, with their states held."""
    X = {None: TEXTS, "binary": FRAMES, "gaussian": NUMBERS}[frames]
    options = {**SMALL, "dtype": "float64", "dropout": 0.0, "lr": 0.05, "early_stopping": None}
    generator = SequenceGenerator(**options, frames=frames).fit(X)
    steps, network = generator._kind(), generator.network_
    pieces, _ = _steps.cut(generator._read_inputs(X, None), steps, bptt)
    problem = _steps.NextStep(network, pieces, steps)
    rows = np.array([0, 3, 4])
    loss, grads = problem.gradients(rows, np.random.default_rng(0))
    assert loss == pytest.approx(problem.loss(rows))
    state = problem._state(rows)
    assert (state is None) == (bptt is None)
    problem._state = lambda rows: state  # type: ignore[method-assign]
    random = np.random.default_rng(1)
    flat = dict(network._flat(grads))
    assert set(flat) == set(network.params)
    for name, gradient in flat.items():
        value = np.array(network.params[name])
        direction = random.standard_normal(value.shape)
        losses = []
        for step in (1e-6, -1e-6):
            network.update({name: value + step * direction})
            losses.append(problem.loss(rows))
        network.update({name: value})
        dense = gradient.to_dense() if name == "words.weight" else gradient
        want = (losses[0] - losses[1]) / 2e-6
        assert (dense * direction).sum() == pytest.approx(want, rel=1e-5, abs=1e-8), name


def test_pieces_have_every_step_once() -> None:
    sequences = join([np.array([1, 2, 3, 4, 5]), np.array([6]), np.array([7, 8, 9])])
    pieces, owners = _steps.cut(sequences, _steps.Tokens(11), 2)
    assert owners.tolist() == [0, 0, 0, 1, 2, 2]
    found = [[part.T.tolist()[0] for part in pieces.batch(np.array([k]))[:2]] for k in range(6)]
    assert found == [
        [[10, 1], [1, 2]],
        [[2, 3], [3, 4]],
        [[4, 5], [5, 10]],
        [[10, 6], [6, 10]],
        [[10, 7], [7, 8]],
        [[8, 9], [9, 10]],
    ]
    before = [pieces.context(np.array([k]))[0].T.tolist()[0] for k in range(6)]
    assert before == [[], [10, 1], [2, 3], [], [], [10, 7]]
    whole, owners = _steps.cut(sequences, _steps.Tokens(11), None)
    assert owners.tolist() == [0, 1, 2]
    assert whole.lengths.tolist() == [6, 2, 4]
    frames, _ = _steps.cut(join([np.ones((3, 2)), np.ones((1, 2))]), _steps.BinaryFrames(2), 2)
    assert frames.lengths.tolist() == [2, 1, 1]
    assert frames.values.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1], [0, 0], [1, 1]]


def test_truncation_learns_what_is_near() -> None:
    """Texts where a letter depends on the one two before it, in pieces of few."""
    random = np.random.default_rng(0)
    letters = "ab"
    while len(letters) < 3000:
        following = "bcda"["abcd".index(letters[-2])]
        letters += following if random.random() < 0.9 else random.choice(list("abcd"))
    options = {**SMALL, "hidden_size": 16, "epochs": 30, "lr": 0.01, "dropout": 0.0}
    generator = SequenceGenerator(**options, bptt=6).fit(letters[:2000])
    assert len(generator.validation_loss_curve_) > 0
    entropy = -(0.925 * math.log(0.925) + 0.075 * math.log(0.025))
    assert -generator.score(letters[2000:]) == pytest.approx(entropy, abs=0.08)


def test_whole_sequences_are_held_out() -> None:
    generator = SequenceGenerator(**SMALL, bptt=5, validation_fraction=0.25)
    options, random = generator._checked(), np.random.default_rng(0)
    owners = np.repeat(np.arange(8), [3, 1, 4, 1, 5, 2, 6, 5])
    order, held_out = generator._held_out(owners, options, random)
    learned, last = owners[order[:-held_out]], owners[order[-held_out:]]
    assert len(set(last)) == 2
    assert not set(last) & set(learned)
    assert sorted(order) == list(range(len(owners)))
    order, held_out = generator._held_out(np.zeros(20, np.int64), options, random)
    assert (order.tolist(), held_out) == (list(range(20)), 5)
    options.early_stopping = None
    assert generator._held_out(owners, options, random)[1] == 0


def test_partial_fit_goes_on() -> None:
    generator = SequenceGenerator(**{**SMALL, "lr": 0.02})
    for _ in range(8):
        generator.partial_fit(TEXTS)
    assert generator.n_iter_ == 8
    assert generator.loss_curve_[-1] < generator.loss_curve_[0]
    with pytest.raises(ValueError, match="X: expected frames of 3 numbers, got 2"):
        SequenceGenerator(**SMALL, frames="binary").partial_fit(FRAMES).partial_fit(
            [frames[:, :2] for frames in FRAMES]
        )


# --- samples --------------------------------------------------------------------------------------


def test_likely_samples_are_what_was_learned() -> None:
    options = {**SMALL, "hidden_size": 24, "epochs": 120, "lr": 0.02, "early_stopping": None}
    generator = SequenceGenerator(**{**options, "dropout": 0.0}).fit(TEXTS[1:4] * 4)
    for text in TEXTS[1:4]:
        found = generator.sample(2, prime=text[:2], top_k=1, random_state=0)
        assert found == [text, text]
        assert generator.sample(prime=text[:2], temperature=0.01, random_state=0) == [text]
    assert {*generator.sample(30, temperature=0.01, random_state=0)} <= {*TEXTS[1:4]}
    assert generator.sample(1, prime="to sleep", max_length=3, top_k=1)[0].startswith("to sleep")


def test_a_sample_is_what_whole_calls_say() -> None:
    """Step by step on a stream, as one call over all steps; each row by itself."""
    generator = SequenceGenerator(**SMALL).fit(TEXTS)
    tokens = ["?", *generator.vocabulary_]
    boundary = len(tokens)
    for found in generator.sample(3, prime="to", top_k=1, max_length=20):
        places = [boundary, *(generator.vocabulary_[c] for c in found)]
        scores = scores_of(generator, np.array(places))
        scores[:, 0] = -np.inf
        likeliest = scores.argmax(axis=1)
        assert likeliest[2 : len(found)].tolist() == places[3:]
        assert len(found) == 22 or likeliest[-1] == boundary


def test_samples_are_reproducible() -> None:
    generator = SequenceGenerator(**SMALL).fit(TEXTS)
    first = generator.sample(5, random_state=3)
    assert first == generator.sample(5, random_state=3)
    assert first != generator.sample(5, random_state=4)
    assert len(set(first)) > 1
    assert generator.sample(5) != generator.sample(5)
    assert all(len(text) <= 7 for text in generator.sample(5, max_length=7))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_by_their_probability(temperature: float) -> None:
    scores = np.tile(np.float32([3.0, 1.0, 0.0, -1.0, -np.inf]), (20_000, 1))
    random = np.random.default_rng(0)
    drawn = _steps.Tokens(5).draw(scores.copy(), temperature, None, None, random)
    p = np.exp(np.array([1.0, 0.0, -1.0]) / temperature)
    want = [0, *(p / p.sum()), 0]  # the first is what is unknown
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 20_000, want, atol=0.015)
    some = _steps.Tokens(5).draw(scores.copy(), temperature, 2, None, random)
    assert set(some.tolist()) == {1, 2}


def test_frames_are_drawn_by_their_probability() -> None:
    scores = np.tile(np.float32([2.0, 0.0, -3.0]), (20_000, 1))
    random = np.random.default_rng(0)
    drawn = _steps.BinaryFrames(3).draw(scores, 1.0, None, None, random)
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / (1 + np.exp(-scores[0])), atol=0.015)
    cold = _steps.BinaryFrames(3).draw(scores, 0.5, None, None, random)
    np.testing.assert_allclose(cold.mean(axis=0), 1 / (1 + np.exp(-2 * scores[0])), atol=0.015)
    scores = np.tile(np.float32([2.0, -1.0, np.log(3), 0]), (20_000, 1))
    drawn = _steps.GaussianFrames(2).draw(scores, 0.5, None, None, random)
    np.testing.assert_allclose(drawn.mean(axis=0), [2, -1], atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), [1.5, 0.5], rtol=0.05)


def test_samples_have_the_form_of_x() -> None:
    words = SequenceGenerator(**SMALL, tokenize="words").fit(TEXTS)
    assert set(" ".join(words.sample(4, random_state=0)).split()) <= set(" ".join(TEXTS).split())
    lists = SequenceGenerator(**SMALL).fit([text.split() for text in TEXTS])
    assert lists.sample(1, prime=["to"], random_state=0)[0][0] == "to"
    assert isinstance(lists.sample(random_state=0)[0], list)
    numbers = SequenceGenerator(**SMALL).fit(np.tile([3, 5, 7], (10, 1)))
    assert {token for one in numbers.sample(9, random_state=0) for token in one} <= {3, 5, 7}
    of_function = SequenceGenerator(**SMALL, tokenize=str.split).fit(TEXTS)
    assert of_function.sample(1, prime="to be", random_state=0)[0][:2] == ["to", "be"]

    frames = SequenceGenerator(**SMALL, frames="binary").fit(FRAMES)
    found = frames.sample(2, max_length=5, prime=FRAMES[0][:4], random_state=0)
    assert [one.shape for one in found] == [(9, 3)] * 2
    assert found[0].dtype == np.uint8
    np.testing.assert_array_equal(found[0][:4], FRAMES[0][:4])
    values = SequenceGenerator(**SMALL, frames="gaussian").fit(NUMBERS)
    (found,) = values.sample(1, max_length=300, prime=NUMBERS[0][:4], random_state=0)
    np.testing.assert_allclose(found[:4], NUMBERS[0][:4], rtol=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), 50, atol=2)


def test_frames_of_arrays_with_lengths() -> None:
    X = np.zeros((6, 20, 3))
    lengths = [5, 10, 20, 20, 7, 9]
    for k, length in enumerate(lengths):
        X[k, :length] = np.random.default_rng(k).random((length, 3)) < 0.5
    first = SequenceGenerator(**SMALL, frames="binary").fit(X, lengths=lengths)
    second = SequenceGenerator(**SMALL, frames="binary").fit(
        [x[:length] for x, length in zip(X, lengths, strict=True)]
    )
    np.testing.assert_array_equal(first.log_prob(X, lengths), second.log_prob(X, lengths))


# --- an estimator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [None, "binary", "gaussian"])
def test_files_pickles_and_clones(frames: str | None, tmp_path: Path) -> None:
    X = {None: TEXTS, "binary": FRAMES, "gaussian": NUMBERS}[frames]
    generator = SequenceGenerator(**SMALL, frames=frames).fit(X)
    want, likely = generator.log_prob(X), generator.sample(2, random_state=0)
    generator.save(tmp_path / "g.safetensors")
    loaded = fastlstm.load(tmp_path / "g.safetensors")
    for again in (loaded, pickle.loads(pickle.dumps(generator)), clone(generator).fit(X)):
        assert type(again) is SequenceGenerator
        assert again.get_params() == generator.get_params()
        np.testing.assert_array_equal(again.log_prob(X), want)
        for a, b in zip(again.sample(2, random_state=0), likely, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_function_is_not_in_a_file(tmp_path: Path) -> None:
    generator = SequenceGenerator(**SMALL, tokenize=lambda text: text.split()).fit(TEXTS)
    generator.save(tmp_path / "g.safetensors")
    loaded = fastlstm.load(tmp_path / "g.safetensors")
    assert loaded.tokenize is None
    with pytest.raises(TypeError, match=r"X\[0\]: expected a list of tokens, got a string"):
        loaded.log_prob(TEXTS)
    words = [text.split() for text in TEXTS]
    np.testing.assert_array_equal(loaded.log_prob(words), generator.log_prob(TEXTS))


def test_files_that_say_something_else(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    for X, options, change in (
        (TEXTS, {}, {"vocabulary_": {"a": 1}}),
        (TEXTS, {}, {"frames": "binary"}),
        (FRAMES, {"frames": "binary"}, {"n_features_in_": 4}),
        (FRAMES, {"frames": "binary"}, {"frames": "gaussian"}),
        (FRAMES, {"frames": "binary"}, {"frames": None}),
    ):
        generator = SequenceGenerator(**SMALL, **options).fit(X)
        for name, value in change.items():
            setattr(generator, name, value)
        generator.save(path)
        with pytest.raises(ValueError, match="damaged, or of another version"):
            fastlstm.load(path)


@pytest.mark.parametrize("cls", [Forecaster, SequenceGenerator])
@pytest.mark.parametrize(
    "name",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_valid_tag_types",
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
    ],
)
def test_checks_of_scikit_learn(cls: Any, name: str) -> None:
    getattr(estimator_checks, name)(cls.__name__, cls())


@pytest.mark.parametrize("cls", [Forecaster, SequenceGenerator])
def test_options_are_described(cls: Any) -> None:
    assert "{options}" not in cls.__doc__
    for name in cls().get_params():
        assert f"\n{name} : " in cls.__doc__, name


def test_the_same_bits_for_any_number_of_threads() -> None:
    first, second = (
        SequenceGenerator(**SMALL, n_threads=n, bptt=6, num_layers=2).fit(TEXTS) for n in (1, 2)
    )
    assert first.loss_curve_ == second.loss_curve_
    np.testing.assert_array_equal(first.log_prob(TEXTS), second.log_prob(TEXTS))
    assert first.sample(3, random_state=0) == second.sample(3, random_state=0)


def test_cross_validation() -> None:
    found = cross_val_score(SequenceGenerator(**SMALL), TEXTS, cv=3)
    assert found.shape == (3,)
    assert (found < 0).all()


def test_a_trace_is_of_a_sequence() -> None:
    generator = SequenceGenerator(**SMALL, num_layers=2).fit(TEXTS)
    (_,), (trace,) = generator.trace("to be")
    assert trace.h.shape == (6, 8)
    boundary = len(generator.vocabulary_) + 1
    places = [boundary, *(generator.vocabulary_[c] for c in "to be")]
    network: Network = generator.network_
    np.testing.assert_allclose(
        trace.h, network.layer(network.words(np.array(places)))[0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "X", "error", "message"),
    [
        ({}, [], ValueError, "X: expected at least one sequence"),
        ({}, [[]], ValueError, r"X\[0\]: expected at least one token, got an empty sequence"),
        ({}, [[1.5]], TypeError, r"X\[0\]: expected tokens"),
        ({"frames": "binary"}, [np.array([[0, 2]])], ValueError, "X: expected frames of 0 and 1"),
        ({"frames": "gaussian"}, [np.array([[np.nan]])], ValueError, r"X\[0\]: expected finite"),
        ({"frames": "notes"}, FRAMES, ValueError, "frames: expected one of 'binary', 'gaussian'"),
        ({"frames": "binary"}, TEXTS, TypeError, r"X\[0\]: expected numbers, got text"),
        ({"bptt": 0}, TEXTS, ValueError, "bptt: expected an integer from 1"),
        ({"tokenize": "bytes"}, TEXTS, ValueError, "tokenize: expected one of"),
        ({"embedding": None}, TEXTS, TypeError, "embedding: expected an integer, got NoneType"),
    ],
)
def test_what_fit_refuses(options: dict[str, Any], X: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SequenceGenerator(**{**SMALL, **options}).fit(X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n: expected an integer from 1"),
        ({"max_length": 0}, "max_length: expected an integer from 1"),
        ({"temperature": 0}, "temperature: expected a number above 0"),
        ({"temperature": -1}, "temperature: expected a number from 0"),
        ({"temperature": math.inf}, "temperature: expected a number from 0"),
        ({"top_k": 0}, "top_k: expected an integer from 1"),
        ({"top_p": 1.5}, "top_p: expected a number from 0 to 1"),
    ],
)
def test_what_sample_refuses(arguments: dict[str, Any], message: str) -> None:
    generator = SequenceGenerator(**SMALL)
    with pytest.raises(Exception, match="not fitted yet"):
        generator.sample()
    with pytest.raises(ValueError, match=message):
        generator.fit(TEXTS[:2]).sample(**arguments)


def test_frames_have_no_likeliest_tokens() -> None:
    generator = SequenceGenerator(**SMALL, frames="binary").fit(FRAMES)
    with pytest.raises(ValueError, match="top_k, top_p: expected None for frames"):
        generator.sample(top_k=3)


def test_a_pandas_series_of_texts_with_an_index_of_its_own() -> None:
    pd = pytest.importorskip("pandas")
    series = pd.Series(TEXTS, index=np.arange(5, 5 + len(TEXTS)))
    generator = SequenceGenerator(**SMALL).fit(series)
    want = SequenceGenerator(**SMALL).fit(TEXTS).sample(2, random_state=0)
    assert generator.sample(2, random_state=0) == want


def test_one_sequence_remains_to_learn_from() -> None:
    for texts, options in ((TEXTS[:3], {}), (TEXTS[:1], {"bptt": 5})):
        generator = SequenceGenerator(**SMALL, validation_fraction=0.99, **options).fit(texts)
        assert min(generator.loss_curve_) > 0

"""Fitting: what is learned, with which bits, and when it ends."""

from __future__ import annotations

import copy
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn
from fastlstm.optim import SparseRows
from fastlstm.sklearn import (
    SequenceClassifier,
    SequenceRegressor,
    SequenceTranscriber,
    edit_distance,
)
from fastlstm.sklearn._sequences import Supervised
from finite_differences import slope_error
from sklearn.exceptions import ConvergenceWarning
from small_jobs import BRIEF, JOBS, classify, classify_texts, regress, steps, tag, transcribe


def same(a: Any, b: Any) -> bool:
    """Whether predictions have the same bits, lists of arrays among them."""
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b))


@pytest.mark.parametrize("name", JOBS)
def test_what_can_be_learned_is(name: str) -> None:
    estimator, X, y = JOBS[name]()
    estimator.fit(X, y)
    assert estimator.score(X, y) > 0.9
    assert estimator.loss_curve_[-1] < estimator.loss_curve_[0] / 2
    assert len(estimator.validation_loss_curve_) == len(estimator.loss_curve_) == estimator.n_iter_


@pytest.mark.parametrize("name", JOBS)
def test_the_same_random_state_is_the_same_model_for_any_number_of_threads(name: str) -> None:
    def fitted(n: int, seed: int) -> Any:
        job = JOBS[name](epochs=2, dropout=0.4, recurrent_dropout=0.2, num_layers=2)
        return job.estimator.set_params(n_threads=n, random_state=seed).fit(job.X, job.y)

    one, two, other = fitted(1, 0), fitted(2, 0), fitted(1, 1)
    params = (e.network_.params for e in (one, two, other))
    for a, b, c in zip(*(p.values() for p in params), strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    assert one.loss_curve_ == two.loss_curve_


# --- values ---------------------------------------------------------------------------------------


def test_predictions_are_what_the_blocks_say() -> None:
    estimator, X, y = classify(num_layers=2, **BRIEF)
    estimator.fit(X, y)
    network = estimator.network_
    for x, p in zip(X[:5], estimator.predict_proba(X[:5]), strict=True):
        scaled = ((x - estimator.mean_) / estimator.scale_).astype(np.float32)
        output, _ = network.layer(scaled)
        logits = network.out(output.max(axis=0)).astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(p, expected, rtol=1e-6)
    best = estimator.predict_proba(X).argmax(axis=1)
    assert (estimator.predict(X) == estimator.classes_[best]).all()


def test_predictions_of_texts_are_what_the_blocks_say() -> None:
    estimator, X, y = classify_texts(pooling="mean", bidirectional=False, cell="gru", **BRIEF)
    estimator.fit(X, y)
    network = estimator.network_
    for x, p in zip(X[:5], estimator.predict_proba(X[:5]), strict=True):
        places = [estimator.vocabulary_[word] for word in x]
        output, _ = network.layer(network.words(places))
        logits = network.out(output.mean(axis=0)).astype(np.float64)
        np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)


def test_numbers_come_back_on_their_scale() -> None:
    X, y = steps(40), np.random.default_rng(0).normal([5, 1e4], [1, 300], (40, 2))
    estimator = SequenceRegressor(hidden_size=4, random_state=0, standardize=False, **BRIEF)
    estimator.fit(X, y)
    network = estimator.network_
    output, _ = network.layer(X[0].astype(np.float32))
    expected = network.out(output.max(axis=0)) * y.std(axis=0) + y.mean(axis=0)
    np.testing.assert_allclose(estimator.predict(X[:1]), [expected], rtol=1e-6)
    assert not hasattr(estimator, "vocabulary_")


def test_a_crf_decides_tags_together() -> None:
    estimator, X, y = tag(**BRIEF)
    estimator.fit(X, y)
    network = estimator.network_
    places = [estimator.vocabulary_[word] for word in X[0]]
    emissions = network.out(network.layer(network.words(places))[0])[:, None]
    expected = estimator.classes_[network.crf.decode(emissions)[:, 0]].tolist()
    assert estimator.predict(X[:1]) == [expected]
    (p,) = estimator.predict_proba(X[:1])
    np.testing.assert_array_equal(p, network.crf.marginals(emissions)[:, 0])


def test_tags_without_a_crf() -> None:
    estimator, X, y = tag(crf=False, class_weight={"O": 1, "A": 3})
    estimator.fit(X, y)
    assert estimator.score(X, y) > 0.9
    assert "crf" not in estimator.network_.parts
    for tags, p in zip(estimator.predict(X), estimator.predict_proba(X), strict=True):
        assert tags == estimator.classes_[p.argmax(axis=1)].tolist()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


def test_transcripts_are_decoded_paths() -> None:
    estimator, X, y = transcribe(**BRIEF)
    estimator.fit(X, y)
    network = estimator.network_
    scaled = ((X[0] - estimator.mean_) / estimator.scale_).astype(np.float32)
    logits = network.out(network.layer(scaled)[0])[:, None]
    for beam_size in (1, 4):
        (best,) = nn.ctc_decode(logits, beam_size=beam_size)
        expected = "".join("xyz"[k - 1] for k in best.tokens)
        assert estimator.set_params(beam_size=beam_size).predict(X[:1]) == [expected]


def test_labels_of_transcripts_may_be_anything() -> None:
    X, y = steps(20, least=6), [[30, 10], [], [10]] + [[20, 30]] * 17
    estimator = SequenceTranscriber(hidden_size=4, random_state=0, **BRIEF).fit(X, y)
    assert estimator.classes_.tolist() == [10, 20, 30]
    assert all(isinstance(labels, list) for labels in estimator.predict(X))


@pytest.mark.parametrize("name", JOBS)
def test_one_sequence_is_predicted_as_among_others(name: str) -> None:
    estimator, X, y = JOBS[name](**BRIEF)
    estimator.fit(X, y)
    together = estimator.predict(X)
    for i in (0, 3, 17):
        (alone,) = estimator.predict([X[i]])
        assert same(alone, together[i])


@pytest.mark.parametrize("name", JOBS)
def test_gradients_of_the_whole_network(name: str) -> None:
    smooth = {} if name in ("tag", "transcribe") else {"pooling": "mean"}
    estimator, X, y = JOBS[name](dtype="float64", dropout=0.0, num_layers=2, epochs=1, **smooth)
    estimator.fit(X, y)
    sequences = estimator._read_inputs(X, None)
    targets = estimator._read_targets(estimator._check_targets(y, sequences), estimator._checked())
    network = estimator.network_
    problem = Supervised(network, sequences, targets)
    rows = np.array([0, 3, 8])
    loss, grads = problem.gradients(rows, np.random.default_rng(0))
    assert loss == pytest.approx(problem.loss(rows), rel=1e-12)
    assert set(grads) == set(network.parts) - {"pool", "drop"}
    for part, of_part in grads.items():
        for inner, gradient in of_part.params.items():
            full = f"{part}.{inner}"
            value = network.params[full].copy()

            def loss_of(full: str = full, value: Any = value) -> float:
                network.update({full: value})
                return problem.loss(rows)

            dense = gradient.to_dense() if isinstance(gradient, SparseRows) else gradient
            assert slope_error(dense, loss_of, value) < 1e-6, full
            loss_of()


def test_epochs_are_steps_of_blocks_and_an_optimiser() -> None:
    """The loop, written down once more: batches, dropout and steps, bit for bit."""
    estimator, X, y = classify(epochs=3, early_stopping=None, schedule="linear", clip=0.1)
    estimator.fit(X, y)
    again, _, _ = classify(epochs=1, early_stopping=None)
    again.fit(X, y)  # for what it has before training, which is made anew here
    sequences = again._read_inputs(X, None)
    random = again._new_random()
    network = again._make_network(again._checked(), random)
    places = np.searchsorted(again.classes_, y)
    adam = fastlstm.optim.Adam(lr=0.02)
    for epoch in range(3):
        seed = int(random.integers(2**63))
        batches = nn.bucket_batches(sequences.lengths, 32, seed=seed)
        for k, rows in enumerate(batches):
            adam.lr = 0.02 * (1 - (epoch + k / len(batches)) / 3)
            x, lengths = sequences.batch(rows)
            scores, tape = network.forward(x, lengths, random)
            _, d_scores = nn.cross_entropy(scores, places[rows])
            network.step(adam, tape.backward(d_scores), clip=0.1)
    for name, value in network.params.items():
        assert np.array_equal(value, estimator.network_.params[name]), name


def test_dropout_is_of_the_random_numbers_that_are_passed() -> None:
    estimator, X, y = classify(num_layers=2, dropout=0.5, **BRIEF)
    network = estimator.fit(X, y).network_
    x, lengths = nn.pad(X[:4])
    first, _ = network.forward(x, lengths, np.random.default_rng(5))
    of_layer, of_drop = np.random.default_rng(5).integers(2**63, size=2).tolist()
    h, _, _ = network.layer.forward(x, lengths=lengths, seed=of_layer)
    dropped, _ = network.drop.forward(network.pool(h, lengths), seed=of_drop)
    assert np.array_equal(first, network.out(dropped))
    assert not np.array_equal(first, network(x.astype(np.float32), lengths))


# --- options of training --------------------------------------------------------------------------


def test_the_best_epoch_is_kept() -> None:
    """Labels that are drawn have nothing in common with those that are held out."""
    X, y = steps(120), np.random.default_rng(1).integers(0, 2, 120)
    estimator = SequenceClassifier(
        hidden_size=32, epochs=60, lr=0.02, dropout=0.0, early_stopping=4, random_state=0
    ).fit(X, y)
    losses = estimator.validation_loss_curve_
    assert estimator.n_iter_ == len(losses) == estimator.best_epoch_ + 4 < 60
    assert np.argmin(losses) == estimator.best_epoch_ - 1
    brief = copy.deepcopy(estimator).set_params(epochs=estimator.best_epoch_).fit(X, y)
    for name, value in brief.network_.params.items():
        assert np.array_equal(value, estimator.network_.params[name]), name


@pytest.mark.parametrize("early_stopping", [None, 0])
def test_without_early_stopping_nothing_is_held_out(early_stopping: int | None) -> None:
    estimator, X, y = classify(epochs=3, early_stopping=early_stopping)
    estimator.fit(X, y)
    assert estimator.validation_loss_curve_ == []
    assert estimator.n_iter_ == estimator.best_epoch_ == 3


def rates(**options: Any) -> list[float]:
    """The learning rates of the last steps of epochs."""
    estimator, X, y = classify(epochs=4, lr=0.01, early_stopping=None, **options)
    found: list[float] = []
    estimator.set_params(callbacks=[lambda _, epoch: found.append(epoch.lr)])
    estimator.fit(X, y)
    return found


def test_schedules() -> None:
    ends = (np.arange(4) + 6 / 7) / 4  # of seven steps the last begins there
    np.testing.assert_allclose(rates(), 0.01)
    np.testing.assert_allclose(rates(schedule="linear"), 0.01 * (1 - ends))
    cosine = 0.01 * (1 + np.cos(np.pi * ends)) / 2
    np.testing.assert_allclose(rates(schedule="cosine"), cosine)


def test_a_plateau_halves_the_learning_rate() -> None:
    """Where nothing can be learned."""
    X, y = steps(120), np.random.default_rng(1).integers(0, 2, 120)
    found: list[float] = []
    SequenceClassifier(
        hidden_size=32,
        epochs=30,
        lr=0.02,
        early_stopping=9,
        schedule="plateau",
        random_state=0,
        callbacks=[lambda estimator, epoch: found.append(epoch.lr)],
    ).fit(X, y)
    assert found[0] == 0.02
    assert found[-1] <= 0.005
    assert set(np.divide(found[:-1], found[1:])) == {1.0, 2.0}


def test_class_weights_move_what_is_predicted() -> None:
    rng = np.random.default_rng(0)
    X, y = steps(300), np.where(rng.random(300) < 0.1, "rare", "often")

    def p_of_rare(weights: Any) -> float:
        estimator = SequenceClassifier(
            hidden_size=4, class_weight=weights, epochs=10, lr=0.01, random_state=0
        ).fit(X, y)
        return float(estimator.predict_proba(X)[:, 1].mean())

    plain, balanced = p_of_rare(None), p_of_rare("balanced")
    assert plain < 0.25
    assert 0.35 < balanced < 0.65
    assert p_of_rare({"often": 1, "rare": 9}) == pytest.approx(balanced, abs=0.1)


def test_callbacks_see_each_epoch_and_may_end_training() -> None:
    estimator, X, y = classify(epochs=9)
    seen = []

    def callback(of: Any, epoch: Any) -> bool:
        assert of is estimator
        assert of.predict(X[:2]).shape == (2,)
        seen.append(epoch)
        return bool(epoch.epoch == 4)

    estimator.set_params(callbacks=[callback, lambda *_: None]).fit(X, y)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4]
    assert [epoch.loss for epoch in seen] == estimator.loss_curve_
    assert [epoch.validation_loss for epoch in seen] == estimator.validation_loss_curve_


@pytest.mark.parametrize("verbose", [1, True])
def test_progress_is_shown(verbose: bool | int, capsys: pytest.CaptureFixture[str]) -> None:
    estimator, X, y = classify(epochs=2, verbose=verbose)
    estimator.fit(X, y)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "loss=" in shown
    assert "validation=" in shown
    estimator.set_params(verbose=type(verbose)(0)).fit(X, y)
    assert capsys.readouterr().err == ""


def test_divergence_is_said_and_undone() -> None:
    estimator, X, y = regress(lr=1e30, clip=None, epochs=5, dtype="float32")
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch 1: .*lr below 1e\+30, clip=1"):
        estimator.fit(X, y)
    assert np.isfinite(estimator.network_.out.params["weight"]).all()


def test_a_loss_that_rises_is_divergence() -> None:
    estimator, X, y = regress(lr=30.0, epochs=3, dropout=0.0)
    with pytest.warns(ConvergenceWarning, match=r"the loss has risen from .* a clip below 1,"):
        estimator.fit(X, y)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_few_sequences_are_enough(n: int) -> None:
    """Where nothing can be held out."""
    estimator, X, y = classify(epochs=2)
    estimator.fit(X[:n], y[:n])
    assert estimator.validation_loss_curve_ == []
    assert len(estimator.predict(X[:3])) == 3


def test_after_an_error_an_estimator_is_as_it_was() -> None:
    estimator, X, y = classify(**BRIEF)
    with pytest.raises(ValueError, match="requires y"):
        estimator.fit(X, None)
    assert set(vars(estimator)) == set(estimator.get_params())
    estimator.fit(X, y)
    before, p = dict(vars(estimator)), estimator.predict_proba(X)
    for fit in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match="requires y"):
            fit([x * 3 for x in X], None)
        assert vars(estimator) == before
    assert np.array_equal(estimator.predict_proba(X), p)


def test_another_fit_forgets_what_was_learned() -> None:
    estimator, X, y = classify_texts(**BRIEF)
    estimator.fit(X, y).set_params(embedding=None)
    assert np.array_equal(
        estimator.classes_[estimator.predict_proba(X).argmax(axis=1)], estimator.predict(X)
    )
    estimator.fit(steps(200), y)
    assert not hasattr(estimator, "vocabulary_")
    assert estimator.n_features_in_ == 2


# --- partial_fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JOBS)
def test_partial_fits_are_epochs(name: str) -> None:
    partial, X, y = JOBS[name](early_stopping=None)
    for _ in range(3):
        partial.partial_fit(X, y)
    whole = JOBS[name](early_stopping=None, epochs=3).estimator.fit(X, y)
    assert partial.loss_curve_ == whole.loss_curve_
    assert same(partial.predict(X), whole.predict(X))


def test_partial_fit_goes_on_after_fit() -> None:
    estimator, X, y = regress(epochs=2)
    estimator.fit(X, y)
    of_y = estimator.y_mean_
    estimator.partial_fit(X[:50], y[:50])
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 3
    assert estimator.y_mean_ is of_y


def test_a_loss_that_rises_in_a_part_is_no_divergence() -> None:
    """A good model may lose much of what is little, with a few examples more."""
    estimator, X, y = classify(epochs=30, dropout=0.0)
    estimator.fit(X, y).set_params(lr=1.0).partial_fit(X[:40], y[:40])  # warnings are errors
    assert estimator.score(X, y) < 0.9


@pytest.mark.parametrize("make", [classify, tag, transcribe])
def test_all_labels_may_be_known_at_first(make: Any) -> None:
    estimator, X, y = make(**BRIEF)
    known = {"classify": ["first", "second", "third"], "tag": ["A", "O", "X"]}
    classes = known.get(make.__name__, ["x", "y", "z", "!"])
    estimator.partial_fit(X[:9], y[:9], classes=classes).partial_fit(X, y)
    assert estimator.classes_.tolist() == sorted(classes)
    with pytest.raises(ValueError, match=r"labels that were there at first .* got"):
        make(**BRIEF).estimator.partial_fit(X, y).partial_fit(X, new_labels(y))


def test_another_kind_of_labels_and_another_number_of_numbers() -> None:
    estimator, X, y = classify(**BRIEF)
    estimator.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"^y: expected labels .*'first', 'second'\), got 0, 1"):
        estimator.partial_fit(X, [0, 1] * 100)
    estimator, X, y = regress(**BRIEF)
    estimator.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"^y: expected 1 numbers each, got 2"):
        estimator.partial_fit(X, np.column_stack([y, y]))


def new_labels(y: Any) -> Any:
    """The same with a label that was not there."""
    if isinstance(y, np.ndarray):
        return np.where(np.arange(len(y)) == 5, "fourth", y)
    return ["!" if isinstance(y[0], str) else ["!"] * len(y[0]), *y[1:]]


def test_one_example_remains_to_learn_from() -> None:
    job = regress(validation_fraction=0.9, epochs=2)
    job.estimator.fit(job.X[:3], job.y[:3])
    assert min(job.estimator.loss_curve_) > 0


@pytest.mark.parametrize("make", [classify, tag])
def test_balanced_weights_where_a_label_is_missing(make: Any) -> None:
    """Those that are there are weighted as if there were no others."""
    job = make(class_weight="balanced", dropout=0.0, **({"crf": False} if make is tag else {}))
    labels = np.unique(job.y if make is classify else np.concatenate(job.y))
    y = np.where(job.y == labels[0], *labels[:2]) if make is classify else job.y
    job.estimator.partial_fit(job.X[:40], y[:40], [*labels, "zz"])
    assert np.isfinite(job.estimator.loss_curve_).all()
    others = ["new"] * 2 if make is classify else [["new"] * len(x) for x in job.X[:2]]
    with pytest.raises(ValueError, match="y: expected labels that were there at first"):
        job.estimator.partial_fit(job.X[:2], others)


def test_equal_numbers_have_no_scale() -> None:
    job = regress(epochs=1)
    job.estimator.partial_fit(job.X[:3], [0.1] * 3)  # whose deviation is 1.4e-17
    assert job.estimator.y_scale_ == 1


def test_after_ctrl_c_an_estimator_is_as_it_was() -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    job = classify(**BRIEF)
    before = job.estimator.fit(job.X, job.y).predict_proba(job.X)
    attributes = dict(vars(job.estimator))
    with pytest.raises(KeyboardInterrupt):
        job.estimator.set_params(callbacks=[interrupt]).fit(job.X, job.y)
    assert vars(job.estimator).keys() == attributes.keys()
    assert np.array_equal(job.estimator.predict_proba(job.X), before)


def test_vectors_that_are_no_longer_learned() -> None:
    job = classify_texts(**BRIEF)
    job.estimator.partial_fit(job.X, job.y)
    before = job.estimator.network_.words.params["weight"].copy()
    job.estimator.set_params(fine_tune=False).partial_fit(job.X, job.y)
    assert np.array_equal(job.estimator.network_.words.params["weight"], before)


def test_edit_distances() -> None:
    def by_definition(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        changed = by_definition(a[1:], b[1:]) + (a[0] != b[0])
        return min(changed, by_definition(a[1:], b) + 1, by_definition(a, b[1:]) + 1)

    random = np.random.default_rng(0)
    for _ in range(50):
        a, b = (random.integers(0, 3, random.integers(0, 6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == by_definition(a, b), (a, b)
    assert edit_distance("kitten", ["s", "i", "t", "t", "i", "n", "g"]) == 3

"""Files: of estimators, and ONNX models of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from damage import check_reader
from fastlstm import nn
from fastlstm.embeddings import Embeddings
from fastlstm.sklearn import SequenceClassifier, SequenceRegressor
from fastlstm.sklearn._plain import from_plain, to_plain
from small_jobs import BRIEF, JOBS, Job, classify, classify_texts, regress, steps, tag, transcribe


def fitted(job: Job) -> Job:
    """The same job, with a fitted estimator."""
    job.estimator.fit(job.X, job.y)
    return job


@pytest.mark.parametrize("name", JOBS)
def test_a_file_is_the_estimator(name: str, tmp_path: Path) -> None:
    estimator, X, y = fitted(JOBS[name](num_layers=2, zoneout=0.1, n_threads=1, **BRIEF))
    estimator.save(tmp_path / "job.safetensors")
    again = fastlstm.load(tmp_path / "job.safetensors")
    assert type(again) is type(estimator)
    assert again.get_params() == estimator.get_params()
    for a, b in zip(again.predict(X), estimator.predict(X), strict=True):
        assert np.array_equal(a, b)
    if hasattr(estimator, "predict_proba"):
        for a, b in zip(again.predict_proba(X), estimator.predict_proba(X), strict=True):
            assert np.array_equal(a, b)
    for attribute in ("loss_curve_", "validation_loss_curve_", "n_iter_", "best_epoch_"):
        assert getattr(again, attribute) == getattr(estimator, attribute)
    assert again.score(X, y) == estimator.score(X, y)
    # It can be trained further, or anew.
    assert len(again.partial_fit(X, y).loss_curve_) == 3
    assert again.fit(X, y).loss_curve_ == estimator.loss_curve_


def test_saving_changes_nothing(tmp_path: Path) -> None:
    estimator, _, _ = fitted(classify(**BRIEF))
    estimator.network_.meta["note"] = "mine"
    estimator.save(tmp_path / "one")
    estimator.save(tmp_path / "two")
    assert estimator.network_.meta == {"note": "mine"}
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_other_readers_see_tensors(tmp_path: Path) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    estimator, _, _ = fitted(classify_texts(**BRIEF))
    estimator.save(tmp_path / "job")
    tensors = numpy_reader.load_file(tmp_path / "job")
    assert set(tensors) == set(estimator.network_.params)
    network = nn.Module.load(tmp_path / "job")
    assert network.meta["estimator"] == "SequenceClassifier"


def test_what_a_file_has_not(tmp_path: Path) -> None:
    """Functions and objects: the predictions are the same without, or the error says why not."""
    words = Embeddings(["a", "b"], np.eye(2, 5, dtype=np.float32))
    options = {
        "embedding": words,
        "tokenize": lambda text: text.split(),
        "callbacks": [lambda *_: None],
        "random_state": np.random.RandomState(0),
        **BRIEF,
    }
    texts = ["a b c", "b c", "c", "a"]
    estimator = SequenceClassifier(**options).fit(texts, [0, 1, 1, 0])
    estimator.save(tmp_path / "job")
    again = fastlstm.load(tmp_path / "job")
    assert again.embedding == 5
    assert (again.tokenize, again.callbacks, again.random_state) == (None, (), None)
    with pytest.raises(TypeError, match="tokenize='words' makes words of it"):
        again.predict(texts)
    again.set_params(tokenize=str.split)
    assert np.array_equal(again.predict_proba(texts), estimator.predict_proba(texts))


def test_vectors_that_stay_do_so_after_loading(tmp_path: Path) -> None:
    estimator, X, y = fitted(classify_texts(fine_tune=False, **BRIEF))
    estimator.save(tmp_path / "job")
    again = fastlstm.load(tmp_path / "job").partial_fit(X, y)
    for name, value in estimator.network_.params.items():
        same = np.array_equal(again.network_.params[name], value)
        assert same == name.startswith("words.")


class Derived(SequenceRegressor):
    """A class of a user's."""


def test_a_file_names_classes_of_the_library_only(tmp_path: Path) -> None:
    X, y = steps(5), np.arange(5.0)
    with pytest.raises(TypeError, match=r"expected a class of fastlstm\.sklearn, got Derived"):
        Derived(hidden_size=2, **BRIEF).fit(X, y).save(tmp_path / "job")


def test_importing_fastlstm_imports_no_scikit_learn() -> None:
    code = "import sys, fastlstm; sys.exit(any(m.startswith('sklearn') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_scikit_learn_the_error_says_what_to_install(tmp_path: Path) -> None:
    estimator, _, _ = fitted(classify(**BRIEF))
    estimator.save(tmp_path / "job")
    code = "import sys; sys.modules['sklearn'] = None; import fastlstm; fastlstm.load(sys.argv[1])"
    call = [sys.executable, "-c", code, tmp_path / "job"]
    said = subprocess.run(call, capture_output=True, check=False, text=True).stderr
    assert "fastlstm.sklearn needs the package sklearn: pip install 'fastlstm[sklearn]'" in said


# --- damaged files --------------------------------------------------------------------------------


def test_damaged_files(tmp_path: Path, rng: np.random.Generator) -> None:
    X = steps(6)
    estimator = SequenceRegressor(hidden_size=2, **BRIEF).fit(X, np.arange(6.0))
    path = tmp_path / "job"
    estimator.save(path)
    check_reader(fastlstm.load, path, path.read_bytes())


def with_meta(path: Path, change: Any) -> None:
    """Change what a file's metadata says of the estimator."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["fastlstm"])
    change(config["module"]["meta"])
    header["__metadata__"]["fastlstm"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(estimator="Pipeline"),
        lambda meta: meta.update(estimator=["SequenceClassifier"]),
        lambda meta: meta["options"].update(unheard_of=1),
        lambda meta: meta["learned"].update(predict=1),
        lambda meta: meta["learned"].update(classes_={"array": ["<U900000000", [2], ["a", "b"]]}),
        lambda meta: meta["learned"].update(classes_={"array": ["<i8", [3], [1, 2]]}),
        lambda meta: meta["learned"].update(classes_={"array": ["<i8", [3], [1, 2, 3]]}),
        lambda meta: meta["learned"].update(classes_={"array": ["<i8", [2], [1, 2**99]]}),
        lambda meta: meta["learned"].update(n_iter_={"object": "os.system"}),
        lambda meta: meta.pop("learned"),
    ],
    ids=[
        "class",
        "no name",
        "option",
        "attribute",
        "huge",
        "shape",
        "width",
        "large",
        "value",
        "nothing",
    ],
)
def test_files_that_say_something_else(change: Any, tmp_path: Path) -> None:
    estimator, _, _ = fitted(classify(**BRIEF))
    path = tmp_path / "job"
    estimator.save(path)
    with_meta(path, lambda meta: None)
    fastlstm.load(path)
    with_meta(path, change)
    with pytest.raises(ValueError, match="damaged, or of another version"):
        fastlstm.load(path)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        1.5,
        float("inf"),
        "text",
        [1, "a", (2.0, None)],
        {"a": 1, 3: [2], (1, 2): {}},
    ],
    ids=repr,
)
def test_values_as_json_has_them(value: Any) -> None:
    plain = to_plain("value", value)
    again = from_plain(json.loads(json.dumps(plain, allow_nan=False)))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([1.1, np.nan, -np.inf]),
        np.array(["a", "bcd"]),
        np.array(["a", 3], object),
        np.array([True, False]),
        np.zeros((0, 2), np.float32),
        np.float64(0.1),
        np.int64(3),
    ],
    ids=repr,
)
def test_arrays_as_json_has_them(array: Any) -> None:
    plain = json.loads(json.dumps(to_plain("array", array), allow_nan=False))
    again = from_plain(plain)
    assert type(again) is type(array)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([1j]), [b"a"]], ids=lambda v: type(v))
def test_what_json_has_not(value: Any) -> None:
    with pytest.raises(TypeError, match="value: a file has no "):
        to_plain("value", value)


# --- ONNX -----------------------------------------------------------------------------------------


def run_onnx(path: Path, X: Any, lengths: Any) -> tuple[str, np.ndarray, dict[str, Any]]:
    """The output's name and values, and the metadata."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"X": X, "lengths": np.asarray(lengths, np.int32)})
    notes = session.get_modelmeta().custom_metadata_map
    return session.get_outputs()[0].name, result, {k: json.loads(v) for k, v in notes.items()}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    ("pooling", "bidirectional"),
    [("max", True), ("mean", True), ("last", True), ("ends", True), ("max", False)],
)
def test_an_onnx_model_predicts_the_same(
    cell: str, pooling: str, bidirectional: bool, tmp_path: Path
) -> None:
    estimator, X, y = regress(cell=cell, pooling=pooling, bidirectional=bidirectional, **BRIEF)
    estimator.fit(X, np.column_stack([y, y**2]))
    estimator.to_onnx(tmp_path / "job.onnx")
    padded, lengths = nn.pad([x.astype(np.float32) for x in X], batch_first=True)
    name, result, notes = run_onnx(tmp_path / "job.onnx", padded, lengths)
    assert name == "prediction"
    assert notes == {}
    # Of inputs that were rounded, on scales of their own.
    scaled = (result - estimator.predict(X)) / estimator.y_scale_
    assert np.abs(scaled).max() < 1e-5


def test_an_onnx_model_of_tokens(tmp_path: Path) -> None:
    estimator, X, _ = fitted(classify_texts(num_layers=2, **BRIEF))
    estimator.to_onnx(tmp_path / "job.onnx")
    X = [*X, ["new", "a"]]
    places = [[estimator.vocabulary_.get(word, 0) for word in x] for x in X]
    padded, lengths = nn.pad(places, batch_first=True)
    name, result, notes = run_onnx(tmp_path / "job.onnx", padded, lengths)
    assert name == "probabilities"
    np.testing.assert_allclose(result, estimator.predict_proba(X), atol=1e-6)
    assert notes["classes"] == estimator.classes_.tolist()
    assert dict(notes["vocabulary"]) == estimator.vocabulary_


def test_an_onnx_model_of_steps(tmp_path: Path) -> None:
    estimator, X, _ = fitted(tag(crf=False, **BRIEF))
    estimator.to_onnx(tmp_path / "job.onnx")
    places = [[estimator.vocabulary_[word] for word in x] for x in X]
    padded, lengths = nn.pad(places, batch_first=True)
    _, result, _ = run_onnx(tmp_path / "job.onnx", padded, lengths)
    for p, of_model, length in zip(estimator.predict_proba(X), result, lengths, strict=True):
        np.testing.assert_allclose(of_model[:length], p, atol=1e-6)


def test_an_onnx_model_of_a_transcriber(tmp_path: Path) -> None:
    estimator, X, _ = fitted(transcribe(epochs=5))
    estimator.to_onnx(tmp_path / "job.onnx")
    padded, lengths = nn.pad([x.astype(np.float32) for x in X], batch_first=True)
    _, result, _ = run_onnx(tmp_path / "job.onnx", padded, lengths)
    found = nn.ctc_decode(np.log(result), lengths, batch_first=True)
    texts = ["".join(estimator.classes_[h.tokens - 1]) for h in found]
    assert texts == estimator.predict(X)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (tag, {}, "crf: ONNX has no node"),
        (classify, {"zoneout": 0.1}, "zoneout"),
        (classify, {"layer_norm": True}, "layer_norm"),
    ],
)
def test_what_onnx_cannot_represent(
    make: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    estimator, _, _ = fitted(make(**options, **BRIEF))
    with pytest.raises(ValueError, match=message):
        estimator.to_onnx(tmp_path / "job.onnx")
    assert not (tmp_path / "job.onnx").exists()


def test_options_that_are_objects_come_back_as_fitting_took_them(tmp_path: Path) -> None:
    estimator, X, _ = fitted(classify(dtype=np.float64, **BRIEF))
    estimator.save(tmp_path / "job")
    again = fastlstm.load(tmp_path / "job")
    assert again.dtype == "float64"
    assert np.array_equal(again.predict_proba(X), estimator.predict_proba(X))

    vectors = Embeddings(list("abc"), np.eye(3, dtype=np.float32))
    vectors.save(tmp_path / "vectors")
    job = fitted(classify_texts(**{**BRIEF, "embedding": tmp_path / "vectors"}))
    job.estimator.save(tmp_path / "job")
    assert fastlstm.load(tmp_path / "job").embedding == str(tmp_path / "vectors")

"""What users are told: missing extras, paths that are none, arguments of other kinds."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm._checks import as_float_array

X = np.ones((5, 2, 3), np.float32)
LSTM = fastlstm.LSTM(3, 4, seed=0)

READERS: dict[str, Callable[[Any], Any]] = {
    "load": fastlstm.load,
    "embeddings.load": fastlstm.embeddings.load,
    "from_torch": fastlstm.from_torch,
    "from_keras": fastlstm.from_keras,
    "from_onnx": fastlstm.from_onnx,
}
WRITERS: dict[str, Callable[[Any], None]] = {
    "save": LSTM.save,
    "embeddings.save": fastlstm.embeddings.Embeddings(["a"], np.eye(1)).save,
    "to_onnx": lambda path: fastlstm.to_onnx(LSTM, path),
}


@pytest.mark.parametrize(
    ("call", "missing", "message"),
    [
        ("fastlstm.to_onnx(lstm, 'x')", "onnx", "to_onnx needs {}: pip install 'fastlstm[onnx]'"),
        ("fastlstm.from_onnx('x')", "onnx", "from_onnx needs {}: pip install 'fastlstm[onnx]'"),
        (
            "fastlstm.verify(lstm, {'weight_ih_l0': 0})",
            "torch",
            "verify needs {}: pip install 'fastlstm[verify]'",
        ),
        (
            "from fastlstm import plot",
            "matplotlib",
            "fastlstm.plot needs {}: pip install 'fastlstm[plot]'",
        ),
        ("import fastlstm.demo", "tqdm", "fastlstm.demo needs {}: pip install 'fastlstm[demo]'"),
        (
            "from fastlstm_bench.plots import pyplot; pyplot()",
            "matplotlib",
            "drawing needs {}: pip install 'fastlstm[bench]'",
        ),
    ],
)
def test_missing_extras(call: str, missing: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    # None in sys.modules makes an import fail as if the module were not there.
    program = f"""
import sys, fastlstm
sys.modules[{missing!r}] = None
lstm = fastlstm.LSTM(3, 4)
try:
    {call}
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    name, _, text = result.stdout.strip().partition(" ")
    assert text == message.format(f"the package {missing}"), result.stderr
    assert name.split(".")[0] == missing


@pytest.mark.parametrize("path", [None, 3, b"x", 1.5, ["x"]])
def test_paths_of_wrong_types(path: Any) -> None:
    kind = type(path).__name__
    for name in ("load", "embeddings.load"):
        with pytest.raises(TypeError, match=f"^path: expected str or os.PathLike, got {kind}$"):
            READERS[name](path)
    for name in ("from_torch", "from_keras", "from_onnx"):
        if name == "from_torch" and isinstance(path, list):
            continue  # it might hold modules
        with pytest.raises(TypeError, match=f"^source: expected .* or a path, got {kind}$"):
            READERS[name](path)
    for write in WRITERS.values():
        with pytest.raises(TypeError, match=f"^path: expected str or os.PathLike, got {kind}$"):
            write(path)


@pytest.mark.parametrize("name", READERS)
def test_devices_and_pipes_are_not_read(name: str, tmp_path: Path) -> None:
    # /dev/zero would be read without an end, and a pipe waited for.
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        with pytest.raises(OSError, match="Not a regular file") as raised:
            READERS[name](path)
        assert raised.value.filename == path


@pytest.mark.parametrize("name", WRITERS)
def test_the_path_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "no folder" / "file")
    with pytest.raises(FileNotFoundError) as raised:
        WRITERS[name](path)
    assert (raised.value.filename, raised.value.filename2) == (path, None)
    assert str(raised.value) == f"[Errno 2] No such file or directory: {path!r}"


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_tapes_say_what_to_do_instead_of_copying(copied: Callable[[Any], Any]) -> None:
    _, _, tape = LSTM.forward(X)
    with pytest.raises(TypeError, match="cannot pickle or copy a tape: pickle the layer and the"):
        copied(tape)


@pytest.mark.parametrize("layer", [None, "lstm", fastlstm.LSTM, LSTM.forward])
def test_truncated_bptt_of_no_layer(layer: Any) -> None:
    kind = type(layer).__name__
    with pytest.raises(TypeError, match=f"layer: expected an LSTM, GRU or RNN, got {kind}"):
        fastlstm.truncated_bptt(layer, X, 2)


def test_true_is_no_number() -> None:
    with pytest.raises(TypeError, match="num_layers: expected an integer, got bool"):
        fastlstm.LSTM(3, 4, True)
    with pytest.raises(TypeError, match="batch_size: expected an integer, got bool"):
        LSTM.stream(True)


def test_integers_beyond_floats() -> None:
    for value in (10**400, -(10**400)):
        with pytest.raises(ValueError, match=r"dropout: expected a number from 0 to 1, got -?inf"):
            fastlstm.LSTM(3, 4, 2, dropout=value)


def test_arrays_are_no_names() -> None:
    names: Any = np.array(["concat", "sum"])
    with pytest.raises(ValueError, match="merge: expected concat, sum, mul, ave or None, got"):
        fastlstm.LSTM(3, 4, bidirectional=True, merge=names)
    with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu', got"):
        fastlstm.RNN(3, 4, nonlinearity=names)


def test_masked_values_are_not_taken_for_numbers() -> None:
    x = np.ma.masked_array(X, mask=False)
    assert np.array_equal(LSTM(x)[0], LSTM(X)[0])
    x[2, 1, 0] = np.ma.masked
    for call in (LSTM, LSTM.forward, LSTM.trace, LSTM.stream(2).run):
        with pytest.raises(TypeError, match="x: expected an array without masked values"):
            call(x)


def test_a_prediction_of_memory_that_no_integer_holds() -> None:
    most = (2**31 - 1) // 8
    with pytest.raises(ValueError, match=r"T, B: expected a call of less than 2\*\*62 bytes"):
        LSTM.training_memory(most, most)
    assert LSTM.training_memory(2**22, 2**22).bytes > 2**50


def test_embeddings_of_other_things() -> None:
    embeddings = fastlstm.embeddings.Embeddings(["a"], np.eye(1))
    nothing: Any = None
    with pytest.raises(TypeError, match="sentences: expected lists of words, got NoneType"):
        embeddings.lookup(nothing)
    with pytest.raises(TypeError, match=r"encoding, errors: .* must be str, not int"):
        fastlstm.embeddings.load(__file__, encoding=3)  # type: ignore[arg-type]


def test_a_path_with_a_nul_character() -> None:
    for call in (
        fastlstm.load,
        fastlstm.embeddings.load,
        fastlstm.LSTM(1, 1).save,
        fastlstm.embeddings.Embeddings([], np.ones((0, 2))).save,
    ):
        with pytest.raises(ValueError, match=r"^path: expected a path without a NUL character"):
            call("a\0b")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_large_arrays_of_other_types_and_orders(kind: str, order: Any) -> None:
    """They are converted in pieces."""
    values = np.arange(3 * 2**20, dtype=kind).reshape(1024, -1)
    converted = as_float_array("x", np.asarray(values, order=order), np.dtype(np.float32))
    assert converted.flags.carray
    np.testing.assert_array_equal(converted, values)

"""The short suite of an installed wheel: whether what was compiled and packed works here.

``tools/build_wheels.py`` runs it for each wheel, on each instruction set, with what the extra
``test-wheel`` brings. The other tests say in detail what is right.
"""

from __future__ import annotations

import contextvars
import importlib
import os
import signal
import sys
import sysconfig
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import fastlstm
import fastlstm.embeddings
import numpy as np
import pytest
from fastlstm import nn, reference
from fastlstm._blas import require_blas
from fastlstm.cli import main
from fastlstm.layers.states import as_tuple
from support import (
    DTYPES,
    Case,
    assert_gradients_close,
    assert_same_bits,
    assert_same_states,
    assert_states_close,
    gradient_arrays,
    make_problem,
    solve,
)
from tolerances import BACKWARD, FORWARD, assert_close

# Sizes that fill no vector; lengths in no order.
BOTH_WAYS = {"num_layers": 2, "bidirectional": True}
UNEVEN = {"B": 5, "H": 19, "I": 9, "lengths": (2, 6, 0, 3, 5)}
CELLS = {
    "LSTM": Case(**UNEVEN, options=BOTH_WAYS),
    "LSTM with a projection": Case(**UNEVEN, options={**BOTH_WAYS, "proj_size": 3}),
    "LSTM with options": Case(
        **UNEVEN,
        options={
            "activations": ("HardSigmoid", "Softsign", ("ScaledTanh", 0.8, 1.3)),
            "clip": 1.1,
            "input_forget": True,
        },
    ),
    "large LSTM": Case(T=20, B=24, I=40, H=96),
    "GRU": Case(**UNEVEN, cell="GRU", options=BOTH_WAYS),
    "GRU, reset before": Case(**UNEVEN, cell="GRU", options={"reset_after": False}),
    "RNN, tanh": Case(**UNEVEN, cell="RNN", options=BOTH_WAYS),
    "RNN, relu": Case(**UNEVEN, cell="RNN", options={"nonlinearity": "relu"}),
}
STREAMS = {
    "LSTM": Case(T=12, H=19, options={"num_layers": 2}),
    "LSTM, one row": Case(T=12, B=1, H=64),
    "LSTM with layer_norm": Case(T=12, H=19, options={"layer_norm": True}),
    "LSTM with peepholes": Case(T=12, H=19, options={"peepholes": True, "proj_size": 5}),
    "GRU": Case(T=12, H=19, cell="GRU"),
    "RNN": Case(T=12, H=19, cell="RNN"),
}


def test_the_instruction_set_is_the_one_that_was_asked_for() -> None:
    available = fastlstm.available_isas()
    assert fastlstm.isa() == (os.environ.get("FASTLSTM_ISA") or available[0])
    assert "generic" in available


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_are_the_references(cell: str, dtype: str) -> None:
    p = make_problem(CELLS[cell], dtype)
    expected = solve(p)
    output, state, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_states_close(state, expected.state, FORWARD[dtype])
    assert_gradients_close(tape.backward(p.d_output, p.d_state), expected.grads, BACKWARD[dtype])
    assert_same_bits(p.layer(p.x, p.state, lengths=p.lengths)[0], output)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", STREAMS)
def test_steps_of_a_stream_have_the_bits_of_a_call(cell: str, dtype: str) -> None:
    p = make_problem(STREAMS[cell], dtype)
    output, final = p.layer(p.x, p.state)
    stream = p.layer.stream(p.x.shape[1])
    stream.state = p.state
    steps = [stream.step(x_t) for x_t in p.x]
    assert_same_bits(np.stack(steps), output)
    assert_same_states(stream.state, final)
    stream.state = p.state
    assert_same_bits(stream.run(p.x), output)


def test_a_loss_over_sequences() -> None:
    """CTC, whose exp and log in float64 are the system's."""
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(9, 1, 4)), np.array([[1, 2, 2]])
    expected, expected_d = reference.ctc_loss(logits[:, 0], targets[0])
    loss, d_logits = nn.ctc(logits, None, targets, reduction="sum")
    assert_close(np.asarray(loss), np.asarray(expected), FORWARD["float64"], "loss")
    assert_close(d_logits[:, 0], expected_d, BACKWARD["float64"], "d_logits")


def both(layer: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """All that a training step of a layer makes."""
    output, state, tape = layer.forward(x)
    parts = {f"state {k}": part for k, part in enumerate(as_tuple(state))}
    return {"output": output, **parts, **gradient_arrays(tape.backward(output))}


def make_large() -> tuple[Any, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((12, 24, 48)).astype(np.float32)
    return fastlstm.LSTM(48, 96, 2, bidirectional=True, seed=0), x


def assert_all_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        assert_same_bits(actual[name], value, name)


def test_any_number_of_threads_has_the_same_bits() -> None:
    layer, x = make_large()
    with fastlstm.num_threads(1):
        expected = layer(x)
    for threads in (2, 3):
        with fastlstm.num_threads(threads):
            actual = layer(x)
        assert_same_bits(actual[0], expected[0])
        assert_same_states(actual[1], expected[1])


def test_calls_of_several_threads_at_once() -> None:
    layer, x = make_large()
    with fastlstm.num_threads(1):
        expected = both(layer, x)
    results: list[dict[str, np.ndarray]] = []

    def work() -> None:
        with fastlstm.num_threads(1):
            results.extend(both(layer, x) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for result in results:
        assert_all_same(result, expected)


def test_a_block_of_threads_ends_while_another_thread_computes() -> None:
    """They share the block: its thread ends it, and opens the next, as calls look at it."""
    layer = fastlstm.LSTM(3, 8, seed=0)
    x = np.ones((1, 3), np.float32)
    expected = layer(x)[0]
    started, done = threading.Event(), threading.Event()
    contexts: list[contextvars.Context] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                assert_same_bits(contexts[-1].copy().run(layer, x)[0], expected)
                started.set()
        except BaseException as error:
            failed.append(error)
            started.set()

    threads = [threading.Thread(target=work) for _ in range(2)]
    with fastlstm.num_threads(1):
        contexts.append(contextvars.copy_context())
        for thread in threads:
            thread.start()
        started.wait()
    for _ in range(500):
        with fastlstm.num_threads(1):
            contexts.append(contextvars.copy_context())
    done.set()
    for thread in threads:
        thread.join()
    assert not failed, failed


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="Python has its interpreter's lock"
)
def test_the_interpreters_lock_does_not_come_back() -> None:
    require_blas()
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_the_child_of_a_fork_computes() -> None:
    layer, x = make_large()
    with fastlstm.num_threads(2), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork with threads
        expected = layer(x)[0]
        child = os.fork()
        if child == 0:
            signal.alarm(200)
            os._exit(0 if np.array_equal(layer(x)[0], expected) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert_same_bits(layer(x)[0], expected)


# --- importers ------------------------------------------------------------------------------------


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules of tests/fuzz by their names: they write small files of each format."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fuzz")

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_saved_layers(tmp_path: Path) -> None:
    for layer in (fastlstm.LSTM(3, 4, 2, seed=0), fastlstm.GRU(3, 4, dtype="float64", seed=0)):
        path = tmp_path / "layer.safetensors"
        for _ in range(2):  # the second replaces the first
            layer.save(path)
        assert_all_same(dict(fastlstm.load(path).params), dict(layer.params))
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["net", "module", "script", "before", "pickle0", "pickle5"])
def test_files_of_pytorch(name: str, files: Any, tmp_path: Path) -> None:
    torch_file = files("torch_file")
    torch_file.originals(tmp_path)
    layer = fastlstm.from_torch(tmp_path / f"{name}.pt")
    assert_all_same(dict(layer.params), torch_file.WEIGHTS)


@pytest.mark.parametrize(
    "name", ["earliest.h5", "latest.h5", "earliest.weights.h5", "latest.weights.h5", "model.keras"]
)
def test_files_of_keras(name: str, files: Any, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    keras_file = files("keras_file")
    keras_file.originals(tmp_path)
    options = keras_file.GATES if "weights" in name else {}
    layer = fastlstm.from_keras(tmp_path / name, "one", **options)
    kernel, recurrent_kernel, bias = keras_file.weights("LSTM").values()
    assert_same_bits(layer.params["weight_ih_l0"], kernel.T)
    assert_same_bits(layer.params["weight_hh_l0"], recurrent_kernel.T)
    assert_same_bits(layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"], bias)


def test_models_of_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for layer in (fastlstm.LSTM(3, 4, bidirectional=True, seed=0), fastlstm.GRU(3, 4, seed=0)):
        fastlstm.to_onnx(layer, tmp_path / "layer.onnx")
        read = fastlstm.from_onnx(tmp_path / "layer.onnx")
        assert_all_same(dict(read.params), dict(layer.params))


def test_embeddings(files: Any, tmp_path: Path) -> None:
    embeddings_file = files("embeddings_file")
    embeddings_file.originals(tmp_path)
    for name in ("word2vec", "glove", "binary", "compressed", "saved"):
        read = fastlstm.embeddings.load(tmp_path / name)
        assert len(read.words) == len(embeddings_file.WORDS)
        np.testing.assert_array_equal(read.vectors, embeddings_file.VECTORS)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert not main(["info"])
    assert fastlstm.isa() in capsys.readouterr().out

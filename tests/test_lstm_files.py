"""Saving and loading, damaged and foreign files, pickling and copying."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import pickletools
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastlstm
import numpy as np
import pytest
import safetensors.numpy
from support import Case, assert_same_bits, make_layer

X = np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32)

LAYERS = {
    "plain": ("float32", Case()),
    "float64": ("float64", Case(options={"bias": False, "batch_first": True})),
    "reverse": ("float32", Case(options={"reverse": True})),
    "everything": (
        "float32",
        Case(
            options={"num_layers": 3, "bidirectional": True, "proj_size": 2, "dropout": 0.25},
        ),
    ),
}


def assert_same_layer(actual: fastlstm.LSTM, expected: fastlstm.LSTM) -> None:
    assert type(actual) is type(expected)
    assert repr(actual) == repr(expected)
    assert list(actual.params) == list(expected.params)
    for name, w in expected.params.items():
        assert_same_bits(actual.params[name], w, name)
        assert not actual.params[name].flags.writeable
    assert_same_bits(actual(X)[0], expected(X)[0])


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request: pytest.FixtureRequest) -> fastlstm.LSTM:
    dtype, case = request.param
    return make_layer(case, dtype)


# --- files --------------------------------------------------------------------------------------


def test_save_and_load(layer: fastlstm.LSTM, tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    assert_same_layer(fastlstm.load(path), layer)
    assert_same_layer(fastlstm.load(str(path)), layer)
    assert os.listdir(tmp_path) == ["layer.safetensors"]


def test_a_loaded_layer_trains_and_updates(tmp_path: Path) -> None:
    fastlstm.LSTM(5, 4, seed=0).save(tmp_path / "l")
    layer = fastlstm.load(tmp_path / "l")
    output, _, tape = layer.forward(X)
    layer.update(tape.backward(output).params)
    layer.save(tmp_path / "l")
    assert_same_layer(fastlstm.load(tmp_path / "l"), layer)


def test_the_tensors_are_pytorchs(layer: fastlstm.LSTM, tmp_path: Path) -> None:
    layer.save(tmp_path / "l")
    tensors = safetensors.numpy.load_file(tmp_path / "l")
    assert tensors.keys() == layer.params.keys()
    for name, w in layer.params.items():
        assert_same_bits(tensors[name], w)


def test_save_replaces_a_file_and_keeps_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text("old")
    plain = tmp_path / "plain"
    plain.write_text("")
    layer = fastlstm.LSTM(5, 4, seed=0)
    layer.save(path)
    assert_same_layer(fastlstm.load(path), layer)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_save_into_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fastlstm.LSTM(5, 4, seed=0).save("l")
    assert os.listdir() == ["l"]
    fastlstm.load("l")


def test_a_failed_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disk full", "the temporary file")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full") as raised:
        fastlstm.LSTM(5, 4).save(path)
    assert raised.value.filename == str(path)
    assert os.listdir(tmp_path) == ["l"]
    assert path.read_text() == "old"


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("l" * 255)
    fastlstm.LSTM(5, 4).save(path)
    assert os.listdir(tmp_path) == [path.name]


def test_devices_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    layer = fastlstm.LSTM(5, 4, seed=0)
    layer.save(tmp_path / "l")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        layer.save(pipe)
        assert read.result() == (tmp_path / "l").read_bytes()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        layer.save("/dev/full")


def test_paths_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    layer = fastlstm.LSTM(5, 4)
    with pytest.raises(FileNotFoundError) as raised:
        layer.save(tmp_path / "no folder" / "l")
    assert raised.value.filename == str(tmp_path / "no folder" / "l")
    with pytest.raises(IsADirectoryError) as raised:
        layer.save(tmp_path)
    assert raised.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastlstm.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        fastlstm.load(tmp_path)
    with pytest.raises(TypeError):
        fastlstm.load(None)


def _saved(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "l"
    fastlstm.LSTM(5, 4, seed=0).save(path)
    return path, path.read_bytes()


def test_truncated_files(tmp_path: Path) -> None:
    path, data = _saved(tmp_path)
    for size in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="not a safetensors file that can be read") as error:
            fastlstm.load(path)
        assert str(path) in str(error.value)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="not a safetensors file that can be read"):
        fastlstm.load(path)


def test_damaged_headers_are_refused_or_harmless(tmp_path: Path) -> None:
    """Any byte of the header may be damaged: a ValueError, or a layer of the right shapes."""
    path, data = _saved(tmp_path)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, header, rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            layer = fastlstm.load(path)
        except ValueError:
            continue
        assert layer(np.ones((2, 1, layer.input_size)))[0].shape[0] in (1, 2)


@pytest.mark.parametrize(
    "content", [b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), b"{}", b"\xff" * 64, bytes(64)]
)
def test_other_kinds_of_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file that can be read"):
        fastlstm.load(path)


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "l"
    tensors = fastlstm.LSTM(5, 4).state_dict()
    for metadata in (None, {}, {"format": "pt"}):
        safetensors.numpy.save_file(tensors, path, metadata=metadata)
        with pytest.raises(ValueError, match="not one that fastlstm saved"):
            fastlstm.load(path)
    # As the message says:
    layer = fastlstm.LSTM(5, 4)
    layer.load_state_dict(safetensors.numpy.load_file(path))


SIZES = {"input_size": 5, "hidden_size": 4, "num_layers": 1}
GOOD = {"format": 1, "layer": "LSTM", "options": SIZES}


def _with_options(**options: object) -> dict[str, object]:
    return {**GOOD, "options": SIZES | options}


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "null",
        "[]",
        '"LSTM"',
        "3",
        "[" * 100_000,
        {},
        {**GOOD, "format": 2},
        {**GOOD, "format": "1"},
        {**GOOD, "layer": "Transformer"},
        {**GOOD, "layer": ["LSTM"]},
        {**GOOD, "options": None},
        {**GOOD, "options": {}},
        {**GOOD, "options": [5, 4]},
        {"format": 1, "layer": "LSTM"},
        _with_options(hidden_size=5),
        _with_options(hidden_size=2**27),  # 2^60 values, were they made
        _with_options(hidden_size="4"),
        _with_options(input_size=4),
        _with_options(input_size=-5),
        _with_options(num_layers=2),
        _with_options(num_layers=2**27),
        _with_options(num_layers=0),
        _with_options(num_layers=None),
        _with_options(bias=False),
        _with_options(bidirectional=True),
        _with_options(proj_size=3),
        _with_options(dtype="float16"),
        _with_options(dropout=7),
        _with_options(colour="red"),
    ],
    ids=lambda config: (json.dumps(config) if isinstance(config, dict) else config)[:60],
)
def test_damaged_configurations(config: object, tmp_path: Path) -> None:
    path = tmp_path / "l"
    text = config if isinstance(config, str) else json.dumps(config)
    tensors = fastlstm.LSTM(5, 4).state_dict()
    safetensors.numpy.save_file(tensors, path, metadata={"fastlstm": text})
    with pytest.raises(ValueError, match="damaged, or of another version of fastlstm") as error:
        fastlstm.load(path)
    assert str(path) in str(error.value)


def test_the_good_configuration_is_good(tmp_path: Path) -> None:
    """So that the cases above fail for their own reasons."""
    tensors = fastlstm.LSTM(5, 4, seed=0).state_dict()
    safetensors.numpy.save_file(tensors, tmp_path / "l", metadata={"fastlstm": json.dumps(GOOD)})
    assert_same_layer(fastlstm.load(tmp_path / "l"), fastlstm.LSTM(5, 4, seed=0))


@pytest.mark.parametrize(
    "change",
    [
        {"weight_ih_l0": np.ones((16, 6), np.float32)},
        {"weight_ih_l0": np.ones(80, np.float32)},
        {"bias_ih_l0": np.ones((4, 4), np.float32)},
        {"weight_hr_l0": np.ones((2, 4), np.float32)},
        {"weight_ih_l0": None},
        {"bias_hh_l0": None},
    ],
)
def test_damaged_tensors(change: dict[str, np.ndarray | None], tmp_path: Path) -> None:
    tensors = fastlstm.LSTM(5, 4).state_dict() | change
    tensors = {name: w for name, w in tensors.items() if w is not None}
    safetensors.numpy.save_file(tensors, tmp_path / "l", metadata={"fastlstm": json.dumps(GOOD)})
    with pytest.raises(ValueError, match="damaged, or of another version of fastlstm"):
        fastlstm.load(tmp_path / "l")


# What files of all versions say, to the letter: readers of other programs may depend on it.
CONFIGURATIONS = {
    fastlstm.LSTM: '"num_layers": 1, "bias": true, "batch_first": false, "dropout": 0.0, '
    '"bidirectional": false, "reverse": false, "merge": "concat", "dtype": "float32", '
    '"proj_size": 0, "peepholes": false, "input_forget": false, "clip": null, '
    '"activations": ["Sigmoid", "Tanh", "Tanh"], "layer_norm": false, "recurrent_dropout": 0.0, '
    '"zoneout": [0.0, 0.0], "weight_dropout": 0.0',
    fastlstm.GRU: '"num_layers": 1, "bias": true, "batch_first": false, "dropout": 0.0, '
    '"bidirectional": false, "reverse": false, "merge": "concat", "dtype": "float32", '
    '"reset_after": true, "clip": null, "activations": ["Sigmoid", "Tanh"], '
    '"recurrent_dropout": 0.0, "zoneout": 0.0, "weight_dropout": 0.0',
    fastlstm.RNN: '"num_layers": 1, "bias": true, "batch_first": false, "dropout": 0.0, '
    '"bidirectional": false, "reverse": false, "merge": "concat", "dtype": "float32", '
    '"nonlinearity": "tanh", "clip": null, "activations": null, "recurrent_dropout": 0.0, '
    '"zoneout": 0.0, "weight_dropout": 0.0',
}


@pytest.mark.parametrize("cls", CONFIGURATIONS)
def test_the_configuration_to_the_letter(cls: type, tmp_path: Path) -> None:
    cls(5, 4, seed=0).save(tmp_path / "l")
    with safetensors.safe_open(tmp_path / "l", framework="numpy") as file:
        assert file.metadata() == {
            "fastlstm": f'{{"format": 1, "layer": "{cls.__name__}", "options": '
            f'{{"input_size": 5, "hidden_size": 4, {CONFIGURATIONS[cls]}}}}}'
        }


# --- pickling and copying -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(layer: fastlstm.LSTM, protocol: int) -> None:
    assert_same_layer(pickle.loads(pickle.dumps(layer, protocol)), layer)


@pytest.mark.parametrize("cls", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
def test_pickles_do_not_depend_on_the_files_of_the_package(cls: type) -> None:
    layer = cls(5, 4, seed=0)
    output, _, tape = layer.forward(X)
    for thing in (layer, layer.trace(X), tape.backward(output), layer.training_memory(3)):
        names = {
            argument
            for _, argument, _ in pickletools.genops(pickle.dumps(thing, 5))
            if isinstance(argument, str) and "fastlstm" in argument
        }
        assert names == {"fastlstm"}


def test_a_pickle_out_of_band_keeps_its_own_values() -> None:
    layer = fastlstm.LSTM(5, 4, seed=0)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(layer, 5, buffer_callback=buffers.append)
    memory = [bytearray(b.raw()) for b in buffers]
    other = pickle.loads(data, buffers=memory)
    for m in memory:
        m[:] = bytes(len(m))
    assert_same_layer(other, layer)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_copies_are_independent(copier: object, layer: fastlstm.LSTM) -> None:
    other = copier(layer)
    assert_same_layer(other, layer)
    before, (expected, _) = layer.params, layer(X)
    other.update({name: 2 * w for name, w in other.params.items()})
    for name, w in layer.params.items():
        assert w is before[name]
    assert_same_bits(layer(X)[0], expected)
    assert not np.array_equal(other(X)[0], expected)


@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_copies_go_on_with_the_same_random_numbers_apart(copier: object) -> None:
    layer = fastlstm.LSTM(5, 8, num_layers=2, dropout=0.5, seed=0)
    layer.forward(X)
    other = copier(layer)
    theirs = [other.forward(X)[0] for _ in range(3)]
    ours = [layer.forward(X)[0] for _ in range(3)]
    for a, b in zip(ours, theirs, strict=True):
        assert_same_bits(a, b)


def test_unpickled_in_another_process(tmp_path: Path) -> None:
    """Before anything else there has loaded BLAS or made a layer."""
    layer = fastlstm.LSTM(5, 4, seed=0)
    (tmp_path / "l").write_bytes(pickle.dumps((layer, X)))
    code = (
        "import pickle, sys; layer, x = pickle.load(open(sys.argv[1], 'rb'));"
        "sys.stdout.buffer.write(layer(x)[0].tobytes())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "l")], capture_output=True, check=True
    )
    assert run.stdout == layer(X)[0].tobytes()


def test_tapes_and_streams_refuse_to_be_pickled() -> None:
    layer = fastlstm.LSTM(5, 4)
    for thing in (layer.forward(X)[2], layer.stream()):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.deepcopy(thing)

"""Layers from Keras: results and gradients over a grid of options, files, errors, damage."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from damage import check_reader
from fastlstm.interchange import keras as reader
from fastlstm.interchange._tensors import Tensor
from foreign import build
from tolerances import FOREIGN, FOREIGN_GRADIENTS, assert_close

h5py = pytest.importorskip("h5py")
torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

# Keras' own, with NumPy 2.4.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T, B, I, H = 5, 4, 3, 6
CELLS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
KERAS = tuple(int(n) for n in keras.__version__.split(".")[:2])
# The first versions whose layers have float64's accuracy on PyTorch; before, about float32's.
EXACT_FROM = {"LSTM": (3, 14), "GRU": (3, 15)}


def make(kind: str, **options: Any) -> Any:
    """A built layer of Keras with random values, biases too."""
    layer = getattr(keras.layers, kind)(H, return_sequences=True, return_state=True, **options)
    return fill(layer)


def fill(layer: Any, seed: int = 0) -> Any:
    if not layer.built:
        layer.build((B, T, I))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.get_weights()])
    return layer


def check_parity(layer: Any, ours: Any, *, gradients: bool = True) -> None:
    """Compare outputs, final states and the gradients of the inputs and weights."""
    dtype = str(layer.weights[0].dtype)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((B, T, I)).astype(dtype)
    torch_x = torch.tensor(x, requires_grad=True)
    output, *states = layer(torch_x)
    expected = output.detach().numpy()
    flip = ours.reverse
    # In float64, Keras' SimpleRNN on PyTorch is 1.1e-7 from NumPy, where we are 3e-16.
    loop = isinstance(ours, fastlstm.RNN) or not getattr(ours, "reset_after", True)
    accuracy = "float32" if loop else dtype
    exact_from = EXACT_FROM.get(type(ours).__name__, (0, 0))
    if accuracy == "float64" and exact_from > KERAS:
        first = ".".join(map(str, exact_from))
        pytest.skip(f"Keras {keras.__version__}: its float64 is exact from {first} on")
    assert ours.batch_first
    assert ours.dtype == dtype
    actual, final = ours(x)
    assert_close(actual, expected[:, ::-1] if flip else expected, FOREIGN[accuracy], "output")
    # Keras: h and c of one direction, then of the other. Ours: both h, both c.
    final = final if isinstance(final, tuple) else (final,)
    D = len(states) // len(final)
    for d, n in itertools.product(range(D), range(len(final))):
        theirs = states[d * len(final) + n].detach().numpy()
        assert_close(final[n][d], theirs, FOREIGN[accuracy], "state")
    if not gradients:
        return
    d_output = rng.standard_normal(expected.shape).astype(dtype)
    (output * torch.tensor(d_output)).sum().backward()
    _, _, tape = ours.forward(x)
    grads = tape.backward(np.ascontiguousarray(d_output[:, ::-1]) if flip else d_output)
    tolerance = FOREIGN_GRADIENTS[accuracy]
    assert_close(grads.x, torch_x.grad.numpy(), tolerance, "x")
    weights = [w.value.grad.numpy() for w in layer.weights]
    expected = expected_gradients(layer.get_config(), type(ours).__name__, weights)
    assert grads.params.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(grads.params[name], value, tolerance, name)


def expected_gradients(config: Any, cell: str, weights: list[Any]) -> dict[str, np.ndarray]:
    """Keras' gradients of its weights as those of our parameters."""
    if "layer" in config:
        half, inner = len(weights) // 2, config["layer"]["config"]
        one, other = (
            expected_gradients(inner, cell, part) for part in (weights[:half], weights[half:])
        )
        return one | {f"{name}_reverse": value for name, value in other.items()}
    options = {} if config.get("reset_after", True) else {"reset_after": False}
    tensors = [Tensor(w.shape, functools.partial(np.asarray, w)) for w in weights]
    params = reader._params(cell, H, config["use_bias"], options, tensors)
    if len(weights) == 3 and weights[2].ndim == 1:  # one bias of Keras, two of ours
        params["bias_hh_l0"] = params["bias_ih_l0"]
    return params


# --- results ------------------------------------------------------------------------------------

GRID = [
    (kind, {"use_bias": bias, "go_backwards": back, **more}, dtype)
    for kind, bias, back, dtype in itertools.product(
        CELLS, (True, False), (False, True), ("float64", "float32")
    )
    for more in ([{"reset_after": True}, {"reset_after": False}] if kind == "GRU" else [{}])
]


@pytest.mark.parametrize(
    ("kind", "options", "dtype"), GRID, ids=[f"{k}-{[*o.values()]}-{d}" for k, o, d in GRID]
)
def test_parity(kind: str, options: dict[str, Any], dtype: str) -> None:
    layer = make(kind, dtype=dtype, **options)
    description = reader.describe(layer)
    assert description.cell == CELLS[kind]
    check_parity(layer, build(description))


@pytest.mark.parametrize("activation", [*reader._ACTIVATIONS, "hard_sigmoid", "leaky_relu", None])
@pytest.mark.parametrize("kind", CELLS)
def test_activations(kind: str, activation: str | None) -> None:
    options: dict[str, Any] = {"activation": activation}
    if kind != "SimpleRNN":
        options["recurrent_activation"] = "hard_sigmoid"
    # PyTorch, which computes Keras' gradients here, has 1/6 in float32 in the slope of hardsigmoid.
    for dtype, gradients in (("float32", True), ("float64", False)):
        layer = make(kind, dtype=dtype, **options)
        check_parity(layer, build(reader.describe(layer)), gradients=gradients)


MERGES = [
    (kind, {"use_bias": bias, **more}, mode, dtype)
    for kind, bias, mode, dtype in itertools.product(
        CELLS, (True, False), ("concat", "sum", "mul", "ave"), ("float64", "float32")
    )
    for more in ([{"reset_after": True}, {"reset_after": False}] if kind == "GRU" else [{}])
]


@pytest.mark.parametrize(
    ("kind", "options", "merge_mode", "dtype"),
    MERGES,
    ids=[f"{k}-{[*o.values()]}-{m}-{d}" for k, o, m, d in MERGES],
)
def test_bidirectional(kind: str, options: dict[str, Any], merge_mode: str, dtype: str) -> None:
    given = {"return_sequences": True, "return_state": True, "dtype": dtype, **options}
    inner = getattr(keras.layers, kind)(H, **given)
    layer = fill(keras.layers.Bidirectional(inner, merge_mode=merge_mode, dtype=dtype))
    check_parity(layer, build(reader.describe(layer)))


@pytest.mark.parametrize("kind", CELLS)
def test_bidirectional_with_separate_outputs(kind: str) -> None:
    inner = getattr(keras.layers, kind)(H, return_sequences=True)
    layer = fill(keras.layers.Bidirectional(inner, merge_mode=None))
    ours = fastlstm.from_keras(layer)
    assert ours.merge is None
    x = np.random.default_rng(1).standard_normal((B, T, I)).astype(np.float32)
    expected = np.stack([part.detach().numpy() for part in layer(x)])
    assert_close(ours(x)[0], expected, FOREIGN["float32"], "output")


@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: str) -> None:
    cell = fill_cell(getattr(keras.layers, f"{kind}Cell")(H))
    wrapped = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    wrapped.build((B, T, I))
    for source in (cell, wrapped):
        layer = build(reader.describe(source))
        check_parity(wrapped, layer, gradients=False)


def fill_cell(cell: Any) -> Any:
    cell.build((B, I))
    rng = np.random.default_rng(0)
    cell.set_weights([rng.normal(0, 0.5, w.shape) for w in cell.get_weights()])
    return cell


@pytest.mark.parametrize("reset_after", [True, False])
def test_recurrent_dropout_of_a_gru_is_at_the_same_places(reset_after: bool) -> None:
    """With one mask for all of Keras' gates, a step of it is the reference's."""
    layer = make("GRU", dtype="float64", recurrent_dropout=0.5, reset_after=reset_after)
    with pytest.warns(UserWarning, match="recurrent_dropout"):
        params = reader.describe(layer).params
    rng = np.random.default_rng(1)
    x, h, mask = rng.normal(size=(B, I)), rng.normal(size=(B, H)), rng.choice([0.0, 2.0], (B, H))
    layer.cell._recurrent_dropout_mask = [torch.tensor(mask)] * 3
    theirs, _ = layer.cell(torch.tensor(x), [torch.tensor(h)], training=True)
    masks = fastlstm.reference.HiddenMasks(h=mask)
    step = fastlstm.reference.gru_cell(x, h, *params.values(), reset_after=reset_after, masks=masks)
    assert_close(step.h, theirs.detach().numpy(), FOREIGN["float32"], "h")
    whole = fastlstm.reference.gru_cell(x, h, *params.values(), reset_after=reset_after)
    assert np.max(np.abs(whole.h - step.h)) > 1e-2


def test_dropout_is_not_silent() -> None:
    layer = make("LSTM", dropout=0.5, recurrent_dropout=0.25)
    with pytest.warns(UserWarning, match="Keras drops what enters") as warnings:
        ours = fastlstm.from_keras(layer)
    assert [str(w.message).partition(":")[0] for w in warnings if w.category is UserWarning] == [
        "dropout=0.5",
        "recurrent_dropout=0.25",
    ]
    assert ours.dropout == 0.0


def test_hard_sigmoid_of_keras_2_has_another_slope() -> None:
    config = {"a": "hard_sigmoid"}
    assert reader._activation("a", config, "2.15.0") == ("HardSigmoid", 0.2, 0.5)
    assert reader._activation("a", config, "3.0.0") == ("HardSigmoid", 1 / 6, 0.5)
    with pytest.raises(ValueError, match="of Keras unknown"):
        reader._activation("a", config, "")


# --- files --------------------------------------------------------------------------------------

NAMES = ["first", "both", "inner/deep", "inner/lstm"]


@pytest.fixture(scope="module")
def model() -> Any:
    layers = keras.layers
    inner = keras.Sequential(
        [
            layers.SimpleRNN(4, return_sequences=True, activation="relu", name="deep"),
            layers.LSTM(3, use_bias=False, name="lstm"),
        ],
        name="inner",
    )
    model = keras.Sequential(
        [
            keras.Input((T, I)),
            layers.LSTM(5, return_sequences=True, go_backwards=True, name="first"),
            layers.Dense(4),
            layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both"),
            inner,
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def files(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keras")
    paths = {suffix: folder / f"model{suffix}" for suffix in (".keras", ".h5")}
    for path in paths.values():
        model.save(path)
    return paths


def assert_same(actual: Any, expected: Any) -> None:
    assert actual.cell == expected.cell
    assert actual.options == expected.options
    assert actual.params.keys() == expected.params.keys()
    for name, value in expected.params.items():
        assert np.array_equal(actual.params[name], value), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files(name: str, suffix: str, model: Any, files: dict[str, Path]) -> None:
    expected = reader.describe(model, name)
    assert_same(reader.describe(files[suffix], name), expected)
    assert_same(reader.describe(str(files[suffix]), name), expected)
    layer: Any = model
    for part in name.split("/"):
        layer = layer.get_layer(part)
    assert_same(reader.describe(layer), expected)


def test_files_with_weights_only(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    gates = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    options: dict[str, dict[str, Any]] = {
        "first": {**gates, "go_backwards": True},
        "both": {**gates, "merge_mode": "concat"},
        "deep": {"activation": "relu"},
        "lstm": gates,
    }
    for name, given in options.items():
        full = name if name in NAMES else f"inner/{name}"
        assert_same(reader.describe(path, name, **given), reader.describe(model, full))
    with pytest.raises(ValueError, match="Bidirectional GRU; missing options: activation, recurr"):
        fastlstm.from_keras(path, "both")
    with pytest.raises(ValueError, match="missing options: merge_mode; unexpected: units"):
        fastlstm.from_keras(path, "both", **gates, units=3)
    with pytest.raises(ValueError, match="unexpected: recurrent_activation, merge_mode"):
        fastlstm.from_keras(path, "deep", **gates, merge_mode="sum")
    with pytest.raises(ValueError, match="unexpected: go_backwards"):
        fastlstm.from_keras(path, "both", **options["both"], go_backwards=True)


def test_no_need_for_keras(files: dict[str, Path]) -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path}\n"
        "for name in ('keras', 'tensorflow', 'torch', 'h5py'): sys.modules[name] = None\n"
        "import fastlstm\n"
        f"for path in {[str(p) for p in files.values()]}:\n"
        "    print(fastlstm.from_keras(path, 'first'))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout == "LSTM(3, 5, batch_first=True, reverse=True)\n" * 2


def write_keras_2(path: Path, *, whole: bool) -> dict[str, np.ndarray]:
    """A file as Keras 2 wrote it: bytes in attributes, and weights called by layer and cell."""
    rng = np.random.default_rng(0)
    weights = {
        "lstm/lstm_cell/kernel:0": rng.standard_normal((I, 4 * H)).astype(np.float32),
        "lstm/lstm_cell/recurrent_kernel:0": rng.standard_normal((H, 4 * H)).astype(np.float32),
        "lstm/lstm_cell/bias:0": rng.standard_normal(4 * H).astype(np.float32),
    }
    config = {
        "name": "lstm",
        "units": H,
        "use_bias": True,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "go_backwards": False,
        "dropout": 0.0,
        "time_major": False,
    }
    model = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "LSTM", "config": config}]},
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.4.0"
        root = file
        if whole:
            file.attrs["model_config"] = json.dumps(model).encode()
            root = file.create_group("model_weights")
        root.attrs["layer_names"] = [b"lstm"]
        group = root.create_group("lstm")
        group.attrs["weight_names"] = [name.encode() for name in weights]
        for name, value in weights.items():
            group[name] = value
    return weights


@pytest.mark.parametrize("whole", [True, False])
def test_files_of_keras_2(whole: bool, tmp_path: Path) -> None:
    weights = write_keras_2(tmp_path / "model.h5", whole=whole)
    given = {} if whole else {"activation": "tanh", "recurrent_activation": "sigmoid"}
    layer = fastlstm.from_keras(tmp_path / "model.h5", "lstm", **given)
    kernel, recurrent, bias = weights.values()
    assert np.array_equal(layer.params["weight_ih_l0"], kernel.T)
    assert np.array_equal(layer.params["weight_hh_l0"], recurrent.T)
    assert np.array_equal(layer.params["bias_ih_l0"], bias)
    assert not layer.params["bias_hh_l0"].any()


def write_unnamed(path: Path) -> None:
    """Weights alone as Keras 2 writes them in its newer form, without its version."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        for k, shape in enumerate([(I, 12), (3, 12), (12,)]):
            group[str(k)] = rng.normal(size=shape).astype("f4")


def test_a_hard_sigmoid_of_weights_alone(model: Any, tmp_path: Path) -> None:
    """Its slope is that of the Keras which wrote the file."""
    given = {"activation": "tanh", "recurrent_activation": "hard_sigmoid"}
    write_keras_2(tmp_path / "old.h5", whole=False)
    model.save_weights(tmp_path / "m.weights.h5")
    write_unnamed(tmp_path / "any.weights.h5")
    for name, layer, slope in (("old.h5", "lstm", 0.2), ("m.weights.h5", "lstm", 1 / 6)):
        ours = fastlstm.from_keras(tmp_path / name, layer, **given)
        assert ours.activations == (("HardSigmoid", slope, 0.5), "Tanh", "Tanh")
    path = tmp_path / "any.weights.h5"
    with pytest.raises(ValueError, match=r"recurrent_activation: a hard_sigmoid has the slope 0.2"):
        fastlstm.from_keras(path, **given)
    function = ("HardSigmoid", 0.2, 0.5)
    ours = fastlstm.from_keras(path, activation="tanh", recurrent_activation=function)
    assert ours.activations == (function, "Tanh", "Tanh")
    with pytest.raises(ValueError, match="HardSigmoids"):
        fastlstm.from_keras(path, activation="tanh", recurrent_activation=("HardSigmoids",))
    with pytest.raises(TypeError, match="merge_mode: expected text or None, got tuple"):
        fastlstm.from_keras(path, merge_mode=("sum",))


# --- errors -------------------------------------------------------------------------------------


def test_several_are_listed(model: Any, files: dict[str, Path]) -> None:
    names = ", ".join(map(repr, NAMES))
    for source in (model, *files.values()):
        with pytest.raises(ValueError, match=f"expected name= to be one of {names}, got None"):
            fastlstm.from_keras(source)
        with pytest.raises(ValueError, match=f"one of {names}, got 'second'"):
            fastlstm.from_keras(source, "second")
        with pytest.raises(ValueError, match="activation: expected nothing, as the source says it"):
            fastlstm.from_keras(source, "first", activation="tanh")


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="source: expected a layer, a model or a path, got int"):
        fastlstm.from_keras(3)
    with pytest.raises(TypeError, match="name: expected text, got int"):
        fastlstm.from_keras(tmp_path, 3)
    with pytest.raises(ValueError, match="expected an LSTM, GRU or RNN, found none"):
        fastlstm.from_keras(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="with weights; it was never built"):
        fastlstm.from_keras(keras.layers.LSTM(3))
    with pytest.raises(ValueError, match="activation: fastlstm has no 'gelu'"):
        fastlstm.from_keras(make("LSTM", activation="gelu"))
    with pytest.raises(ValueError, match="activation: expected a function of Keras, got"):
        fastlstm.from_keras(make("LSTM", activation=torch.sin))
    with pytest.raises(ValueError, match="got a StackedRNNCells"):
        fastlstm.from_keras(fill(keras.layers.RNN([keras.layers.LSTMCell(3)] * 2)))
    with pytest.raises(ValueError, match="got a ConvLSTM1D"):
        fastlstm.from_keras(keras.layers.ConvLSTM1D(3, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"go_backwards": True}, "name: activations|Bidirectional: activations is|Bidirectional: "),
        ({"activation": "relu"}, "Bidirectional: activations is None forward"),
        ({"units": 7}, "Bidirectional: hidden_size is 6 forward, 7 backward"),
    ],
)
def test_directions_that_differ(changes: dict[str, Any], message: str) -> None:
    options = {"units": H, "go_backwards": True, **changes}
    if changes.get("go_backwards"):
        forward = keras.layers.LSTM(H, go_backwards=True)
        options["go_backwards"] = False
        message = "expected a first layer with go_backwards=False"
    else:
        forward = keras.layers.LSTM(H)
    backward = keras.layers.LSTM(**options)
    layer = keras.layers.Bidirectional(forward, backward_layer=backward, merge_mode=None)
    with pytest.raises(ValueError, match=message):
        fastlstm.from_keras(fill(layer))


# --- damage -------------------------------------------------------------------------------------


def small_file(path: Path) -> bytes:
    model = keras.Sequential([keras.Input((T, 2)), keras.layers.LSTM(2, name="lstm")])
    model.save(path)
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore:.*drops what enters each step")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    data = small_file(path)
    # HDF5 files may end in room that nothing uses.
    check_reader(fastlstm.from_keras, path, data, cut_is_an_error=suffix == ".keras")


def test_archives_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(io.BytesIO(small_file(path))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for missing in members:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                if name != missing:
                    archive.writestr(name, data)
        with pytest.raises(ValueError, match=f"{missing} is missing"):
            fastlstm.from_keras(path)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        if method == zipfile.ZIP_DEFLATED:
            assert fastlstm.from_keras(path).hidden_size == 2
    with pytest.raises(ValueError, match=r"config.json is compressed by another method"):
        fastlstm.from_keras(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (2**20, 2**20)}, "its values are missing"),
        ({"shape": (3, 4)}, r"kernel: expected \(I, 24\), got \(3, 4\)"),
        ({"shape": (3, 24), "dtype": "i4"}, "kernel:0: expected floats, got int32"),
        (
            {"shape": (2**12, 24), "compression": "lzf", "chunks": True},
            "kernel:0: its values are compressed by lzf",
        ),
    ],
)
def test_wrong_weights(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    write_keras_2(path, whole=True)
    with h5py.File(path, "a") as file:
        group = file["model_weights/lstm"]
        del group["lstm/lstm_cell/kernel:0"]
        dataset = group.create_dataset("lstm/lstm_cell/kernel:0", **{"dtype": "f4", **change})
        if dataset.size < 2**20:
            dataset[...] = 0
    with pytest.raises(ValueError, match=message):
        fastlstm.from_keras(path)

"""Files of Keras: wrappers, models in models, half precision, and what is no such file.

Those of Keras 2 are written by hand here, as tf_keras writes them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.interchange import keras as reader
from tolerances import FOREIGN, assert_close

h5py = pytest.importorskip("h5py")
torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

# Keras' own, with NumPy 2.4, and its advice to use another format.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T, B, I, H = 5, 4, 3, 2
GATES = {"activation": "tanh", "recurrent_activation": "sigmoid"}
MOST_MEMORY = 64 << 20


def filled(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    model.set_weights(
        [rng.uniform(-0.5, 0.5, w.shape).astype(w.dtype) for w in model.get_weights()]
    )
    return model


def sequential(*layers: Any, name: str | None = None, shape: Sequence[int] = (T, I)) -> Any:
    return keras.Sequential([keras.Input(tuple(shape)), *layers], name=name)


def outputs(layer: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(layer(torch.tensor(x)).detach().numpy())


def assert_same(actual: Any, expected: Any) -> None:
    assert (actual.cell, actual.options) == (expected.cell, expected.options)
    assert actual.params.keys() == expected.params.keys()
    for name, value in expected.params.items():
        assert np.array_equal(actual.params[name], value), name


# --- wrappers and models in models ----------------------------------------------------------------


@pytest.fixture(scope="module")
def nested() -> Any:
    """Models in models and wrappers, three deep, with the same names at several places."""
    layers = keras.layers
    options = {"return_sequences": True}
    deep = sequential(
        layers.Bidirectional(layers.GRU(2, name="g", **options), name="both"),
        layers.Dense(4),
        layers.LSTM(2, name="same", activation="relu", **options),
        name="deep",
    )
    middle = sequential(
        deep,
        layers.LSTM(3, name="same", **options),
        layers.BatchNormalization(),
        name="middle",
    )
    inner = layers.Bidirectional(layers.LSTM(2, name="i", **options), name="b", merge_mode="sum")
    twice = layers.TimeDistributed(layers.LSTM(2, name="x", **options), name="t2")
    model = sequential(
        layers.TimeDistributed(middle, name="models"),
        layers.TimeDistributed(inner, name="layers"),
        layers.TimeDistributed(layers.RNN(layers.LSTMCell(3), name="r", **options), name="rnn"),
        layers.Reshape((1, 2, T, 3)),
        layers.TimeDistributed(twice, name="t1"),
        shape=(2, T, I),
    )
    return filled(model)


NESTED = {
    "models/middle/deep/both": ("GRU", 2),
    "models/middle/deep/same": ("LSTM", 2),
    "models/middle/same": ("LSTM", 3),
    "layers/b": ("LSTM", 2),
    "rnn/r": ("LSTM", 3),
    "t1/t2/x": ("LSTM", 2),
}


def inside(model: Any, name: str) -> Any:
    layer = model
    for part in name.split("/"):
        inner = getattr(layer, "layer", None)
        layer = inner if inner is not None else layer.get_layer(part)
    return layer


@pytest.mark.parametrize("suffix", ["", ".keras", ".h5"])
@pytest.mark.parametrize("frozen", ["", "models/middle/deep", "models/middle/deep/both"])
def test_nested(suffix: str, frozen: str, nested: Any, tmp_path: Path) -> None:
    """What is not trainable comes last in an .h5."""
    source: Any = nested
    if frozen:
        inside(nested, frozen).trainable = False
    try:
        if suffix:
            source = tmp_path / f"m{suffix}"
            nested.save(source)
    finally:
        nested.trainable = True
    with pytest.raises(ValueError, match=", ".join(map(repr, NESTED))):
        fastlstm.from_keras(source)
    for name, (cell, size) in NESTED.items():
        description = reader.describe(source, name)
        layer = inside(nested, name)
        assert_same(description, reader.describe(layer))
        assert (description.cell, description.options["hidden_size"]) == (cell, size)
    if suffix:  # a wrapper's name is enough, where one layer is in it
        for name in ("layers", "t1", "t1/t2"):
            assert fastlstm.from_keras(source, name).hidden_size == 2
    x = np.random.default_rng(1).normal(size=(B, T, 3)).astype("f4")
    layer = inside(nested, "layers/b")
    ours = fastlstm.from_keras(source, "layers/b")
    assert_close(ours(x)[0], outputs(layer, x), FOREIGN["float32"], "output")


@pytest.mark.parametrize("trainable", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_directions_that_are_frozen(
    suffix: str, trainable: tuple[bool, bool], tmp_path: Path
) -> None:
    both = keras.layers.Bidirectional(keras.layers.LSTM(H), name="both")
    model = filled(sequential(both))
    expected = reader.describe(model)
    both.forward_layer.trainable, both.backward_layer.trainable = trainable
    model.save(tmp_path / f"m{suffix}")
    assert_same(reader.describe(model), expected)
    assert_same(reader.describe(tmp_path / f"m{suffix}"), expected)


@pytest.mark.parametrize("suffix", ["", ".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16", "mixed_float16"])
def test_half_precision(dtype: str, suffix: str, tmp_path: Path) -> None:
    """The values become float32, which is exact."""
    gru = keras.layers.GRU(H, dtype=dtype, recurrent_initializer="glorot_uniform", name="g")
    model = filled(sequential(gru))
    source: Any = model
    if suffix:
        source = tmp_path / f"m{suffix}"
        (model.save_weights if suffix.startswith(".w") else model.save)(source)
    options = GATES if suffix == ".weights.h5" else {}
    layer = fastlstm.from_keras(source, **options)
    assert layer.dtype == "float32"
    kernel, recurrent, bias = (np.asarray(w, "f4") for w in gru.get_weights())
    z, r, n = np.split(kernel.T, 3)
    assert np.array_equal(layer.params["weight_ih_l0"], np.concatenate([r, z, n]))
    assert layer.params["bias_ih_l0"].shape == bias[0].shape
    assert recurrent.any()


# --- files of Keras 2 -----------------------------------------------------------------------------


def lstm(name: str, **config: Any) -> dict[str, Any]:
    return {
        "class_name": "LSTM",
        "config": {"name": name, "units": H, "use_bias": True, **GATES, **config},
    }


def within(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def values(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"kernel:0": (I, 4 * H), "recurrent_kernel:0": (H, 4 * H), "bias:0": (4 * H,)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def write_keras_2(
    path: Path, layers: Sequence[Any], weights: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """A model, and its weights by the name of an outermost layer and that of each weight."""
    with h5py.File(path, "w") as file:
        model = within("Sequential", "model", layers=list(layers))
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["keras_version"] = b"2.15.0"
        for layer, inside in weights.items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = [name.encode() for name in inside]
            for name, value in inside.items():
                group[name] = value


def scoped(scope: str, seed: int) -> dict[str, np.ndarray]:
    return {f"{scope}/{name}": value for name, value in values(seed).items()}


def kernels(path: Path, *names: str | None) -> list[np.ndarray]:
    return [reader.describe(path, name).params["weight_ih_l0"].T for name in names]


def test_models_in_models_of_keras_2(tmp_path: Path) -> None:
    """Their weights are called without the models between, and those that are frozen come last."""
    path = tmp_path / "m.h5"
    frozen = within("Sequential", "inner", layers=[lstm("first")], trainable=False)
    each = within("TimeDistributed", "each", layer=lstm("wrapped"))
    outer = within("Sequential", "outer", layers=[frozen, lstm("second"), each])
    weights = scoped("second/lstm_cell", 2) | scoped("each/lstm_cell", 3)
    weights |= {f"{name[:-2]}_1:0": w for name, w in scoped("first/lstm_cell", 1).items()}
    write_keras_2(path, [outer], {"outer": weights})
    names = ("outer/inner/first", "outer/second", "outer/each/wrapped")
    for seed, kernel in enumerate(kernels(path, *names), 1):
        assert np.array_equal(kernel, values(seed)["kernel:0"])


def test_layers_of_one_name_of_keras_2(tmp_path: Path) -> None:
    """Only the order tells them apart, unless it is not all there."""
    path = tmp_path / "m.h5"
    models = [within("Sequential", f"m{n}", layers=[lstm("same")]) for n in range(2)]
    outer = within("Sequential", "outer", layers=models)
    weights = scoped("same/lstm_cell", 0) | scoped("same_1/lstm_cell", 1)
    write_keras_2(path, [outer], {"outer": weights})
    with pytest.raises(ValueError, match="outer/m1/same: same_1/lstm_cell: expected weights of"):
        kernels(path, "outer/m1/same")
    write_keras_2(path, [outer], {"outer": scoped("m0/same", 0) | scoped("m1/same", 1)})
    for seed, kernel in enumerate(kernels(path, "outer/m0/same", "outer/m1/same")):
        assert np.array_equal(kernel, values(seed)["kernel:0"])
    write_keras_2(path, [outer], {"outer": scoped("m1/same", 1)})
    with pytest.raises(ValueError, match="expected weights of 2 cells, got 1 in m1/same"):
        kernels(path, "outer/m1/same")


def test_a_bad_attribute_of_another_layer(tmp_path: Path) -> None:
    """So are those of Keras 2.2, of layers without weights, for h5py 3.16 with HDF5 2.0."""
    path = tmp_path / "m.h5"
    write_keras_2(path, [within("InputLayer", "in"), lstm("l")], {"l": scoped("l", 1)})
    with h5py.File(path, "a") as file:
        root = file["model_weights"]
        root.attrs["layer_names"] = [b"in", b"bad", b"l"]
        root.create_group("in").attrs["weight_names"] = np.zeros(0, "S1")
        root.create_group("bad").attrs["weight_names"] = np.zeros(3)
    assert np.array_equal(kernels(path, None)[0], values(1)["kernel:0"])
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
    assert fastlstm.from_keras(path, "l", **GATES).hidden_size == H
    with pytest.raises(ValueError, match=r"bad: .*attribute weight_names: expected text, got"):
        fastlstm.from_keras(path, "bad", **GATES)


def test_weights_alone_of_keras_2(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    weights = {
        "one": scoped("one/lstm_cell", 0),
        "outer": scoped("both/backward_l/cell", 2) | scoped("x/cell", 3),
        "stack": scoped("stack/cells/c1", 4) | scoped("stack/cells/c2", 5),
    }
    weights["outer"] |= scoped("both/forward_l/cell", 1)
    weights["both"] = scoped("both/backward_l/cell", 2) | scoped("both/forward_l/cell", 1)
    write_keras_2(path, [], weights)
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
        file["model_weights"].attrs["layer_names"] = [name.encode() for name in weights]
    layer = fastlstm.from_keras(path, "both", merge_mode="sum", **GATES)
    for name, seed in {"": 1, "_reverse": 2}.items():
        kernel = layer.params[f"weight_ih_l0{name}"].T
        assert np.array_equal(kernel, values(seed)["kernel:0"])
    names = "'one', 'outer/both', 'outer/x/cell', 'stack/stack/cells/c1', 'stack/stack/cells/c2'"
    with pytest.raises(ValueError, match=f"one of {names}, 'both', got None"):
        fastlstm.from_keras(path)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("outermost", ["l", "outer"])
@pytest.mark.parametrize(
    "extra", ["l/lstm_cell/norm/gamma:0", "l/lstm_cell/d/x/kernel:0", "l/ln/gamma", "gamma:0"]
)
def test_weights_beside_a_cells_in_h5(
    extra: str, outermost: str, alone: bool, tmp_path: Path
) -> None:
    """Those of a layer of Keras' name that computes more; not those of other layers."""
    path = tmp_path / "m.h5"
    layer = lstm("l") if outermost == "l" else within("Sequential", "outer", layers=[lstm("l")])
    options = GATES if alone else {}

    def write(extra: str) -> None:
        weights = scoped("l/lstm_cell", 1) | {extra: np.ones(4, "f4")}
        write_keras_2(path, [layer], {outermost: weights})
        with h5py.File(path, "a") as file:
            file["model_weights"].attrs["layer_names"] = [outermost]
            if alone:
                del file.attrs["model_config"]

    write(extra)
    if outermost == "l" or extra.startswith("l/"):
        with pytest.raises(ValueError, match=extra):
            fastlstm.from_keras(path, **options)
    else:
        assert fastlstm.from_keras(path, **options).hidden_size == H
    write("l/lstm_cell/seed_generator/state")
    assert fastlstm.from_keras(path, **options).hidden_size == H


@pytest.mark.parametrize("inner", [False, True])
def test_weights_beside_both_directions(inner: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    both = within("Bidirectional", "b", layer=lstm("l"), merge_mode="sum")
    layer = within("Sequential", "outer", layers=[both]) if inner else both
    weights = scoped("b/forward_l/lstm_cell", 1) | scoped("b/backward_l/lstm_cell", 2)
    for extra in ("b/ln/gamma:0", "b/backward_l/ln/gamma:0", "b/forward_l/lstm_cell/ln/gamma:0"):
        beside = {extra: np.ones(4, "f4")}
        write_keras_2(path, [layer], {"outer" if inner else "b": weights | beside})
        with pytest.raises(ValueError, match=extra):
            fastlstm.from_keras(path)


def write_groups(path: Path, cells: Mapping[str, int], **more: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, seed in cells.items():
            for k, value in enumerate(values(seed).values()):
                file[f"{name}/vars/{k}"] = value
        for name, value in more.items():
            file[name.replace("__", "/")] = value


def test_a_twin_without_weights(tmp_path: Path) -> None:
    """Keras 2 has the layer of a Bidirectional a third time, without weights."""
    path = tmp_path / "m.weights.h5"
    both = "layers/bidirectional"
    write_groups(path, {f"{both}/{n}_layer/cell": k for k, n in enumerate(["forward", "backward"])})
    with h5py.File(path, "a") as file:
        file.create_group(f"{both}/layer/cell/vars")
        file.create_group(f"{both}/vars")
    layer = fastlstm.from_keras(path, merge_mode="concat", **GATES)
    assert np.array_equal(layer.params["weight_ih_l0_reverse"].T, values(1)["kernel:0"])
    with h5py.File(path, "a") as file:
        file[f"{both}/layer/cell/vars/0"] = np.ones(3, "f4")
    with pytest.raises(ValueError, match=f"/{both}/layer/cell/vars/0: weights that a plain layer"):
        fastlstm.from_keras(path, merge_mode="concat", **GATES)


@pytest.mark.parametrize(
    "extra", ["norm__vars__0", "vars__0", "cell__norm__gamma", "cell__x__y__z"]
)
def test_weights_beside_a_cells(extra: str, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    write_groups(path, {"layers/lstm/cell": 0}, **{f"layers__lstm__{extra}": np.ones(2, "f4")})
    with pytest.raises(ValueError, match=f"{extra.replace('__', '/')}: weights that a plain layer"):
        fastlstm.from_keras(path, **GATES)
    write_groups(
        path, {"layers/lstm/cell": 0}, layers__lstm__cell__seed_generator__vars__0=np.ones(2)
    )
    assert fastlstm.from_keras(path, **GATES).hidden_size == H


def test_classes_of_weights_alone(tmp_path: Path) -> None:
    """A group says its layer's class: another one may compute something else."""
    path = tmp_path / "m.weights.h5"
    write_groups(path, {"layers/doubled_lstm_1/cell": 0})
    with pytest.raises(ValueError, match="expected an LSTM, GRU or SimpleRNN, got a doubled_lstm"):
        fastlstm.from_keras(path, **GATES)
    write_groups(path, {"encoder/cell": 0})
    assert fastlstm.from_keras(path, **GATES).hidden_size == H


# --- classes and functions of the user's own ------------------------------------------------------


@keras.saving.register_keras_serializable("own")
class Doubled(keras.layers.LSTM):
    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        return super().call(2 * sequences, initial_state, mask, training)


@keras.saving.register_keras_serializable("own", name="LSTM")
class Disguised(Doubled):
    pass


@keras.saving.register_keras_serializable("own")
class Plain(keras.layers.LSTM):
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(units, **{"activation": "relu", **options})


@keras.saving.register_keras_serializable("own")
class OwnCell(keras.layers.LSTMCell):
    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        return super().call(3 * inputs, states, training)


@keras.saving.register_keras_serializable("own")
class Scaled(keras.layers.Wrapper):
    def call(self, inputs: Any) -> Any:
        return 2 * self.layer(inputs)


@keras.saving.register_keras_serializable("own")
def tanh(x: Any) -> Any:
    return 2 * x


OWN = {
    "Doubled": lambda: Doubled(H),
    "LSTM": lambda: Disguised(H),
    "OwnCell": lambda: keras.layers.RNN(OwnCell(H)),
    "Scaled": lambda: Scaled(keras.layers.LSTM(H)),
    "tanh": lambda: keras.layers.LSTM(H, activation=tanh),
    "StackedRNNCells": lambda: keras.layers.RNN(
        [keras.layers.LSTMCell(H), keras.layers.LSTMCell(3)]
    ),
    "ConvLSTM1D": lambda: keras.layers.TimeDistributed(keras.layers.ConvLSTM1D(H, 2)),
}


@pytest.mark.parametrize("suffix", ["", ".keras", ".h5"])
@pytest.mark.parametrize("kind", OWN)
def test_other_classes_are_refused_by_name(kind: str, suffix: str, tmp_path: Path) -> None:
    layer = OWN[kind]()
    model = sequential(layer, shape=(2, T, 3, 1) if kind == "ConvLSTM1D" else (T, I))
    source: Any = model
    if suffix:
        source = tmp_path / f"m{suffix}"
        model.save(source)
    with pytest.raises(ValueError, match=kind):
        fastlstm.from_keras(source)
    with pytest.raises(ValueError, match=kind):  # nothing is the same as what is not read
        fastlstm.verify(fastlstm.LSTM(I, H, batch_first=True), source)


@pytest.mark.parametrize("kind", ["LSTM", "LSTMCell", "Bidirectional", "TimeDistributed"])
def test_classes_of_keras_names(kind: str, tmp_path: Path) -> None:
    """A class of a script, with the name of Keras' own, which no .h5 tells from that."""
    layers = keras.layers
    own = type(kind, (getattr(layers, kind),), {"__module__": "__main__", "call": lambda *_: None})
    inner = layers.LSTM(H)
    layer = {
        "LSTM": lambda: own(H),
        "LSTMCell": lambda: layers.RNN(own(H)),
    }.get(kind, lambda: own(inner))()
    layer.build((None, T, I) if kind != "TimeDistributed" else (None, 2, T, I))
    config = keras.saving.serialize_keras_object(layer)
    assert (config["config"]["cell"] if kind == "LSTMCell" else config)["module"] is None
    path = tmp_path / "m.keras"
    weights = tmp_path / "w.h5"
    write_groups(weights, {})
    model = json.dumps(within("Sequential", "m", layers=[config]))
    members = {"config__json": model, "metadata__json": "{}"}
    path.write_bytes(archive(model__weights__h5=weights.read_bytes(), **members))
    for source in (path, layer):
        with pytest.raises(ValueError, match=f"{kind}.*a class of its own"):
            fastlstm.from_keras(source)


@pytest.mark.parametrize("suffix", ["", ".keras", ".h5"])
def test_a_layer_of_two_models(suffix: str, tmp_path: Path) -> None:
    """A .keras has its weights once."""
    shared = keras.layers.LSTM(I, return_sequences=True, name="shared")
    own = keras.layers.LSTM(I, return_sequences=True, name="own")
    models = [sequential(shared, name="a"), sequential(own, shared, name="b")]
    model = filled(sequential(*models))
    source: Any = model
    if suffix:
        source = tmp_path / f"m{suffix}"
        model.save(source)
    for name in ("a/shared", "b/shared") if suffix else ("a/shared",):
        assert_same(reader.describe(source, name), reader.describe(shared))
    assert_same(reader.describe(source, "b/own"), reader.describe(own))


class Block(keras.layers.Layer):
    """Has layers as attributes, and no list of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rnn = keras.layers.LSTM(H, return_sequences=True, name="inner")
        self.more = [keras.layers.GRU(H, name="last"), keras.layers.Dense(2)]

    def build(self, shape: Any) -> None:
        self.rnn.build(shape)
        self.more[0].build((None, T, H))

    def call(self, x: Any) -> Any:
        return self.more[0](self.rnn(x))


def test_layers_of_a_layer_of_the_users_own() -> None:
    block = Block(name="block")
    model = filled(sequential(block, name="m"))
    for source in (model, block):
        assert_same(reader.describe(source, "block/inner"), reader.describe(block.rnn))
        assert reader.describe(source, "block/last").cell == "GRU"


def test_infinite_biases() -> None:
    layer = filled(sequential(keras.layers.LSTM(H))).layers[0]
    kernels = layer.get_weights()
    kernels[2][:] = np.inf
    layer.set_weights(kernels)
    assert not reader.describe(layer).params["bias_hh_l0"].any()


def test_subclasses_that_compute_the_same() -> None:
    layer = filled(sequential(Plain(H, return_sequences=True))).layers[0]
    ours = fastlstm.from_keras(layer)
    assert ours.activations == ("Sigmoid", "Relu", "Relu")
    x = np.random.default_rng(1).normal(size=(B, T, I)).astype("f4")
    assert_close(ours(x)[0], outputs(layer, x), FOREIGN["float32"], "output")


def test_numbers_that_say_yes() -> None:
    layer = filled(sequential(keras.layers.LSTM(H, use_bias=1))).layers[0]
    assert fastlstm.from_keras(layer).hidden_size == H


def test_objects_that_were_changed() -> None:
    layer = filled(sequential(keras.layers.LSTM(H))).layers[0]
    layer.call = lambda x: x
    with pytest.raises(ValueError, match="got a LSTM \\(its call was replaced\\)"):
        fastlstm.from_keras(layer)
    for name, other in {"bias": None, "kernel": np.zeros((I, 4 * H))}.items():
        layer = filled(sequential(keras.layers.LSTM(H))).layers[0]
        setattr(layer.cell, name, other)
        with pytest.raises(ValueError, match=f"cell: its {name} was replaced"):
            fastlstm.from_keras(layer)
    for cell, message in {
        OwnCell: "cell: OwnCell, a class of its own, defines call",
        keras.layers.GRUCell: "its cell is a GRUCell",
    }.items():
        layer = keras.layers.LSTM(H)
        layer.cell = cell(H)
        with pytest.raises(ValueError, match=message):
            fastlstm.from_keras(layer)


# --- verify ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "bfloat16"])
def test_verify_says_what_it_did_not_look_at(dtype: str) -> None:
    inner = keras.layers.LSTM(H, dtype=dtype, recurrent_initializer="zeros")
    model = filled(sequential(keras.layers.TimeDistributed(inner), shape=(2, T, I)))
    report = fastlstm.verify(fastlstm.from_keras(model), model)
    assert report.ok
    around = "the TimeDistributed around it: the layer in it was run by itself"
    half = "its arithmetic in bfloat16: it was run in float32"
    assert report.not_looked_at == ((around,) if dtype == "float32" else (around, half))
    assert f"Not looked at: {around}." in str(report)


# --- other files ----------------------------------------------------------------------------------


def archive(**members: str | bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"", "an empty file"),
        (b'{"class_name": "Sequential"}', "JSON, which has no weights"),
        (b"\n [1, 2]", "JSON, which has no weights"),
        (b"\x80\x04pickle", "a pickle, as torch.save wrote"),
        (gzip.compress(b"a", mtime=0), "compressed by gzip: decompress it first"),
        (b"\x08\x08\x12\x07pytorch", "perhaps an ONNX model"),
        (b"<!-- 404 -->\n<HTML>", "a web page"),
        (b"\xff\xfe\xfd", r"it begins with b'\\xff\\xfe\\xfd'"),
        (archive(data__pkl=b""), "not a .keras archive: config.json is missing; it has 'data.pkl'"),
        (archive(), "not a .keras archive"),
        (
            archive(config__json="{}", metadata__json="{}", model__weights__npz=b""),
            "weights in .npz are not read",
        ),
        (
            archive(config__json="{}", metadata__json="{}", model__weights__h5=b"x" * 600),
            "model.weights.h5: expected an HDF5 file",
        ),
    ],
)
def test_what_is_no_file_of_keras(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        fastlstm.from_keras(path)
    assert str(path) in str(error.value)


def test_a_model_of_its_own_class(tmp_path: Path) -> None:
    """Its configuration says nothing of its layers, whatever it calls so."""
    weights = tmp_path / "w.h5"
    write_groups(weights, {"encoder/cell": 0})
    path = tmp_path / "m.keras"
    config = json.dumps(within("own>Model", "m", layers=[64, 32], cell="LSTM"))
    members = {"config__json": config, "metadata__json": "{}"}
    path.write_bytes(archive(model__weights__h5=weights.read_bytes(), **members))
    assert fastlstm.from_keras(path, "encoder", **GATES).hidden_size == H


def test_wrong_types(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"source: expected a layer.* got the class"):
        fastlstm.from_keras(keras.layers.LSTM)
    for options in ({"go_backwards": "no"}, {"activation": 3}, {"merge_mode": ["sum"]}):
        with pytest.raises(TypeError, match=next(iter(options))):
            fastlstm.from_keras(tmp_path / "not there", **options)


def test_what_there_is_instead(tmp_path: Path) -> None:
    model = sequential(keras.layers.Dense(2), keras.layers.Flatten())
    for suffix in (".keras", ".h5", ".weights.h5"):
        path = tmp_path / f"m{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        there = "layers" if suffix == ".weights.h5" else "Dense, Flatten"
        with pytest.raises(ValueError, match=f"found none among .*{there}"):
            fastlstm.from_keras(path)
    with pytest.raises(ValueError, match="found none among Dense, Flatten"):
        fastlstm.from_keras(model)


# --- hostile files --------------------------------------------------------------------------------


def assert_refused(path: Path, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            fastlstm.from_keras(path)
        assert str(path) in str(error.value)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY + 4 * path.stat().st_size
    finally:
        tracemalloc.stop()


def nest(levels: int) -> dict[str, Any]:
    model = within("Sequential", "m", layers=[lstm("l")])
    for _ in range(levels):
        model = within("Sequential", "m", layers=[model])
    return model


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[" * 100_000, "config.json: nested too deeply"),
        ('{"a":' * 100_000, "config.json: nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "config.json: a number of 5000 digits"),
        ("[" + "{}," * 1_000_000 + "0]", "config.json: 3000003 bytes are too many"),
        ("[1]", "config.json: expected an object, got list"),
        ("{}", "class_name: expected str in the configuration, it is missing"),
        (
            '{"class_name": "M", "config": {"layers": [{"class_name": 3}]}}',
            "class_name: expected str in the conf",
        ),
        (
            json.dumps(within("M", "m", layers=[within("LSTM", "l", cell={})] * 2)),
            "expected one la",
        ),
        (json.dumps(nest(60)), "too deep, or with names that are too long"),
        (json.dumps(within("M", "m", layers=[lstm("l" * 99)] * 5)), "expected one layer of this"),
        (
            json.dumps(within("M", "m", layers=[lstm("l", units=10**9)])),
            r"recurrent_kernel: expected \(1000000000, 4000000000\), got \(2, 8\)|kernel: expected",
        ),
        (json.dumps(within("M", "m", layers=[lstm("l", units="2")])), "units: expected integral"),
        (json.dumps(within("M", "m", layers=[lstm("l", use_bias="1")])), "use_bias: expected int"),
        (json.dumps(within("M", "m", layers=[lstm("l", go_backwards=[])])), "go_backwards: exp"),
        (json.dumps(within("M", "m", layers=[lstm("l", activation=[1])])), "activation: expected"),
    ],
)
def test_hostile_configurations(config: str, message: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.h5"
    write_groups(weights, {"layers/lstm/cell": 0})
    path = tmp_path / "m.keras"
    members = {"config__json": config, "metadata__json": '{"keras_version": "3.3"}'}
    path.write_bytes(archive(model__weights__h5=weights.read_bytes(), **members))
    assert_refused(path, message)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_members_that_grow(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for other in ("config.json", "metadata.json", "model.weights.h5"):
            file.writestr(other, b" " * (3 << 24) if other == name else b"{}")
    assert_refused(path, f"{name}: 50331648 bytes are too many for what the file has")


def test_names_that_are_long_and_many(tmp_path: Path) -> None:
    """Each of 2000 layers would have a name of 200,000 letters."""
    model = within("Sequential", "m", layers=[lstm(f"l{n}") for n in range(2000)])
    for _ in range(20):
        model = within("Sequential", "m" * 10_000, layers=[model])
    path = tmp_path / "m.h5"
    write_keras_2(path, [model], {})
    assert_refused(path, "too deep, or with names that are too long")


def test_one_dataset_many_times(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    write_keras_2(path, [lstm("l")], {"l": {"w": np.zeros(1 << 19, "f4")}})
    with h5py.File(path, "a") as file:
        file["model_weights/l"].attrs["weight_names"] = np.array([b"w"] * 60_000)
    assert_refused(path, "l: /model_weights/l: expected weights of one layer, got 60000")


@pytest.mark.parametrize("depth", [30, 3])
def test_groups_that_share_groups(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        for _ in range(depth):
            inner = group.create_group("x")
            group["y"] = group["z"] = inner
            group = inner
        group["loop"] = file["a"]
    assert_refused(path, "its parts are read again and again")


@pytest.mark.parametrize("target", ["other.h5", "/dev/zero", "fifo"])
def test_weights_in_other_files(target: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.ones((I, 4 * H), "f4")
    path = tmp_path / "m.h5"
    write_keras_2(path, [lstm("l")], {"l": scoped("l", 0)})
    with h5py.File(path, "a") as file:
        del file["model_weights/l/l/kernel:0"]
        file["model_weights/l/l/kernel:0"] = h5py.ExternalLink(tmp_path / target, "w")
    assert_refused(path, "l: /model_weights/l/l/kernel:0: a link to another file")
    with h5py.File(path, "a") as file:
        del file["model_weights/l"]
        file["model_weights/l"] = h5py.ExternalLink(tmp_path / target, "/")
    assert_refused(path, "l: /model_weights/l: a link to another file")

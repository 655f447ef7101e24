"""Layers from Keras: layer objects, and files read by h5py alone. Keras is never imported."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import mmap
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, readable_path
from fastlstm._extras import needs_extra

from ._description import Description, build, choose
from ._gates import GATES, KERAS_GATES, cell_of_rows, reordered
from ._hdf5 import Hdf5
from ._tensors import DAMAGE, read_member

_CELLS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
_CELL_CLASSES = {f"{name}Cell": name for name in _CELLS}
# Seen, so that they can be refused by name.
_REFUSED = ("CuDNNLSTM", "CuDNNGRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "StackedRNNCells")
_RECURRENT = (*_CELLS, *_CELL_CLASSES, *_REFUSED, "Bidirectional", "RNN")
_MODELS = ("Sequential", "Functional", "Model")

Arrays: TypeAlias = "Sequence[npt.NDArray[Any]]"
# Of a layer within models: the names of all, and what Keras 3 calls them in a file.
Path: TypeAlias = Sequence[tuple[str, str]]
# Of an open file: its HDF5 part, the model's configuration if it is there, Keras' version.
_Opened: TypeAlias = tuple[Hdf5, "Mapping[str, Any] | None", str]
Activation: TypeAlias = str | tuple[Any, ...]
_ACTIVATIONS: dict[str, Activation] = {
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "relu": "Relu",
    "linear": ("Affine", 1.0, 0.0),
    "elu": ("Elu", 1.0),
    "softplus": "Softplus",
    "softsign": "Softsign",
}


@dataclass
class _Found:
    """A recurrent layer of Keras: how it was configured, and its weights in Keras' order."""

    weights: Callable[[], Arrays]
    class_name: str = ""  # and no config: of a file with weights only
    config: Mapping[str, Any] | None = None
    version: str = ""


def from_keras(source: Any, name: str | None = None, **options: Any) -> Any:
    """Make a layer from a recurrent layer of Keras, with the same results.

    Parameters
    ----------
    source : Layer, or path-like
        An LSTM, GRU or SimpleRNN of Keras, its cell, or a Bidirectional or RNN of one; a model
        that contains some; or a file: ``.keras``, ``.h5``, ``.weights.h5``. Reading a file needs
        h5py (``fastlstm[keras]``), not Keras.
    name : str, optional
        Which layer; within another model "outer/inner". May be left out where there is only one.
    **options
        For a file with weights only, which does not say how the layer was configured:
        ``activation``, ``recurrent_activation`` (LSTM, GRU), ``merge_mode`` (Bidirectional),
        ``reset_after`` (a GRU without biases) must be given; ``go_backwards`` may be.

    Returns
    -------
    LSTM, GRU or RNN
        With ``batch_first=True``. Where Keras gives the last output only, or the outputs of
        ``go_backwards`` in reverse order, this layer gives all outputs, each at its input's place.

    Raises
    ------
    ValueError
        The layer cannot be represented, the file is damaged, or there is not exactly one such
        layer; the message names them all.
    TypeError
        An argument has another type than stated.
    OSError
        The file cannot be read.
    ModuleNotFoundError
        The source is a file, and h5py is not installed.

    Warns
    -----
    UserWarning
        The layer drops inputs or states out in training, which the new layer will not do.

    Examples
    --------
    >>> lstm = fastlstm.from_keras("model.keras", name="lstm")  # doctest: +SKIP
    """
    return build(describe(source, name, **options))


def describe(source: Any, name: str | None = None, **options: Any) -> Description:
    """Do all of :func:`from_keras` but make the layer."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected text, got {type(name).__name__}")
    if hasattr(source, "get_config"):
        return _describe_one(type(source).__name__, find_in_object(source), name, options)
    path = readable_path("source", source, "a layer, a model or a path")
    with open_file(path) as (hdf5, config, version):
        found = {} if config is None else dict(_find_in_config(config, hdf5, version))
        if not found:
            found = _find_weights(hdf5)
        return _describe_one("", found, name, options)


def _describe_one(
    where: str, found: Mapping[str, _Found], name: str | None, options: Mapping[str, Any]
) -> Description:
    name, layer = choose(found, name, where or "layers", "name")
    try:
        if layer.config is None:
            return _from_weights(layer.weights(), options)
        if options:
            raise ValueError(f"{next(iter(options))}: expected nothing, as the source says it")
        return _from_config(layer.class_name, layer.config, layer.weights(), layer.version)
    except DAMAGE as error:
        raise ValueError(f"{where and f'{where}: '}{name}: {error}") from error


@contextlib.contextmanager
def open_file(path: str) -> Iterator[_Opened]:
    """Open a file: its HDF5 part, the model's configuration if it is there, Keras' version.

    Raises
    ------
    ValueError
        It is no file of Keras, or damaged: also where the block that reads it finds that out.
    ModuleNotFoundError
        h5py is not installed.
    """
    try:
        with _open(path) as opened:
            yield opened
    except ModuleNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path}: {error}") from error


# --- what there is --------------------------------------------------------------------------------


def find_in_object(source: Any) -> dict[str, _Found]:
    """Find recurrent layers in a layer or model."""
    found: dict[str, _Found] = {}

    def visit(layer: Any, name: str) -> None:
        classes = [c for c in type(layer).__mro__ if "keras" in c.__module__.partition(".")[0]]
        kind = next((c.__name__ for c in classes if c.__name__ in _RECURRENT), None)
        if kind is not None:
            package = sys.modules[classes[0].__module__.partition(".")[0]]
            version = str(getattr(package, "__version__", ""))
            found[name] = _Found(layer.get_weights, kind, layer.get_config(), version)
            return
        for inner in getattr(layer, "layers", ()):
            visit(inner, f"{name}/{inner.name}" if name else inner.name)

    top = hasattr(source, "layers") and not hasattr(source, "forward_layer")
    visit(source, "" if top else source.name)
    return found


@contextlib.contextmanager
def _open(path: str) -> Iterator[_Opened]:
    with needs_extra("from_keras", "keras"):
        import h5py

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(read_member(archive, "config.json"))
            version = json.loads(read_member(archive, "metadata.json")).get("keras_version", "")
            weights = read_member(archive, "model.weights.h5")
        with h5py.File(io.BytesIO(weights), "r") as file:
            yield Hdf5(file, weights), config, str(version)
        return
    try:
        opened = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"neither a .keras archive nor an HDF5 file: {error}") from error
    with open(path, "rb") as raw:
        data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    with opened as file:
        hdf5 = Hdf5(file, data)
        text = hdf5.text(file, "model_config")
        yield hdf5, json.loads(text) if text else None, hdf5.text(file, "keras_version")


def _find_in_config(
    model: Mapping[str, Any], hdf5: Hdf5, version: str
) -> Iterator[tuple[str, _Found]]:
    """Find the recurrent layers of a model, and where the file has their weights."""

    def visit(model: Mapping[str, Any], outer: Path, depth: int) -> Iterator[tuple[str, _Found]]:
        used: dict[str, int] = {}
        for layer in model["config"]["layers"] if depth < 20 else ():
            kind, config = layer["class_name"], layer["config"]
            key = _snake_case(kind)
            used[key] = used.get(key, -1) + 1
            key = f"{key}_{used[key]}" if used[key] else key
            path = (*outer, (config.get("name", layer.get("name", "")), key))
            if kind in _RECURRENT:
                weights = functools.partial(_weights_at, hdf5, path)
                yield "/".join(name for name, _ in path), _Found(weights, kind, config, version)
            elif isinstance(config.get("layers"), list):
                yield from visit(layer, path, depth + 1)

    config = model["config"]
    if isinstance(config, Mapping) and isinstance(config.get("layers"), list):
        yield from visit(model, (), 0)


def _snake_case(name: str) -> str:
    """What a .keras file calls the first layer of a class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _weights_at(hdf5: Hdf5, path: Path) -> Arrays:
    """Return the weights of a layer within models."""
    if "model_weights" in hdf5.file:  # saved as .h5: in groups of the outermost layers
        names = [name for name, _ in path]
        group = hdf5.file["model_weights"][names[0]]
        weights = [w for w in hdf5.texts(group, "weight_names") if _within(w, names)]
        return [hdf5.array(group[weight]) for weight in weights]
    group = hdf5.file
    for name, key in path:
        container = next(k for k in ("layers", "_layer_checkpoint_dependencies") if k in group)
        group = group[container][key]
        said = hdf5.text(group["vars"], "name") if "vars" in group else ""
        if said and said != name:
            raise ValueError(f"{group.name}: expected weights of {name!r}, got {said!r}")
    return _cell_weights(hdf5, group)


def _within(weight: str, names: Sequence[str]) -> bool:
    """Whether a weight belongs to a layer within the models of these names."""
    parts = iter(weight.split("/"))
    return all(name in parts for name in names[1:])


def _cell_weights(hdf5: Hdf5, group: Any) -> Arrays:
    """The weights of a layer's group in a .keras file."""
    if "forward_layer" in group:
        directions = (group["forward_layer"], group["backward_layer"])
        return [array for one in directions for array in _cell_weights(hdf5, one)]
    variables = group["cell"]["vars"] if "cell" in group else group["vars"]
    return [hdf5.array(variables[str(k)]) for k in range(len(variables))]


def _find_weights(hdf5: Hdf5) -> dict[str, _Found]:
    """Find recurrent layers in a file that has weights only, by the names of these."""
    found: dict[str, _Found] = {}
    root = hdf5.file.get("model_weights", hdf5.file)
    for name in hdf5.texts(root, "layer_names"):  # of Keras 2
        names = hdf5.texts(root[name], "weight_names")
        if any("recurrent_kernel" in weight for weight in names):
            found[name] = _Found(functools.partial(_weights_at_names, hdf5, root[name], names))

    def visit(path: str, group: Any) -> None:
        if not hasattr(group, "keys") or re.search("/(forward|backward)_layer$", path):
            return
        if "forward_layer" in group or ("cell" in group and "vars" in group["cell"]):
            said = hdf5.text(group["vars"], "name") if "vars" in group else ""
            name = said if said and said not in found else path
            found[name] = _Found(functools.partial(_cell_weights, hdf5, group))

    if not found:
        root.visititems(visit)
    return found


def _weights_at_names(hdf5: Hdf5, group: Any, names: Sequence[str]) -> Arrays:
    return [hdf5.array(group[name]) for name in names]


# --- what it means --------------------------------------------------------------------------------


def _from_weights(weights: Arrays, given: Mapping[str, Any]) -> Description:
    """A layer of which only the weights are known, and what the caller says."""
    options = dict(given)
    two = len(weights) in (4, 6)
    count = len(weights) // 2 if two else len(weights)
    if count not in (2, 3) or any(np.ndim(w) not in (1, 2) for w in weights):
        raise ValueError(f"expected kernel, recurrent_kernel and bias, got {len(weights)} weights")
    H, columns = np.shape(weights[1])
    cell = cell_of_rows(columns, H)
    if cell is None:
        raise ValueError(
            "recurrent_kernel: expected (H, 4H) (LSTM), (H, 3H) (GRU) or (H, H) (SimpleRNN), got "
            f"{(H, columns)}"
        )
    kind = next(name for name, ours in _CELLS.items() if ours == cell)
    needed = ["activation"] if kind == "SimpleRNN" else ["activation", "recurrent_activation"]
    config: dict[str, Any] = {"units": H, "use_bias": count == 3}
    if kind == "GRU":
        if count == 3:
            config["reset_after"] = np.ndim(weights[2]) == 2
        else:
            needed.append("reset_after")
    wrapper = {"merge_mode": options.pop("merge_mode")} if "merge_mode" in options else {}
    missing = [name for name in needed if name not in options]
    missing += ["merge_mode"] if two and not wrapper else []
    unknown = [name for name in options if name not in (*needed, "go_backwards")]
    unknown += ["merge_mode"] if wrapper and not two else []
    if two and options.get("go_backwards"):
        unknown.append("go_backwards")
    if missing or unknown:
        raise ValueError(
            f"a file with weights only, of a {'Bidirectional ' if two else ''}{kind}; "
            f"missing options: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unknown) or 'none'}"
        )
    config.update(options)
    if not two:
        return _from_config(kind, config, weights, "3")
    inner = {"class_name": kind, "config": config}
    return _from_config("Bidirectional", {"layer": inner, **wrapper}, weights, "3")


def _from_config(
    kind: str, config: Mapping[str, Any], weights: Arrays, version: str
) -> Description:
    if kind == "RNN":
        kind, config = config["cell"]["class_name"], {**config, **config["cell"]["config"]}
    if kind == "Bidirectional":
        return _from_bidirectional(config, weights, version)
    kind = _CELL_CLASSES.get(kind, kind)
    if kind not in _CELLS:
        raise ValueError(f"expected an LSTM, GRU or SimpleRNN, got a {kind}")
    if not weights:
        raise ValueError("expected a layer with weights; it was never built")
    cell = _CELLS[kind]
    options = _options(cell, config, version)
    use_bias = bool(config["use_bias"])
    params = _params(cell, int(config["units"]), use_bias, options, weights)
    options |= {
        "input_size": params["weight_ih_l0"].shape[1],
        "hidden_size": int(config["units"]),
        "bias": use_bias,
        "batch_first": not config.get("time_major", False),
    }
    if config.get("go_backwards", False):
        options["reverse"] = True
    return Description(cell, options, params)


def _from_bidirectional(config: Mapping[str, Any], weights: Arrays, version: str) -> Description:
    layers = [config["layer"], config.get("backward_layer") or config["layer"]]
    if layers[0]["config"].get("go_backwards"):
        raise ValueError("Bidirectional: expected a first layer with go_backwards=False")
    half = len(weights) // 2
    forward, backward = (
        _from_config(layer["class_name"], {**layer["config"], "go_backwards": False}, part, version)
        for layer, part in zip(layers, (weights[:half], weights[half:]), strict=True)
    )
    if forward.cell != backward.cell:
        raise ValueError(f"Bidirectional: a {forward.cell} forward, a {backward.cell} backward")
    for name in forward.options.keys() | backward.options.keys():
        ours, theirs = forward.options.get(name), backward.options.get(name)
        if ours != theirs:
            raise ValueError(f"Bidirectional: {name} is {ours!r} forward, {theirs!r} backward")
    params = forward.params | {f"{n}_reverse": value for n, value in backward.params.items()}
    options = forward.options | {"bidirectional": True}
    mode = config["merge_mode"]
    if mode not in ("concat", "sum", "mul", "ave", None):
        raise ValueError(f"merge_mode: expected concat, sum, mul, ave or None, got {mode!r}")
    if mode != "concat":
        options["merge"] = mode
    return Description(forward.cell, options, params)


def _options(cell: str, config: Mapping[str, Any], version: str) -> dict[str, Any]:
    for name in ("dropout", "recurrent_dropout"):
        if config.get(name):
            warnings.warn(
                f"{name}={config[name]}: Keras drops what enters each step in training; the layer "
                "will not. Its results in inference are the same",
                stacklevel=6,
            )
    activation = _activation("activation", config["activation"], version)
    options: dict[str, Any] = {}
    if cell == "RNN":
        if activation in ("Tanh", "Relu"):
            options["nonlinearity"] = str(activation).lower()
        else:
            options["activations"] = (activation,)
        return options
    recurrent = _activation("recurrent_activation", config["recurrent_activation"], version)
    if (recurrent, activation) != ("Sigmoid", "Tanh"):
        count = 2 if cell == "LSTM" else 1
        options["activations"] = (recurrent, *[activation] * count)
    if cell == "GRU" and not config.get("reset_after", False):
        options["reset_after"] = False
    return options


def _activation(name: str, value: Any, version: str) -> Activation:
    """Keras' activation as ONNX calls it."""
    major = version.partition(".")[0]
    if value is None:
        return _ACTIVATIONS["linear"]
    if not isinstance(value, str):
        said = value.get("class_name") if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"{name}: expected the name of a function of Keras, got {said}")
    if value == "hard_sigmoid" and major in ("1", "2", "3"):  # the slope was changed
        return ("HardSigmoid", 1 / 6 if major == "3" else 0.2, 0.5)
    if value == "leaky_relu" and major == "3":
        return ("LeakyRelu", 0.2)
    if value not in _ACTIVATIONS:
        raise ValueError(f"{name}: fastlstm has no {value!r} (of Keras {version or 'unknown'})")
    return _ACTIVATIONS[value]


def _params(
    cell: str,
    H: int,
    use_bias: bool,
    options: Mapping[str, Any],
    weights: Arrays,
) -> dict[str, FloatArray]:
    """Keras' weights, transposed and with the gates in our order."""
    rows = len(GATES[cell]) * H
    two_biases = cell == "GRU" and options.get("reset_after", True)
    shapes: dict[str, tuple[int | str, ...]] = {
        "kernel": ("I", rows),
        "recurrent_kernel": (H, rows),
    }
    if use_bias:
        shapes["bias"] = (2, rows) if two_biases else (rows,)
    if len(weights) != len(shapes):
        raise ValueError(f"expected {', '.join(shapes)}, got {len(weights)} weights")
    arrays: dict[str, FloatArray] = {}
    for (name, shape), value in zip(shapes.items(), weights, strict=True):
        array = np.asarray(value)
        same = len(shape) == array.ndim and all(
            isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
        )
        if not same:
            raise ValueError(f"{name}: expected {shape}, got {array.shape}")
        if array.dtype.kind != "f":
            raise ValueError(f"{name}: expected floats, got {array.dtype}")
        arrays[name] = array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32)

    params = {
        "weight_ih_l0": arrays["kernel"].T,
        "weight_hh_l0": arrays["recurrent_kernel"].T,
    }
    if use_bias:
        bias = arrays["bias"] if two_biases else np.stack([arrays["bias"], 0 * arrays["bias"]])
        params["bias_ih_l0"], params["bias_hh_l0"] = bias
    return {
        name: reordered(array, KERAS_GATES[cell], GATES[cell]) for name, array in params.items()
    }

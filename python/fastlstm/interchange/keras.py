"""Layers from Keras: layer objects, and files. Keras is never imported.

:mod:`._keras.objects` finds recurrent layers in objects, :mod:`._keras.files` in files; this says
what they mean.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from fastlstm._checks import FloatArray, as_bool, readable_path, shape_text

from ._description import Description, build, choose, listed
from ._gates import GATES, KERAS_GATES, cell_of_rows, reordered
from ._keras.files import open_file
from ._keras.layers import CELL_CLASSES, CELLS, Found, Weights, class_of, entry
from ._keras.objects import find_in_object
from ._tensors import DAMAGE

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


def from_keras(source: Any, name: str | None = None, **options: Any) -> Any:
    """Make a layer from a recurrent layer of Keras, with the same results.

    Parameters
    ----------
    source : Layer, or path-like
        An LSTM, GRU or SimpleRNN of Keras, its cell, or a Bidirectional or RNN of one; a model
        that contains some, also in other models or TimeDistributed; or a file: ``.keras``,
        ``.h5``, ``.weights.h5``. Reading a file needs neither Keras nor h5py.
    name : str, optional
        Which layer; within another model or a wrapper "outer/inner". May be left out where there
        is only one.
    **options
        For a file with weights only, which does not say how the layer was configured:
        ``activation``, ``recurrent_activation`` (LSTM, GRU), ``merge_mode`` (Bidirectional),
        ``reset_after`` (a GRU without biases) must be given; ``go_backwards`` may be. Functions
        are named as in Keras, or as in the layer's ``activations``: ("HardSigmoid", 0.2, 0.5).

    Returns
    -------
    LSTM, GRU or RNN
        With ``batch_first=True``. Where Keras gives the last output only, or the outputs of
        ``go_backwards`` in reverse order, this layer gives all outputs, each at its input's place.

    Raises
    ------
    ValueError
        The layer cannot be represented (it is of a class of its own, say), the file is damaged,
        refers to other files, or is none of Keras, or there is not exactly one such layer; the
        message names them all.
    TypeError
        An argument has another type than stated.
    OSError
        The file cannot be read.

    Warns
    -----
    UserWarning
        The layer drops inputs or states out in training, which the new layer will not do.

    Examples
    --------
    >>> lstm = fastlstm.from_keras("model.keras", name="lstm")  # doctest: +SKIP
    """
    description = describe(source, name, **options)
    try:
        return build(description)
    except ValueError as error:  # of sizes that no layer has
        where = type(source).__name__ if hasattr(source, "get_config") else os.fspath(source)
        raise ValueError(f"{where}: {error}") from error


def describe(source: Any, name: str | None = None, **options: Any) -> Description:
    """Do all of :func:`from_keras` but make the layer."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected text, got {type(name).__name__}")
    if isinstance(source, type):
        raise TypeError(f"source: expected a layer, a model or a path, got the class {source!r}")
    _check_options(options)
    if hasattr(source, "get_config"):
        found = find_in_object(source)
        there = [type(layer).__name__ for layer in getattr(source, "layers", ())]
        return _describe_one(type(source).__name__, found, there, name, options)
    path = readable_path("source", source, "a layer, a model or a path")
    with open_file(path) as file:
        return _describe_one("", file.find(), file.names(), name, options)


def choose_layer(found: Mapping[str, Found], name: str | None, where: str) -> tuple[str, Found]:
    """Return the one layer that is wanted: of its name, or the only one in a wrapper of that."""
    if name is not None and name not in found:
        below = [one for one in found if one.startswith(f"{name}/")]
        name = below[0] if len(below) == 1 else name
    return choose(found, name, where, "name")


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in ("reset_after", "go_backwards"):
            as_bool(name, value)
        elif name in ("activation", "recurrent_activation", "merge_mode"):
            kinds = (str, type(None)) if name == "merge_mode" else (str, tuple, type(None))
            if not isinstance(value, kinds):
                raise TypeError(f"{name}: expected text or None, got {type(value).__name__}")


def _describe_one(
    where: str,
    found: Mapping[str, Found],
    there: Sequence[str],
    name: str | None,
    options: Mapping[str, Any],
) -> Description:
    if there and not found:
        raise ValueError(
            f"{where and f'{where}: '}expected an LSTM, GRU or RNN, found none among "
            f"{listed(there)}"
        )
    name, layer = choose_layer(found, name, where or "layers")
    try:
        if layer.config is None:
            return _from_weights(layer.weights(), options, layer.version)
        kind, config = _without_rnn(layer.class_name, layer.config)
        if options:
            raise ValueError(f"{next(iter(options))}: expected nothing, as the source says it")
        return _from_config(kind, config, layer.weights(), layer.version)
    except DAMAGE as error:
        raise ValueError(f"{where and f'{where}: '}{name}: {error}") from error


# --- what it means --------------------------------------------------------------------------------


def _from_weights(weights: Weights, given: Mapping[str, Any], version: str) -> Description:
    """A layer of which only the weights are known, and what the caller says."""
    options = dict(given)
    two = len(weights) in (4, 6)
    count = len(weights) // 2 if two else len(weights)
    if count not in (2, 3) or len(weights[1].shape) != 2:
        shapes = ", ".join(shape_text(weight.shape) for weight in weights) or "none"
        raise ValueError(f"expected kernel, recurrent_kernel and bias, got weights of {shapes}")
    H, columns = weights[1].shape
    cell = cell_of_rows(columns, H)
    if cell is None:
        raise ValueError(
            "recurrent_kernel: expected (H, 4H) (LSTM), (H, 3H) (GRU) or (H, H) (SimpleRNN), got "
            f"{(H, columns)}"
        )
    kind = next(name for name, ours in CELLS.items() if ours == cell)
    needed = ["activation"] if kind == "SimpleRNN" else ["activation", "recurrent_activation"]
    config: dict[str, Any] = {"units": H, "use_bias": count == 3}
    if kind == "GRU":
        if count == 3:
            config["reset_after"] = len(weights[2].shape) == 2
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
    for name, value in options.items():
        if value == "hard_sigmoid" and not version:
            raise ValueError(
                f"{name}: a hard_sigmoid has the slope 0.2 in Keras 2 and 1/6 in Keras 3, and the "
                "file does not say which wrote it: expected ('HardSigmoid', 0.2, 0.5) or "
                "('HardSigmoid', 1 / 6, 0.5)"
            )
    config.update(options)
    version = version or "3"  # no other function differs
    if not two:
        return _from_config(kind, config, weights, version)
    inner = {"class_name": kind, "config": config}
    return _from_config("Bidirectional", {"layer": inner, **wrapper}, weights, version)


def _without_rnn(kind: str, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the layer's class and configuration, those of the cell for an RNN of one.

    Raises
    ------
    ValueError
        It is none that can be read.
    """
    if kind == "RNN":
        if isinstance(config.get("cell"), (list, tuple)):
            raise ValueError("expected an LSTM, GRU or SimpleRNN, got an RNN of several cells")
        cell = entry(config, "cell", Mapping)
        kind, config = class_of(cell), {**config, **entry(cell, "config", Mapping)}
        if kind not in CELL_CLASSES:
            raise ValueError(f"expected an LSTM, GRU or SimpleRNN, got a {kind} in an RNN")
    kind = CELL_CLASSES.get(kind, kind)
    if kind not in (*CELLS, "Bidirectional"):
        raise ValueError(f"expected an LSTM, GRU or SimpleRNN, got a {kind}")
    return kind, config


def _from_config(
    kind: str, config: Mapping[str, Any], weights: Weights, version: str
) -> Description:
    if kind == "Bidirectional":
        return _from_bidirectional(config, weights, version)
    if not weights:
        raise ValueError("expected a layer with weights; it was never built")
    cell = CELLS[kind]
    options = _options(cell, config, version)
    # Keras takes a number for a truth, and NumPy's numbers.
    use_bias, H = bool(entry(config, "use_bias", Integral)), int(entry(config, "units", Integral))
    params = _params(cell, H, use_bias, options, weights)
    options |= {
        "input_size": params["weight_ih_l0"].shape[1],
        "hidden_size": H,
        "bias": use_bias,
        "batch_first": not _flag(config, "time_major"),
    }
    if _flag(config, "go_backwards"):
        options["reverse"] = True
    return Description(cell, options, params)


def _from_bidirectional(config: Mapping[str, Any], weights: Weights, version: str) -> Description:
    first = entry(config, "layer", Mapping)
    second = entry(config, "backward_layer", Mapping) if config.get("backward_layer") else first
    layers = [
        _without_rnn(class_of(layer), entry(layer, "config", Mapping)) for layer in (first, second)
    ]
    if any(kind not in CELLS for kind, _ in layers):
        raise ValueError("Bidirectional: expected an LSTM, GRU or SimpleRNN in it")
    if layers[0][1].get("go_backwards"):
        raise ValueError("Bidirectional: expected a first layer with go_backwards=False")
    half = len(weights) // 2
    forward, backward = (
        _from_config(kind, {**inner, "go_backwards": False}, part, version)
        for (kind, inner), part in zip(layers, (weights[:half], weights[half:]), strict=True)
    )
    if forward.cell != backward.cell:
        raise ValueError(f"Bidirectional: a {forward.cell} forward, a {backward.cell} backward")
    for name in forward.options.keys() | backward.options.keys():
        ours, theirs = forward.options.get(name), backward.options.get(name)
        if ours != theirs:
            raise ValueError(f"Bidirectional: {name} is {ours!r} forward, {theirs!r} backward")
    params = forward.params | {f"{n}_reverse": value for n, value in backward.params.items()}
    options = forward.options | {"bidirectional": True}
    mode = config.get("merge_mode", "")
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
    activation = _activation("activation", config, version)
    options: dict[str, Any] = {}
    if cell == "RNN":
        if activation in ("Tanh", "Relu"):
            options["nonlinearity"] = str(activation).lower()
        else:
            options["activations"] = (activation,)
        return options
    recurrent = _activation("recurrent_activation", config, version)
    if (recurrent, activation) != ("Sigmoid", "Tanh"):
        count = 2 if cell == "LSTM" else 1
        options["activations"] = (recurrent, *[activation] * count)
    if cell == "GRU" and not _flag(config, "reset_after"):
        options["reset_after"] = False
    return options


def _flag(config: Mapping[str, Any], name: str) -> bool:
    return name in config and bool(entry(config, name, Integral))


def _activation(name: str, config: Mapping[str, Any], version: str) -> Activation:
    """Keras' activation as ONNX calls it."""
    if name not in config:
        raise ValueError(f"{name}: missing in the configuration")
    value, major = config[name], version.partition(".")[0]
    if value is None:
        return _ACTIVATIONS["linear"]
    if isinstance(value, tuple):  # the caller's
        return value
    if not isinstance(value, str):
        said: Any = type(value).__name__
        if isinstance(value, Mapping):  # a function's name, or the class of something else
            of = value.get("config")
            said = of if isinstance(of, str) else value.get("class_name")
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
    weights: Weights,
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
    for (name, shape), weight in zip(shapes.items(), weights, strict=True):
        same = len(shape) == len(weight.shape) and all(
            isinstance(n, str) or n == m for n, m in zip(shape, weight.shape, strict=True)
        )
        if not same:
            raise ValueError(
                f"{name}: expected {shape_text(shape)}, got {shape_text(weight.shape)}"
            )

    def ours(array: FloatArray) -> FloatArray:
        return reordered(array, KERAS_GATES[cell], GATES[cell])

    # One after the other, so that what is read is not in memory for all at once.
    params = {
        name: ours(np.asarray(weight.read()).T)
        for name, weight in zip(("weight_ih_l0", "weight_hh_l0"), weights, strict=False)
    }
    if use_bias:
        bias = np.asarray(weights[2].read())
        params["bias_ih_l0"] = ours(bias[0] if two_biases else bias)
        params["bias_hh_l0"] = ours(bias[1] if two_biases else np.zeros_like(bias))
    return params

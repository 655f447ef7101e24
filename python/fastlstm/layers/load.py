"""Layers from the files that they wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fastlstm._checks import FloatArray, readable_path
from fastlstm._safetensors import StoredTensor

from .files import FORMAT, SMALL_FORMAT, read_layer
from .gru import GRU
from .layer import make_layer, quantized_layer
from .lstm import LSTM
from .rnn import RNN

# All kinds of layers by name.
LAYERS: dict[str, type[Any]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
# What a layer's type holds without rounding, as safetensors calls it.
_EXACT = {"float32": ("F32", "F16", "BF16"), "float64": ("F64", "F32")}


def load(path: str | os.PathLike[str]) -> Any:
    """Load a layer, or an estimator of :mod:`fastlstm.sklearn`, that its ``save`` method wrote.

    Parameters
    ----------
    path : path-like
        A safetensors file.

    Returns
    -------
    LSTM, GRU or RNN, or an estimator
        A new object of the saved class, configuration and values.

    Raises
    ------
    ValueError
        The file is no safetensors file, is damaged, or was not written by fastlstm.
    OSError
        It cannot be read.
    TypeError
        The path is neither text nor path-like.
    ModuleNotFoundError
        It is an estimator, and scikit-learn is not installed.
    """
    path = readable_path("path", path)
    text, tensors = read_layer(path)
    try:
        config = json.loads(text)
        if config["format"] == SMALL_FORMAT:
            cls, options = LAYERS[config["layer"]], config["options"]
            stored = {name: tensor.read_stored() for name, tensor in tensors.items()}
            return quantized_layer(cls, options, stored, **config["quantization"])
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']} instead of {FORMAT}")
        if "module" not in config:
            cls, options = LAYERS[config["layer"]], config["options"]
            return make_layer(cls, options, read_values(tensors, options))
        estimator = config["module"]["meta"].get("estimator")
        if not isinstance(estimator, str):
            raise ValueError("it has a module, which fastlstm.nn.Module.load reads")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or of another version of fastlstm: {error}") from error
    # By its name: it is above this package.
    return import_module("fastlstm.sklearn._files").load_estimator(path, estimator)


def read_values(
    tensors: Mapping[str, StoredTensor], options: Mapping[str, Any]
) -> dict[str, FloatArray]:
    """Read a file's tensors.

    Raises
    ------
    ValueError
        The dtype among the options cannot hold a tensor's values without rounding.
    """
    exact = _EXACT[options.get("dtype", "float32")]
    for name, tensor in tensors.items():
        if tensor.dtype not in exact:
            raise ValueError(f"{name}: expected {' or '.join(exact)}, got {tensor.dtype}")
    return {name: tensor.read() for name, tensor in tensors.items()}

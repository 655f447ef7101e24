"""Layers as safetensors files: PyTorch's tensor names, the configuration as metadata."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from typing import Any

from ._checks import as_path, readable_path
from ._layer import LAYERS, RecurrentLayer

# The metadata's entry, and the version of its meaning.
_KEY = "fastlstm"
_FORMAT = 1


def save_layer(layer: RecurrentLayer[Any, Any], path: str | os.PathLike[str]) -> None:
    """Write a layer to a file, which is complete or not there."""
    import safetensors.numpy

    config = {"format": _FORMAT, "layer": type(layer).__name__, "options": layer._options}
    data = safetensors.numpy.save(layer.state_dict(), metadata={_KEY: json.dumps(config)})
    write_whole(path, data)


def write_whole(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write parts to a file, which is complete or as it was before.

    Raises
    ------
    TypeError
        The path is none.
    OSError
        The file cannot be written.
    """
    path = as_path("path", path)
    # A device or a pipe is written to, not replaced.
    write = _replace if os.path.isfile(path) or not os.path.exists(path) else _write
    try:
        write(path, parts)
    except OSError as error:  # of the temporary file, or without a name
        raise OSError(error.errno, error.strerror, path) from None


def _write(path: str, parts: Iterable[bytes | memoryview], mode: str = "wb") -> None:
    with open(path, mode) as file:
        file.writelines(parts)


def _replace(path: str, parts: Iterable[bytes | memoryview]) -> None:
    temporary = os.path.join(os.path.dirname(path), f".fastlstm-{os.urandom(8).hex()}")
    try:
        _write(temporary, parts, "xb")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Load a layer that its ``save`` method wrote.

    Parameters
    ----------
    path : path-like
        A safetensors file.

    Returns
    -------
    LSTM, GRU or RNN
        A new layer of the saved class, configuration and values.

    Raises
    ------
    ValueError
        The file is no safetensors file, is damaged, or was not written by fastlstm.
    OSError
        It cannot be read.
    TypeError
        The path is neither text nor path-like.
    """
    import safetensors

    path = readable_path("path", path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a safetensors file that can be read: {error}") from error
    if _KEY not in metadata:
        raise ValueError(
            f"{path}: a safetensors file, but not one that fastlstm saved; make a layer and use "
            "load_state_dict for parameters from elsewhere"
        )
    try:
        config = json.loads(metadata[_KEY])
        if config["format"] != _FORMAT:
            raise ValueError(f"format {config['format']} instead of {_FORMAT}")
        cls, options = LAYERS[config["layer"]], config["options"]
        # Before a layer of sizes that only damage can explain is made.
        sizes = (cls._gates * options["hidden_size"], options["input_size"])
        last = f"weight_ih_l{options['num_layers'] - 1}"
        if tensors["weight_ih_l0"].shape != sizes or last not in tensors:
            raise ValueError("its configuration and its tensors differ in size")
        layer = cls(**options)
        layer.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or of another version of fastlstm: {error}") from error
    return layer

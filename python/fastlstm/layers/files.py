"""Saved layers: safetensors with PyTorch's tensor names, and the configuration as metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from fastlstm._checks import FloatArray
from fastlstm._saving import write_safetensors

# The metadata's entry, and the version of its meaning.
KEY = "fastlstm"
FORMAT = 1


def write_layer(
    path: str | os.PathLike[str],
    kind: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
) -> None:
    """Write a layer to a file, which is complete or as it was before.

    Parameters
    ----------
    kind : str
        The name of its class.
    options : mapping
        The values of all its options.
    """
    config = {"format": FORMAT, "layer": kind, "options": options}
    write_safetensors(path, dict(sorted(tensors.items())), {KEY: json.dumps(config)})


def read_layer(path: str) -> tuple[str, dict[str, FloatArray]]:
    """Read a file's configuration, as text, and its tensors.

    Raises
    ------
    ValueError
        It is no safetensors file, or has no configuration.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a safetensors file that can be read: {error}") from error
    if KEY not in metadata:
        raise ValueError(
            f"{path}: a safetensors file, but not one that fastlstm saved; make a layer and use "
            "load_state_dict for parameters from elsewhere"
        )
    return metadata[KEY], tensors

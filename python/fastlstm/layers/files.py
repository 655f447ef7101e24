"""Saved layers: safetensors with PyTorch's tensor names, and the configuration as metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fastlstm._safetensors import StoredTensor, read_header
from fastlstm._saving import write_safetensors

from .quantization import Quantization

# The metadata's entry, and the version of its meaning; that of small weights, which readers that do
# not know them must refuse.
KEY = "fastlstm"
FORMAT = 1
SMALL_FORMAT = 2


def write_layer(
    path: str | os.PathLike[str],
    kind: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
    quantization: Quantization | None,
) -> None:
    """Write a layer to a file, which is complete or as it was before.

    Parameters
    ----------
    kind : str
        The name of its class.
    options : mapping
        The values of all its options.
    tensors : mapping
        What the layer keeps.
    """
    config = {"format": FORMAT, "layer": kind, "options": options}
    if quantization is not None:
        config |= {"format": SMALL_FORMAT, "quantization": quantization._asdict()}
    # The widest type first, so that each has its alignment.
    in_order = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    write_safetensors(path, dict(in_order), {KEY: json.dumps(config)})


def read_layer(path: str) -> tuple[str, dict[str, StoredTensor]]:
    """Read a file's configuration, as text, and describe its tensors.

    Raises
    ------
    ValueError
        It is no safetensors file, or has no configuration.
    """
    metadata, tensors = read_header(path)
    if KEY not in metadata:
        raise ValueError(
            f"{path}: a safetensors file, but not one that fastlstm saved; make a layer and use "
            "load_state_dict for parameters from elsewhere"
        )
    return metadata[KEY], tensors

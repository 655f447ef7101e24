"""Layers from the files that they wrote."""

from __future__ import annotations

import json
import os
from typing import Any

from fastlstm._checks import readable_path

from .files import FORMAT, read_layer
from .gru import GRU
from .layer import spec_for
from .lstm import LSTM
from .rnn import RNN

# All kinds of layers by name.
LAYERS: dict[str, type[Any]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


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
    path = readable_path("path", path)
    text, tensors = read_layer(path)
    try:
        config = json.loads(text)
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']} instead of {FORMAT}")
        cls, options = LAYERS[config["layer"]], config["options"]
        # Before a layer of sizes that only damage can explain is made, or a list of its parameters.
        first, last = "weight_ih_l0", f"weight_ih_l{options['num_layers'] - 1}"
        if last not in tensors or spec_for(cls, options).shapes[first] != tensors[first].shape:
            raise ValueError("its configuration and its tensors differ in size")
        layer = cls(**options)
        layer.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or of another version of fastlstm: {error}") from error
    return layer

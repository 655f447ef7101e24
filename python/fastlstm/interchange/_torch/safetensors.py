"""Tensors of safetensors files, as the reader of PyTorch's names wants them."""

from __future__ import annotations

import json

from fastlstm._safetensors import read_header
from fastlstm.interchange._tensors import Tensor
from fastlstm.layers import LAYERS, table_of

# Options of layers that fastlstm saved which the names and shapes of parameters show, or which
# change nothing that a state_dict of PyTorch stands for.
_SHOWN = {
    *("input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout"),
    *("bidirectional", "proj_size", "dtype", "recurrent_dropout", "weight_dropout"),
}


def read_safetensors(path: str) -> dict[str, Tensor]:
    """Describe the tensors of a file by their names.

    Raises
    ------
    ValueError
        It is damaged, or a layer that fastlstm saved which is more than its parameters show.
    """
    metadata, tensors = read_header(path)
    if "fastlstm" in metadata:
        try:
            hidden = _hidden_option(metadata["fastlstm"])
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: saved by fastlstm, but its configuration is damaged: {error}"
            ) from error
        if hidden:
            raise ValueError(
                f"{path}: saved by fastlstm with {hidden}, which PyTorch does not have: "
                "use fastlstm.load"
            )
    return {name: Tensor(tensor.shape, tensor.read) for name, tensor in tensors.items()}


def _hidden_option(config: str) -> str | None:
    match json.loads(config):
        case {"quantization": quantization}:
            return f"quantization={quantization!r}"
        case {"layer": str(kind), "options": dict(options)} if kind in LAYERS:
            defaults = json.loads(json.dumps(table_of(LAYERS[kind]).defaults))
            for option, value in options.items():
                if option not in _SHOWN and value != defaults.get(option):
                    return f"{option}={value!r}"
            return None
    raise ValueError(f"expected one of {', '.join(LAYERS)} and its options")

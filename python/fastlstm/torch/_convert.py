"""Modules made of layers."""

from __future__ import annotations

from typing import Any

import torch

from fastlstm import layers

from ._base import Computed
from ._modules import GRU, LSTM, RNN

_MODULES: dict[type, type[Computed]] = {layers.LSTM: LSTM, layers.GRU: GRU, layers.RNN: RNN}


def module_of(layer: layers.RecurrentLayer[Any, Any]) -> Computed:
    """Make a module with a layer's options and copies of its values."""
    cls = next(_MODULES[c] for c in type(layer).__mro__ if c in _MODULES)
    options = layers.spec_of(layer).options
    defaults = layers.table_of(type(layer)).defaults
    others = {n: value for n, value in options.items() if n not in defaults or value != defaults[n]}
    others["dtype"] = getattr(torch, options["dtype"])
    # Without memory at first: nothing is drawn of torch's random numbers.
    module = cls(**others, device="meta")
    values = {name: torch.from_numpy(value) for name, value in layer.state_dict().items()}
    module.load_state_dict(values, assign=True)
    return module

"""What Keras calls its layers, and a recurrent one as its readers find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastlstm.interchange._tensors import Tensor

CELLS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
CELL_CLASSES = {f"{name}Cell": name for name in CELLS}
# Seen, so that they can be refused by name.
_REFUSED = ("CuDNNLSTM", "CuDNNGRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "StackedRNNCells")
RECURRENT = (*CELLS, *CELL_CLASSES, *_REFUSED, "Bidirectional", "RNN")
# Gives the layer in it other sequences, and changes nothing in it.
TRANSPARENT = "TimeDistributed"

Weights: TypeAlias = "Sequence[Tensor]"
_PACKAGES = ("keras", "tf_keras", "tensorflow")


@dataclass
class Found:
    """A recurrent layer of Keras: how it was configured, and its weights in Keras' order."""

    weights: Callable[[], Weights]
    class_name: str = ""  # and no config: of a file with weights only
    config: Mapping[str, Any] | None = None
    version: str = ""
    layer: Any = None
    """The object itself, where it is one."""
    around: str = ""
    """The wrappers around that."""


def is_of_keras(module: str) -> bool:
    """Whether a module is of Keras."""
    return module.partition(".")[0] in _PACKAGES


def class_of(layer: Mapping[str, Any]) -> str:
    """Return the class of a configured layer, or what it is called where it is not Keras' own."""
    name = str(entry(layer, "class_name", str))
    registered = layer.get("registered_name") or name
    # Of a class that a script defines the module is null; only .h5 lacks it.
    if registered != name or not is_of_keras(str(layer.get("module", "keras"))):
        return f"{registered} (a class of its own, not Keras')"
    return name


def wrapped(wrapper: str, name: str) -> str:
    """What a layer is called within a wrapper that may change what it computes."""
    return f"{name} in a {wrapper}"


def entry(config: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return an entry of a configuration, which must be there and of a type."""
    if not isinstance(config, Mapping):
        raise ValueError(f"the configuration: expected a layer, got {type(config).__name__}")
    value = config.get(name)
    if not isinstance(value, kind):
        said = f"got {type(value).__name__}" if name in config else "it is missing"
        raise ValueError(f"{name}: expected {kind.__name__.lower()} in the configuration, {said}")
    return value

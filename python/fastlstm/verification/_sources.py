"""What a layer is compared with: PyTorch, Keras and ONNX Runtime behind one call each.

Every source takes inputs and gives results as a layer of fastlstm does (:mod:`._results`), with
what its own framework computes. The readers of ``fastlstm.interchange`` only say which layer of a
model is meant. PyTorch's is in :mod:`._torch_source`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastlstm._checks import readable_path
from fastlstm.interchange import keras as keras_reader
from fastlstm.interchange._description import Description, choose

from ._onnx_source import OnnxSource
from ._results import Array, Inputs, Results, as_results
from ._torch_source import TorchSource


class Source(Protocol):
    """A recurrent layer of another framework."""

    title: str
    """What it is, with the framework's version."""
    takes_lengths: bool
    ulps: int
    """How exact a step is: its functions and sums, in ULP of the largest value."""
    dtype: np.dtype[Any]
    """What it computes in."""
    not_looked_at: tuple[str, ...]
    """What of the source does not run here: a line for each thing, without a full stop."""

    def __call__(self, inputs: Inputs) -> Results:
        """Run it."""

    def describe(self) -> Description:
        """What the reader of fastlstm makes of it."""

    def in_place(self, seed: int) -> Iterable[tuple[Inputs, Results]]:
        """Run the whole of which it is a part, and give what it takes and gives there."""


def find_source(source: Any, which: str | None, nonlinearity: str | None) -> Source:
    """Recognise what a source is.

    Raises
    ------
    ModuleNotFoundError
        Its framework is not installed.
    ValueError, TypeError
        As the readers' (``from_torch``, ``from_keras``, ``from_onnx``).
    """
    kind = kind_of(source)
    if kind != "torch" and nonlinearity is not None:
        raise ValueError("nonlinearity: expected None, as the source says it")
    if kind == "onnx":
        return OnnxSource(source, which)
    if kind == "keras":
        return KerasSource(source, which)
    return TorchSource(source, which, nonlinearity)


def kind_of(source: Any) -> str:
    """Return ``"torch"``, ``"keras"`` or ``"onnx"``."""
    if isinstance(source, (str, os.PathLike)):
        suffix = Path(source).suffix.lower()
        if suffix == ".onnx":
            return "onnx"
        return "keras" if suffix in (".keras", ".h5", ".hdf5") else "torch"
    if isinstance(source, (Mapping, list, tuple)):
        return "torch"
    if hasattr(source, "graph") and hasattr(source, "opset_import"):
        return "onnx"
    if hasattr(source, "get_config"):
        return "keras"
    if hasattr(source, "named_modules"):
        return "torch"
    raise TypeError(
        "source: expected a module or state_dict of PyTorch, a layer or model of Keras, a model of "
        f"ONNX, or a path, got {type(source).__name__}"
    )


# --- Keras ----------------------------------------------------------------------------------------


class KerasSource:
    """A recurrent layer of Keras: a copy of it that returns all outputs and the states."""

    takes_lengths = True
    ulps = 8
    # Also for layers in float64: Keras on PyTorch is then 1e-7 from NumPy in all its loops (GRU
    # with reset_after=False, SimpleRNN, masks), where others are 3e-16.
    dtype = np.dtype(np.float32)
    not_looked_at: tuple[str, ...] = ()

    def __init__(self, source: Any, name: str | None) -> None:
        keras = _import_keras()
        self._source = source
        if isinstance(source, (str, os.PathLike)):
            path = readable_path("source", source)
            with keras_reader.open_file(path):  # has clear errors for other files
                pass
            try:
                source = keras.models.load_model(source, compile=False)
            except ValueError as error:
                raise ValueError(
                    f"{path}: Keras cannot load it ({error}). A file with "
                    "weights only does not say what its model was: load it into the model and "
                    "pass that to fastlstm.verify"
                ) from error
        self._name, _ = choose(
            keras_reader.find_in_object(source), name, type(source).__name__, "name"
        )
        layer = source
        if hasattr(source, "layers") and not hasattr(source, "forward_layer"):
            for part in self._name.split("/"):
                layer = layer.get_layer(part)
        self._layer = _with_all_results(keras, layer)
        config = self._layer.get_config()
        self._directions = 2 if "layer" in config else 1
        self._separate = self._directions == 2 and config["merge_mode"] is None
        self._backwards = bool(config.get("go_backwards", False))
        version = getattr(keras, "__version__", "")
        self.title = f"keras.layers.{type(layer).__name__} (Keras {version})"

    def in_place(self, seed: int) -> Iterable[tuple[Inputs, Results]]:
        return ()

    def describe(self) -> Description:
        return keras_reader.describe(self._source, self._name)

    def __call__(self, inputs: Inputs) -> Results:
        D = self._directions
        x = np.ascontiguousarray(inputs.x.swapaxes(0, 1))
        # Keras: h and c of one direction, then of the other. Ours: both h, both c.
        state = [np.ascontiguousarray(s[d]) for d in range(D) for s in inputs.state]
        mask = None
        if inputs.lengths is not None:
            mask = np.arange(len(inputs.x)) < inputs.lengths[:, None]
        returned = self._layer(x, initial_state=state, mask=mask, training=False)
        arrays = [_keras_array(value) for value in returned]
        count = 2 if self._separate else 1
        output = np.concatenate(arrays[:count], axis=-1).swapaxes(0, 1)
        output = output[::-1] if self._backwards else output
        kinds = len(inputs.state)
        states = [np.stack(arrays[count + kind :: kinds]) for kind in range(kinds)]
        return as_results(output, states)


def _import_keras() -> Any:
    """Keras, on a backend that is there: its default is TensorFlow whether it is or not."""
    if "keras" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
        present = [name for name in ("torch", "jax") if importlib.util.find_spec(name)]
        if present:
            os.environ.setdefault("KERAS_BACKEND", present[0])
    import keras

    return keras


def _with_all_results(keras: Any, layer: Any) -> Any:
    flags = {"return_sequences": True, "return_state": True, "stateful": False}
    if not hasattr(layer, "return_sequences") and hasattr(layer, "state_size"):  # a cell
        return keras.layers.RNN(layer, return_sequences=True, return_state=True)
    if type(layer).__name__ == "RNN":
        flags["go_backwards"] = layer.go_backwards
        return type(layer)(layer.cell, **flags)
    config = layer.get_config()
    for inner in ("layer", "backward_layer"):
        if config.get(inner):
            config[inner]["config"].update(flags)
    if "layer" not in config:
        config.update(flags)
    copied = type(layer).from_config(config)
    copied.build((None, None, layer.weights[0].shape[0]))
    copied.set_weights(layer.get_weights())
    return copied


def _keras_array(value: Any) -> Array:
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)

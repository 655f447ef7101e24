"""What a layer is compared with: a recurrent layer of Keras, run by Keras."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastlstm._checks import readable_path
from fastlstm.interchange import keras as keras_reader
from fastlstm.interchange._description import Description
from fastlstm.interchange._keras.files import open_file
from fastlstm.interchange._keras.objects import find_in_object

from ._results import Array, Inputs, Results, as_results


class KerasSource:
    """A recurrent layer of Keras: a copy of it that returns all outputs and the states."""

    takes_lengths = True
    ulps = 8
    # Also for layers in float64: Keras on PyTorch is then 1e-7 from NumPy in all its loops (GRU
    # with reset_after=False, SimpleRNN, masks), where others are 3e-16.
    dtype = np.dtype(np.float32)
    not_looked_at: tuple[str, ...]

    def __init__(self, source: Any, name: str | None) -> None:
        keras = _import_keras()
        self._source = source
        if isinstance(source, (str, os.PathLike)):
            path = readable_path("source", source)
            with open_file(path):  # has clear errors for other files
                pass
            try:
                source = keras.models.load_model(source, compile=False)
            except ValueError as error:
                raise ValueError(
                    f"{path}: Keras cannot load it ({error}). A file with "
                    "weights only does not say what its model was: load it into the model and "
                    "pass that to fastlstm.verify"
                ) from error
        found = find_in_object(source)
        self._name, chosen = keras_reader.choose_layer(found, name, type(source).__name__)
        layer = chosen.layer
        self._description = keras_reader.describe(self._source, self._name)
        self.not_looked_at = tuple(_not_looked_at(layer, chosen.around))
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
        return self._description

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


def _not_looked_at(layer: Any, around: str) -> Iterator[str]:
    if around:
        yield f"the {around} around it: the layer in it was run by itself"
    if _is_half(layer):
        yield f"its arithmetic in {layer.compute_dtype}: it was run in float32"
    if getattr(layer, "stateful", False):
        yield "that it keeps its state between calls"


def _is_half(layer: Any) -> bool:
    return str(layer.compute_dtype) in ("float16", "bfloat16")


def _with_all_results(keras: Any, layer: Any) -> Any:
    """A copy; what computes in half precision is widened, as its conversion is."""
    flags: dict[str, Any] = {"return_sequences": True, "return_state": True, "stateful": False}
    config = layer.get_config()
    wide = {"dtype": "float32"} if _is_half(layer) else {}
    config.update(wide)
    for inner in ("layer", "backward_layer", "cell"):
        if config.get(inner):
            config[inner]["config"].update(wide if inner == "cell" else flags | wide)
    if not hasattr(layer, "return_sequences") and hasattr(layer, "state_size"):  # a cell
        copied = keras.layers.RNN(type(layer).from_config(config), **flags, **wide)
    else:
        copied = type(layer).from_config(config if "layer" in config else config | flags)
    weights = [np.asarray(w, np.float32) if wide else w for w in layer.get_weights()]
    copied.build((None, None, weights[0].shape[0]))
    copied.set_weights(weights)
    return copied


def _keras_array(value: Any) -> Array:
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)

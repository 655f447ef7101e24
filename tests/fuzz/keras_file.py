"""Files of Keras: whole models of Keras 2 and 3, and weights alone."""

from __future__ import annotations

import io
import json
import pathlib
import random
import re
import zipfile
from typing import Any

import fastlstm
import numpy as np
from fastlstm.interchange._keras.files import open_file

T, I, H = 3, 2, 3
GATES = {"activation": "tanh", "recurrent_activation": "sigmoid"}
# What structures of HDF5 files begin with, and names that the reader asks for.
MARKS = (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"weight_names", b"model_config", b"kernel")


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    """A layer as a model's configuration has it."""
    return {"class_name": kind, "config": {"name": name, **config}}


def recurrent(kind: str, name: str) -> dict[str, Any]:
    more = {"reset_after": True} if kind == "GRU" else {}
    return layer(kind, name, units=H, use_bias=True, **GATES, **more)


def weights(kind: str) -> dict[str, Any]:
    gates = 4 if kind == "LSTM" else 3
    rng = np.random.default_rng(0)
    shapes = {"kernel": (I, gates * H), "recurrent_kernel": (H, gates * H), "bias": (gates * H,)}
    if kind == "GRU":
        shapes["bias"] = (2, gates * H)
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


LAYERS = [
    recurrent("LSTM", "one"),
    layer("Bidirectional", "both", layer=recurrent("GRU", "gru"), merge_mode="concat"),
    layer("TimeDistributed", "each", layer=recurrent("LSTM", "inner")),
]
MODEL = layer("Sequential", "model", layers=LAYERS)


def write_h5(file: Any) -> None:
    """As Keras 2: a group for each layer, and attributes that say what is in it."""
    file.attrs["model_config"] = json.dumps(MODEL)
    file.attrs["keras_version"] = "2.15.0"
    root = file.create_group("model_weights")
    cells = {
        "one": {"one/lstm_cell": "LSTM"},
        "both": {"both/forward_gru/gru_cell": "GRU", "both/backward_gru/gru_cell": "GRU"},
        "each": {"each/lstm_cell": "LSTM"},
    }
    root.attrs["layer_names"] = [name.encode() for name in cells]
    for name, inside in cells.items():
        group, names = root.create_group(name), []
        for scope, kind in inside.items():
            for leaf, value in weights(kind).items():
                group[f"{scope}/{leaf}:0"] = value
                names.append(f"{scope}/{leaf}:0".encode())
        group.attrs["weight_names"] = names


def write_weights(file: Any) -> None:
    """As Keras 3: a group for each object."""
    cells = {
        "lstm/cell": "LSTM",
        "bidirectional/forward_layer/cell": "GRU",
        "bidirectional/backward_layer/cell": "GRU",
        "time_distributed/layer/cell": "LSTM",
    }
    for path, kind in cells.items():
        for k, value in enumerate(weights(kind).values()):
            file[f"layers/{path}/vars/{k}"] = value
    for path, name in {"lstm": "one", "bidirectional": "both"}.items():
        file.create_group(f"layers/{path}/vars").attrs["name"] = name


def originals(folder: pathlib.Path) -> None:
    """Write small files that are read."""
    import h5py

    for libver in ("earliest", "latest"):
        with h5py.File(folder / f"{libver}.h5", "w", libver=libver) as file:
            write_h5(file)
        with h5py.File(folder / f"{libver}.weights.h5", "w", libver=libver) as file:
            write_weights(file)
    members = {
        "metadata.json": b'{"keras_version": "3.3.0"}',
        "config.json": json.dumps(MODEL).encode(),
        "model.weights.h5": (folder / "earliest.weights.h5").read_bytes(),
    }
    (folder / "model.keras").write_bytes(zipped(members))


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def read(path: str) -> object:
    """Read all layers."""
    with open_file(path) as file:
        found = file.find()
        alone = file.config is None
    both = {"merge_mode": "sum"}
    return [
        fastlstm.from_keras(
            path, name, **(GATES | (both if name == "both" else {}) if alone else {})
        )
        for name in found
    ]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Change a file where its structures are; of an archive, change a member and pack it again."""
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(list(members))
        members[name] = changed(rng, members[name])
        return zipped(members)
    return changed(rng, data)


def changed(rng: random.Random, data: bytes) -> bytes:
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        mark = rng.choice(MARKS)
        places = [found.start() for found in re.finditer(re.escape(mark), data)]
        at = rng.choice(places) + rng.randrange(64) if places else rng.randrange(len(data))
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(
            (
                bytes(width),
                b"\xff" * width,
                rng.randbytes(width),
                rng.randrange(len(data)).to_bytes(8, "little")[:width],  # another structure
            )
        )
        new[at : at + width] = value
    return bytes(new[: len(data)])

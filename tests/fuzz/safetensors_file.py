"""Safetensors files: layers that fastlstm saved, and others' tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import fastlstm
import numpy as np
import safetensors.numpy

# What may stand anywhere in a header.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 5, 2**31, 2**62, 2**200, 0.5, "", "F32", "F64", "BF16", "U8"),
    *([], [0], [4], [4, 4], [1] * 1000, [2**30, 2**31], {}, {"a": 1}, [0, 64], "x" * 10_000),
)


def originals(folder: Path) -> None:
    layers = {
        "lstm": fastlstm.LSTM(3, 4, 2, bidirectional=True, proj_size=2, seed=0),
        "gru": fastlstm.GRU(3, 4, dtype="float64", seed=0),
        "norm": fastlstm.LSTM(3, 4, layer_norm=True, zoneout=0.1, seed=0),
    }
    small = {
        "int8": layers["lstm"].quantize("int8", "int8"),
        "bfloat16": fastlstm.GRU(3, 4, seed=0).quantize("bfloat16"),
    }
    for name, layer in {**layers, **small}.items():
        layer.save(folder / f"{name}.safetensors")
    tensors = {name: value.astype(np.float16) for name, value in layers["gru"].params.items()}
    safetensors.numpy.save_file(tensors, folder / "half.safetensors")


def read(path: str) -> object:
    try:
        return fastlstm.load(path)
    except ValueError:
        return fastlstm.from_torch(path)


def mutated(random: Random, data: bytes) -> bytes:
    """A file with another header, which may be that of a good one."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if "fastlstm" in metadata and random.random() < 0.5:
        config = json.loads(metadata["fastlstm"])
        metadata["fastlstm"] = json.dumps(_changed(random, config))
    else:
        header = _changed(random, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _changed(random: Random, value: Any) -> Any:
    """The same but for one value in it, or one name."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice([*value])
        inner = value.pop(name)
        if random.random() < 0.9:
            new = name if random.random() < 0.8 else random.choice(("", name + "0", *value))
            value[new] = _changed(random, inner)
    elif isinstance(value, list) and value and random.random() < 0.5:
        place = random.randrange(len(value))
        value[place] = _changed(random, value[place])
    else:
        value = random.choice(VALUES)
    return value

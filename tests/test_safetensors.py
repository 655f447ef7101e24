"""Safetensors files that are damaged, or have what layers cannot take."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import fastlstm
import pytest
import safetensors.numpy
from damage import assert_reads_or_refuses
from fastlstm._safetensors import read_header
from support import assert_same_bits

WEIGHTS = fastlstm.LSTM(3, 4, bias=False, seed=0).state_dict()


def write(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(dtype: Any = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "Expecting"),
        (b'{"a": NaN', "Expecting"),
        (b'{"a":' * 50_000, "recursion"),
        (b'{"a":' * 5_000_000, "more than a file of its size"),
        (b"{\xff}", "utf-8"),
        ({"a": 3}, "a: expected dtype"),
        ({"a": {}}, "a: expected dtype"),
        ({"a": {**entry(), "shape": 2}}, "a: expected dtype"),
        ({"a": {**entry(), "data_offsets": [0]}}, "a: expected dtype"),
        ({"a": entry(dtype=None)}, "a: expected dtype"),
        ({"a": entry(shape=[-2])}, "a: its shape or place"),
        ({"a": entry(shape=[2.0])}, "a: its shape or place"),
        ({"a": entry(shape=[True, 2])}, "a: its shape or place"),
        ({"a": entry(shape=[1] * 100)}, "a: its shape or place"),
        ({"a": entry(begin=8, end=0)}, "a: its shape or place"),
        ({"a": entry(end=2**80)}, "a: its shape or place"),
        ({"a": entry(shape=[3])}, r"a: 8 bytes for the shape \(3,\)"),
        ({"a": entry(shape=[2**31, 2**31])}, "a: 8 bytes for the shape"),
        ({"a": entry(), "b": entry()}, "do not follow one another"),
        ({"a": entry(shape=[1], end=4)}, "expected 73 bytes, got 77"),
        ({"a": entry(shape=[1], begin=4)}, "do not follow one another"),
        ({"a": entry(shape=[4], end=16)}, "bytes, got"),
        (b'{"a": 1, "a": 1}', "twice"),
        ({"__metadata__": {"a": 3}}, "metadata"),
        ({"__metadata__": []}, "metadata"),
    ],
)
def test_damaged_headers(header: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    write(path, header, bytes(8))
    for read in (fastlstm.load, fastlstm.from_torch):
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)
        assert not assert_reads_or_refuses(read, path, path.read_bytes())


@pytest.mark.parametrize(
    "metadata",
    [
        *("", "x", "{", "{}", "[]", "3", "null", "[" * 100_000, '"LSTM"'),
        *('{"layer": "GRU"}', '{"layer": "X", "options": {}}', '{"layer": [], "options": {}}'),
        *('{"layer": "GRU", "options": []}', '{"layer": "GRU", "options": null}'),
    ],
)
def test_damaged_configurations_beside_tensors_of_pytorchs(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    safetensors.numpy.save_file(WEIGHTS, path, metadata={"fastlstm": metadata})
    with pytest.raises(ValueError, match="its configuration is damaged") as error:
        fastlstm.from_torch(path)
    assert str(path) in str(error.value)


def config(**options: Any) -> dict[str, str]:
    options = {"input_size": 3, "hidden_size": 4, "bias": False, **options}
    return {"fastlstm": json.dumps({"format": 1, "layer": "LSTM", "options": options})}


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": 60_000},
        {"input_size": 2**27},
        {"num_layers": 300_000},
        {"num_layers": 3, "bidirectional": True},
        {"proj_size": 3},
    ],
)
def test_claims_of_sizes(options: dict[str, Any], tmp_path: Path) -> None:
    """Nothing of a size that only the configuration says is made."""
    path = tmp_path / "m"
    extra = {f"weight_ih_l{options.get('num_layers', 1) - 1}": WEIGHTS["weight_ih_l0"]}
    safetensors.numpy.save_file(WEIGHTS | extra, path, metadata=config(**options))
    assert not assert_reads_or_refuses(fastlstm.load, path, path.read_bytes())


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float16", "float32"), ("float32", "float64"), ("float32", "float32")],
)
def test_layers_take_what_they_hold_exactly(stored: str, dtype: str, tmp_path: Path) -> None:
    tensors = {name: value.astype(stored) for name, value in WEIGHTS.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "m", metadata=config(dtype=dtype))
    layer = fastlstm.load(tmp_path / "m")
    for name, value in tensors.items():
        assert_same_bits(layer.params[name], value.astype(dtype))


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float64", "float32"), ("float16", "float64"), ("int32", "float32"), ("bool", "float32")],
)
def test_layers_take_nothing_else(stored: str, dtype: str, tmp_path: Path) -> None:
    tensors = {**WEIGHTS, "weight_hh_l0": WEIGHTS["weight_hh_l0"].astype(stored)}
    safetensors.numpy.save_file(tensors, tmp_path / "m", metadata=config(dtype=dtype))
    with pytest.raises(ValueError, match="weight_hh_l0: expected F"):
        fastlstm.load(tmp_path / "m")


def test_types_that_are_not_read_do_not_matter_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "m"
    others = {
        "a": entry("F4", (3,), 0, 2),  # of less than a byte
        "b": entry("F8_E4M3", (2,), 2, 4),
        "c": entry("C64", (1,), 4, 12),
        "d": entry("F32", (0,), 12, 12),
        "e": entry("F32", (), 12, 16),
    }
    write(path, others, bytes(16))
    _, tensors = read_header(str(path))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tuple(value["shape"]) for name, value in others.items()
    }
    for name in "abc":
        with pytest.raises(ValueError, match="expected a tensor of floats, got one of"):
            tensors[name].read()
    assert tensors["d"].read().shape == (0,)
    assert tensors["e"].read().shape == ()


def test_a_file_that_changes_between_description_and_reading(tmp_path: Path) -> None:
    safetensors.numpy.save_file(WEIGHTS, tmp_path / "m")
    _, tensors = read_header(str(tmp_path / "m"))
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(ValueError, match="expected 48 values, got 0"):
        tensors["weight_ih_l0"].read()


@pytest.mark.parametrize("shape", [(), (0, 3), (6,), (2, 3)])
@pytest.mark.parametrize("dtype", ["F32", "F64", "BF16"])
def test_values_own_their_memory(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Layers keep such arrays; of others they make a copy, twice the memory."""
    count, size = math.prod(shape), {"F32": 4, "F64": 8, "BF16": 2}[dtype]
    path = tmp_path / "m"
    write(path, {"a": entry(dtype, shape, end=count * size)}, bytes(range(count * size)))
    values = read_header(str(path))[1]["a"].read()
    assert values.shape == shape
    assert values.flags.owndata

"""Files of torch.save and torch.jit.save, and what stands in their place."""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import gzip
import io
import json
import lzma
import pickle
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fastlstm
import numpy as np
import pytest
from damage import MOST_MEMORY, assert_reads_or_refuses
from fastlstm._files import HeldFile
from fastlstm.interchange._torch.file import read_torch_file
from support import assert_same_bits

torch = pytest.importorskip("torch")

WEIGHTS = {name: value.numpy() for name, value in torch.nn.LSTM(3, 4).state_dict().items()}
TENSORS = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}


def assert_read(path: Path, prefix: str | None = None, weights: Any = None, **options: Any) -> None:
    layer = fastlstm.from_torch(path, prefix, **options)
    for name, value in (weights or WEIGHTS).items():
        assert_same_bits(layer.params[name], np.asarray(value))


# --- containers -----------------------------------------------------------------------------------


class DictOfOurs(dict[str, Any]):
    pass


class ListOfOurs(list[Any]):
    pass


class Pair(NamedTuple):
    model: Any
    epoch: int


@dataclasses.dataclass
class Record:
    model: Any


class Slots:
    __slots__ = ("__dict__", "model")


class Reduced:
    def __reduce__(self) -> Any:
        return Reduced, (), (TENSORS, 3)

    def __setstate__(self, state: Any) -> None:
        pass


class Made:
    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def __reduce__(self) -> Any:
        return Made, (self.weights,)


class WithKeywords:
    def __new__(cls, *, weights: Any = None) -> WithKeywords:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> Any:
        return (), {"weights": TENSORS}


def slots() -> Slots:
    thing = Slots()
    thing.model = TENSORS
    thing.other = 3
    return thing


def default_dict() -> Any:
    value: Any = collections.defaultdict(dict)
    value["model"].update(TENSORS)
    return value


CONTAINERS: dict[str, tuple[Any, str]] = {
    "list": ([{"lr": 0.1}, TENSORS], "1"),
    "tuple": ((None, [TENSORS]), "1.0"),
    "ordered": (collections.OrderedDict(model=TENSORS), "model"),
    "defaultdict": (default_dict(), "model"),
    "subclass of dict": (DictOfOurs(model=DictOfOurs(TENSORS)), "model"),
    "subclass of list": (ListOfOurs([TENSORS]), "0"),
    "deque": (collections.deque([TENSORS]), "0"),
    "namedtuple": (Pair(TENSORS, 3), "0"),
    "namespace": (argparse.Namespace(model=TENSORS), "model"),
    "simple namespace": (types.SimpleNamespace(model=TENSORS), "model"),
    "dataclass": (Record(TENSORS), "model"),
    "slots": (slots(), "model"),
    "state of its own": (Reduced(), "0"),
    "arguments": (Made(TENSORS), "0"),
    "keys": ({1: {("a", 2): TENSORS}, None: 3}, "1.(a, 2)"),
    "array of objects": ({"all": np.array([TENSORS, None], object)}, "all.0"),
    "words": ({"m": TENSORS, "words": {f"w{n}": n for n in range(120_000)}}, "m"),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 5, 0, "legacy"])
def test_containers(name: str, protocol: Any, tmp_path: Path) -> None:
    value, prefix = CONTAINERS[name]
    if name == "slots" and protocol == 0:
        pytest.skip("pickle cannot")
    options = (
        {"_use_new_zipfile_serialization": False}
        if protocol == "legacy"
        else {"pickle_protocol": protocol}
    )
    torch.save(value, tmp_path / "m", **options)
    assert_read(tmp_path / "m")
    assert_read(tmp_path / "m", prefix)


@pytest.mark.parametrize("protocol", [2, 4])
def test_arguments_by_keyword(protocol: int, tmp_path: Path) -> None:
    torch.save(WithKeywords(), tmp_path / "m", pickle_protocol=protocol)
    assert_read(tmp_path / "m")


@pytest.mark.parametrize("protocol", range(6))
def test_protocols_of_the_older_format(protocol: int, tmp_path: Path) -> None:
    torch.save(
        {"net": TENSORS, "lr": 0.5, "n": 3},
        tmp_path / "m",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=False,
    )
    assert_read(tmp_path / "m", "net")


def test_an_ordered_dictionary_of_python_2(tmp_path: Path) -> None:
    pairs = [[name, value] for name, value in WEIGHTS.items()]
    data = pickle.dumps(pairs, 2)
    data = data[:2] + b"ccollections\nOrderedDict\n" + data[2:-1] + b"\x85R."
    (tmp_path / "m").write_bytes(data)
    assert_read(tmp_path / "m")


def test_things_in_themselves(tmp_path: Path) -> None:
    value: dict[str, Any] = {"model": TENSORS}
    value["self"] = [value, value]
    torch.save(value, tmp_path / "m")
    assert_read(tmp_path / "m", "model")


@pytest.mark.parametrize("protocol", range(6))
def test_everything_beside_the_weights(protocol: int, tmp_path: Path) -> None:
    value = {
        "net": TENSORS,
        "mean": np.ones(3),
        "scalars": [np.float32(3), np.int64(4), np.bool_(True), 10**30, -1.5, 1j, b"bytes", "text"],
        "rng": np.random.default_rng(0).bit_generator.state,
        "set": ({1, 2}, frozenset({"a"})),
        "names": np.array(["a", None], object),
        "function": np.sum,
    }
    torch.save(value, tmp_path / "m", pickle_protocol=protocol)
    assert_read(tmp_path / "m", "net")


# --- arrays and plain pickles ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("tensors", [False, True])
def test_plain_pickles(protocol: int, tensors: bool, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(pickle.dumps({"net": TENSORS if tensors else WEIGHTS}, protocol))
    assert_read(path, "net")


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("change", [np.asfortranarray, lambda w: w.astype(">f4"), np.float64])
def test_arrays_as_numpy_has_them(change: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "m"
    weights = {name: change(value) for name, value in WEIGHTS.items()}
    path.write_bytes(pickle.dumps(weights, protocol))
    expected = {
        name: value.astype(value.dtype.newbyteorder("=")) for name, value in weights.items()
    }
    assert_read(path, weights=expected)
    torch.save(weights, path, pickle_protocol=protocol)
    assert_read(path, weights=expected)


@pytest.mark.parametrize("protocol", [2, 5])
def test_large_arrays(protocol: int, tmp_path: Path) -> None:
    """Of which the older protocols make text, and bytes of that."""
    module = torch.nn.LSTM(1200, 1200)
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    torch.save(weights, tmp_path / "m", pickle_protocol=protocol)
    assert_read(tmp_path / "m", weights=weights)


@pytest.mark.parametrize("half", [np.float16, "bfloat16"])
def test_half_precision_in_arrays(half: Any, tmp_path: Path) -> None:
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes").bfloat16
    weights = {name: value.astype(half) for name, value in WEIGHTS.items()}
    (tmp_path / "m").write_bytes(pickle.dumps(weights))
    assert_read(tmp_path / "m", weights={n: w.astype(np.float32) for n, w in weights.items()})


@pytest.mark.parametrize("dtype", [np.int32, bool, np.complex64, "S4", "O", "M8[s]"])
def test_arrays_of_other_types_are_refused(dtype: Any, tmp_path: Path) -> None:
    weights = {**WEIGHTS, "weight_hh_l0": np.zeros((16, 4), dtype)}
    (tmp_path / "m").write_bytes(pickle.dumps(weights))
    with pytest.raises(ValueError, match="weight_hh_l0: expected an array of floats, got one of"):
        fastlstm.from_torch(tmp_path / "m")


# --- tensors --------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    """In a pickle."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _with(value: Any) -> dict[str, Any]:
    return {**TENSORS, "weight_hh_l0": value}


R = TENSORS["weight_hh_l0"]


class TensorOfOurs(torch.Tensor):  # type: ignore[misc, name-defined]
    pass


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(0.5).expand(16, 4),
        torch.arange(16.0)[:, None].expand(16, 4),
        torch.arange(4.0).expand(16, 4),
        R.T.contiguous().T,
        torch.nn.Parameter(R),
        torch.nn.Buffer(R),
        R.as_subclass(TensorOfOurs),
        torch._neg_view(R),
        torch.complex(R, R).conj().imag,
        torch.cat([R, R])[16:],
    ],
)
@pytest.mark.parametrize("saver", ["zip", "legacy", "pickle"])
def test_tensors(value: Any, saver: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    if saver == "pickle":
        path.write_bytes(pickle.dumps(_with(value)))
    else:
        torch.save(_with(value), path, _use_new_zipfile_serialization=saver == "zip")
    assert_read(path, weights=_with(value.detach().resolve_neg()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: R.to_sparse(), "a sparse tensor"),
        (lambda: R.to_sparse_csr(), "a sparse tensor"),
        (lambda: torch.quantize_per_tensor(R, 0.1, 0, torch.qint8), "a quantised tensor"),
        (lambda: R.to("meta"), "a tensor without values"),
        (lambda: R.to(torch.float8_e4m3fn), "one of float8_e4m3fn"),
        (lambda: R.to(torch.uint16), "one of uint16"),
        (lambda: R.to(torch.int64), "one of int64"),
        (lambda: R.to(torch.complex64).conj(), "one of complex64"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_tensors_are_refused_where_they_are_wanted(
    make: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    torch.save({"net": _with(make())}, tmp_path / "m")
    with pytest.raises(ValueError, match=f"weight_hh_l0: expected a tensor of floats.*{message}"):
        fastlstm.from_torch(tmp_path / "m")
    torch.save({"net": TENSORS, "other": make()}, tmp_path / "m")
    assert_read(tmp_path / "m", "net")


@pytest.mark.filterwarnings("ignore")
def test_a_nested_tensor_does_not_matter_elsewhere(tmp_path: Path) -> None:
    other = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({"net": TENSORS, "other": other}, tmp_path / "m")
    assert_read(tmp_path / "m", "net")


def test_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "m")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_read(tmp_path / "m")


def test_checksums_are_compared(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "m")
    data = bytearray((tmp_path / "m").read_bytes())
    data[data.index(WEIGHTS["weight_hh_l0"].tobytes())] ^= 1
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ValueError, match="weight_hh_l0: m/data/1 is damaged"):
        fastlstm.from_torch(tmp_path / "m")


def test_parts_of_storages_from_before_0_4(tmp_path: Path) -> None:
    """Written by hand: the view is the second half of a storage."""

    def tensor(shape: bytes, strides: bytes, key: str, numel: int, start: int, part: int) -> bytes:
        numbers = [b"M" + struct.pack("<H", n) for n in (numel, start, part)]
        return (
            b"ctorch._utils\n_rebuild_tensor\n((" + text("storage") + b"ctorch\nFloatStorage\n"
            + text(key) + text("cpu") + numbers[0] + b"(" + text("view") + numbers[1] + numbers[2]
            + b"ttQK\x00" + shape + strides + b"tR"
        )  # fmt: skip

    pickled = (
        b"\x80\x02}(" + text("weight_ih_l0")
        + tensor(b"K\x08K\x03\x86", b"K\x03K\x01\x86", "a", 48, 24, 24)
        + text("weight_hh_l0")
        + tensor(b"K\x08K\x02\x86", b"K\x02K\x01\x86", "b", 16, 0, 16) + b"u."
    )  # fmt: skip
    values = np.arange(64, dtype=np.float32)
    data = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    data += pickle.dumps({"little_endian": True}, 2) + pickled + pickle.dumps(["a", "b"], 2)
    data += struct.pack("<q", 48) + values[:48].tobytes()
    data += struct.pack("<q", 16) + values[48:].tobytes()
    (tmp_path / "m").write_bytes(data)
    assert_read(
        tmp_path / "m",
        weights={
            "weight_ih_l0": values[24:48].reshape(8, 3),
            "weight_hh_l0": values[48:].reshape(8, 2),
        },
    )


# --- TorchScript ----------------------------------------------------------------------------------


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
        self.relu = torch.nn.RNN(8, 4, nonlinearity="relu")
        self.cell = torch.nn.GRUCell(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
        y = self.relu(self.rnn(x)[0])[0]
        return y + self.cell(x[:, 0]).sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("traced", [False, True])
def test_torch_script(traced: bool, tmp_path: Path) -> None:
    net = Net().eval()
    script = torch.jit.trace(net, torch.zeros(2, 5, 3)) if traced else torch.jit.script(net)
    torch.jit.save(script, tmp_path / "m")
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    layer = fastlstm.from_torch(tmp_path / "m", "rnn")
    assert layer.batch_first
    assert np.allclose(layer(x)[0], net.rnn(torch.from_numpy(x))[0].detach(), atol=1e-6)
    assert fastlstm.from_torch(tmp_path / "m", "relu").nonlinearity == "relu"
    assert not fastlstm.from_torch(tmp_path / "m", "relu").batch_first
    assert_read(tmp_path / "m", "cell", {f"{n}_l0": w for n, w in net.cell.state_dict().items()})
    assert read_torch_file(str(tmp_path / "m")).tensors.keys() == net.state_dict().keys()


@pytest.mark.filterwarnings("ignore")
def test_torch_script_of_one_module(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.GRU(3, 4, batch_first=True)), tmp_path / "m")
    assert fastlstm.from_torch(tmp_path / "m").batch_first
    with pytest.raises(ValueError, match="batch_first: expected None, as the module says"):
        fastlstm.from_torch(tmp_path / "m", batch_first=True)


# --- other things ---------------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"<!-- saved -->\n<!-- twice -->\n<html>", "web page"),
        (b"<!-- a comment -->\n", "text"),
        (b"", "an empty file"),
        (json.dumps([[1, 2], [3]]).encode(), "JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "JSON"),
        (json.dumps({"metadata": {}, "weight_map": {"a": "b"}}).encode(), "model in several files"),
        (b"epoch,loss\n1,2.5\n", "text"),
        ("größer\n".encode() * 1000, "text"),
        (gzip.compress(b"a", mtime=0), "gzip"),
        (lzma.compress(b"a"), "xz"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "from_keras"),
        (b"\x08\x08\x12\x07pytorch", "from_onnx"),
        (b"\x93NUMPY\x01\x00", "numpy.load"),
        (b"model" + bytes(252) + b"ustar\x0000", "tar archive"),
        (zipped(**{"config.json": b"", "model.weights.h5": b""}), "from_keras"),
        (zipped(**{"a.npy": b"", "b.npy": b""}), "npz"),
        (zipped(**{"[Content_Types].xml": b"", "word/document.xml": b""}), "a document"),
        (zipped(**{"run/model.pt": b""}), "run/model.pt among them: unpack"),
        (zipped(**{"m/archive_format": b"pt2", "m/models/model.json": b""}), "torch.export"),
        (zipped(), "nothing"),
        (saved(TENSORS)[:-100], "cut"),
        (pickle.dumps([1, 2, {"a": "b"}]), "no tensors or arrays"),
        (pickle.dumps(3), "no tensors or arrays"),
    ],
)
def test_what_is_no_file_of_pytorch(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        fastlstm.from_torch(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
        (b"<html>", "web page"),
        (b"", "an empty file"),
        (saved(TENSORS), "from_torch"),
        (pickle.dumps(WEIGHTS), "from_torch"),
        (b'{"a": {"b": 1}}', "JSON"),
    ],
)
def test_what_is_no_layer(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(data)
    with pytest.raises(ValueError, match=f"not a safetensors file that can be read: .*{message}"):
        fastlstm.load(tmp_path / "l")


# --- what little files describe -------------------------------------------------------------------


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], numel: int) -> bytes:
    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        + text("0") + text("cpu") + number(numel) + b"tQK\x00" + numbers(shape) + numbers(strides)
        + b"\x89}tR"
    )  # fmt: skip


LAUGHS = b")" + b"2\x86" * 60  # a tuple of 2**60 empty ones
MANY = 50_000
OBJECT = b"ca\nb\nq\x000("
KEYS = b"".join(text(str(n)) + b"]" for n in range(MANY // 20))

BOMBS = {
    "text of a name": LAUGHS + b"2\x93.",
    "hash of a key": b"}" + LAUGHS + b"Ns.",
    "a storage": LAUGHS + b"Q.",
    "a shape": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00" + LAUGHS + b"2tR.",
    "a state": b"cnumpy\ndtype\n" + text("f4") + b"\x85R" + LAUGHS + b"b.",
    "lists": b"(" + b"]" * MANY * 20 + b"l.",
    "shared arguments": b"(" + b"N" * MANY + b"tq\x010" + OBJECT + b"h\x00h\x01\x81" * MANY + b"l.",
    "shared lists": b"(" + b"]" * MANY + b"lq\x010" + OBJECT + b"h\x00h\x01\x85\x81" * MANY + b"l.",
    "shared states": b"}(" + KEYS + b"uq\x010" + OBJECT + b"h\x00)\x81h\x01b" * MANY + b"l.",
    "a tensor of many names": tensor((20, 5), (5, 1), 100) + b"q\x00(" + b"h\x00" * MANY + b"l.",
    "long names": text("k" * MANY) + b"q\x000}(" + b"h\x00h\x00h\x00\x86" * MANY + b"u.",
    "a long class": b"c__torch__." + b"a" * MANY + b"\nb\nq\x00(" + b"h\x00)\x81}b" * MANY + b"l.",
    "a long storage": b"P('storage', <class '" + b"a" * MANY + b"\n.",
    "deep names": b"".join(b"}" + text("a") for _ in range(MANY)) + b"N" + b"s" * MANY + b".",
    "bytes again and again": b"c_codecs\nencode\nq\x00" + text("k" * MANY) + text("latin1")
    + b"\x86q\x01(" + b"h\x00h\x01R" * MANY + b"l.",
    "pairs again and again": b"ccollections\nOrderedDict\nq\x00](" + b"NN\x86" * MANY
    + b"e\x85q\x01(" + b"h\x00h\x01R" * MANY + b"l.",
    "a long number": b"L" + b"7" * MANY + b"L\n.",
    "a memo": b"}r\xff\xff\xff\x7f.",
    "a far place in the memo": b"}r" + struct.pack("<I", 7_000_000) + b".",
    "one element": b"}(" + text("weight_ih_l0") + tensor((2**15, 2**14), (0, 0), 1)
    + text("weight_hh_l0") + tensor((2**15, 2**13), (0, 0), 1) + b"u.",
    "one storage": b"}(" + b"".join(
        text(f"weight_{kind}_l{k}") + tensor((2048, 512), (512, 1), 2**20)
        for k in range(50) for kind in ("ih", "hh")
    ) + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_little_file_describes(name: str, tmp_path: Path) -> None:
    storage = {"a/data/0": bytes(2**22)} if name == "one storage" else {"a/data/0": bytes(400)}
    data = zipped(**{"a/data.pkl": b"\x80\x02" + BOMBS[name], **storage})
    assert not assert_reads_or_refuses(fastlstm.from_torch, tmp_path / "m", data)


def directory_of(entries: int) -> bytes:
    """An archive whose directory names its file again and again."""
    data = zipped(**{"a/data.pkl": b"\x80\x02}" + b"N0" * 1000 + b"."})
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = data[start:end]
    names = [entry.replace(b"a/data.pkl", b"%010d" % n) for n in range(entries - 1)]
    directory = b"".join([*names, entry])
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, entries, entries, len(directory), start, 0)
    return data[:start] + directory + tail


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (directory_of(2), "shares bytes"),
        (directory_of(60_000), "shares bytes"),
        (zipped(**{"a/data.pkl": b"}."})[:-10] + b"\xff" * 10, "more than a file of its size"),
        (zipped(**{"a/data.pkl": b"}."})[:-30], "cut"),
    ],
    ids=["shared once", "shared often", "large", "cut"],  # the bytes have the time in them
)
def test_archives_that_lie(data: bytes, message: str, tmp_path: Path) -> None:
    assert not assert_reads_or_refuses(fastlstm.from_torch, tmp_path / "m", data)
    with pytest.raises(ValueError, match=message):
        fastlstm.from_torch(tmp_path / "m")


def test_code_is_not_unpacked_beyond_the_files_size(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02c__torch__.x\nb\n)\x81}b.")
        archive.writestr("a/code/__torch__/x.py", b" " * (100 << 20), zipfile.ZIP_DEFLATED)
    data = (tmp_path / "m").read_bytes()
    assert not assert_reads_or_refuses(fastlstm.from_torch, tmp_path / "m", data)


# --- what reading takes ---------------------------------------------------------------------------


LONG = 40 << 20
HUNDRED = b"a" * 96 + "\U0001f600".encode()


def _counted(code: bytes, width: int, data: bytes) -> bytes:
    return code + len(data).to_bytes(width, "little") + data


def _wide() -> bytes:
    return b"a" * (LONG - 4) + "\U0001f600".encode()


ENCODE = b"c_codecs\nencode\nh\x00X\6\0\0\0latin1\x86R"
# Pickles, most of which one operation asks for, or many alike.
LARGE: dict[str, Callable[[], bytes]] = {
    "BINUNICODE": lambda: _counted(b"X", 4, _wide()),
    "BINUNICODE8": lambda: _counted(b"\x8d", 8, _wide()),
    "UNICODE": lambda: b"V" + b"a" * (LONG - 10) + b"\\U0001f600\n",
    "STRING": lambda: b"S'" + b"a" * LONG + b"'\n",
    "BINSTRING": lambda: _counted(b"T", 4, _wide()),
    "BINBYTES": lambda: _counted(b"B", 4, _wide()),
    "BINBYTES8": lambda: _counted(b"\x8e", 8, _wide()),
    "BYTEARRAY8": lambda: _counted(b"\x96", 8, _wide()),
    "LONG4": lambda: _counted(b"\x8b", 4, _wide()),
    "LONG": lambda: b"L" + b"0" * LONG + b"L\n",
    "FLOAT": lambda: b"F" + b"1" * LONG + b"\n",
    "PUT": lambda: b"Np" + b"0" * LONG + b"\n",
    "GLOBAL": lambda: b"c" + b"a" * LONG + b"\nb\n",
    "PERSID": lambda: b"P" + b"a" * LONG + b"\n",
    "cut": lambda: _counted(b"X", 4, _wide())[:-1],
    "encoded": lambda: _counted(b"X", 4, _wide()) + b"q\x00" + ENCODE,
    "encoded often": lambda: _counted(b"X", 4, _wide()[:-4]) + b"q\x00(" + ENCODE * 5 + b"t",
    "short": lambda: b"(" + _counted(b"X", 4, HUNDRED) * (2 * LONG // 105) + b"t",
    "shorter": lambda: b"(" + _counted(b"U", 1, b"123456789") * (LONG // 11) + b"t",
    "at the limit": lambda: b"(" + _counted(b"X", 4, HUNDRED * 655) * (2 * LONG // 65505) + b"t",
}


@pytest.mark.skipif(sys.platform != "linux", reason="its /proc")
@pytest.mark.parametrize(
    ("kind", "form"),
    [*((kind, "plain") for kind in LARGE), *((kind, "zip") for kind in ("BINUNICODE", "short"))],
)
def test_long_operands_of_a_pickle(kind: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    pickled = b"\x80\x04" + LARGE[kind]() + b"."
    path.write_bytes(zipped(**{"m/data.pkl": pickled}) if form == "zip" else pickled)
    # In a process of its own: mapped pages count, and memory that was let go of does not.
    code = """
        import sys
        from pathlib import Path

        import fastlstm
        from fastlstm.interchange._torch import file

        def memory(entry):
            status = Path("/proc/self/status").read_text()
            return int(status.partition(f"{entry}:")[2].split()[0]) << 10

        path = sys.argv[1]
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        try:
            fastlstm.from_torch(path)
        except ValueError:
            print(memory("VmHWM") - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * path.stat().st_size + MOST_MEMORY


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_long_arrays_in_pickles(kind: str, protocol: int, tmp_path: Path) -> None:
    module = torch.nn.LSTM(70, 70)  # 78 KB a matrix
    tensors = dict(module.state_dict())
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    beside = ["\U0001f600" * 100_000, bytes(100_000), bytearray(100_000), 1 << 800_000]
    stored = {"net": arrays if kind == "arrays" else tensors, "beside": beside, "a" * 100_000: 1}
    if protocol < 2:
        beside.pop()  # whose digits Python refuses to write
    (tmp_path / "m").write_bytes(pickle.dumps(stored, protocol))
    layer = fastlstm.from_torch(tmp_path / "m")
    for name, value in arrays.items():
        assert_same_bits(layer.params[name], value)


def _saved_large(kind: str, path: Path) -> Callable[[Path], Any]:
    module = torch.nn.LSTM(512, 512)
    if kind == "load":
        fastlstm.from_torch(module).save(path)
        return fastlstm.load
    if kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    return fastlstm.from_torch


@pytest.mark.parametrize("kind", ["load", "safetensors", "zip", "legacy"])
def test_memory_and_independence_of_the_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    read = _saved_large(kind, path)
    size = path.stat().st_size
    monkeypatch.setattr("fastlstm.layers.layer.initial_values", None)  # nothing is drawn
    read(path)
    tracemalloc.start()
    layer = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The arrays, and one of them again; what is packed, another 1.0, is not Python's.
    assert peak < 1.6 * size
    before = layer.state_dict()
    with open(path, "r+b") as file:
        file.write(bytes(size))
    for name, value in layer.params.items():
        assert_same_bits(value, before[name])
        assert not value.flags.writeable


@pytest.mark.parametrize("kind", ["load", "safetensors", "zip", "legacy"])
def test_too_little_memory_is_no_damage(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _saved_large(kind, tmp_path / "m")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(HeldFile, "values", fail)
    with pytest.raises(MemoryError):
        read(tmp_path / "m")


def test_a_layer_does_not_depend_on_the_arrays_that_it_was_made_from() -> None:
    source = copy.deepcopy(WEIGHTS)
    layer = fastlstm.from_torch(source)
    for value in source.values():
        value[...] = 0  # still writable
    for name, value in WEIGHTS.items():
        assert_same_bits(layer.params[name], value)


def test_a_loaded_layer_has_random_numbers(tmp_path: Path) -> None:
    fastlstm.LSTM(3, 8, 2, dropout=0.5, seed=0).save(tmp_path / "l")
    layer = fastlstm.load(tmp_path / "l")
    x = np.ones((4, 2, 3), np.float32)
    first, second = (layer.forward(x)[0] for _ in range(2))
    assert not np.array_equal(first, second)
    other = copy.deepcopy(layer)
    assert_same_bits(layer.forward(x)[0], other.forward(x)[0])


@pytest.mark.parametrize(
    "beside",
    [
        [[1, 2, 3] * 5 for _ in range(200_000)],
        [[300 + n % 7 for n in range(60)] for _ in range(40_000)],
        {f"word{n}": row for n, row in enumerate(torch.zeros(50_000, 1))},
    ],
    ids=["short lists", "long lists", "rows"],
)
def test_much_beside_a_layer(beside: Any, tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "beside": beside}, tmp_path / "m.pt")
    assert_read(tmp_path / "m.pt")


def test_many_layers_that_share_a_tensor(tmp_path: Path) -> None:
    W = torch.zeros(4, 1)
    names = [f"weight_{kind}_l{k}" for kind in ("ih", "hh") for k in range(20_000)]
    torch.save(dict.fromkeys(names, W), tmp_path / "m.pt")
    with pytest.raises(ValueError, match="more than a file of its size can hold"):
        fastlstm.from_torch(tmp_path / "m.pt")

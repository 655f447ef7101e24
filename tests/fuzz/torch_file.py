"""PyTorch's files: zip archives, the format before, TorchScript, pickles of arrays."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from random import Random

import fastlstm
import numpy as np
from fastlstm.interchange._torch.file import read_torch_file

I, H = 3, 4
SHAPES = {
    "weight_ih_l0": (4 * H, I),
    "weight_hh_l0": (4 * H, H),
    "bias_ih_l0": (4 * H,),
    "bias_hh_l0": (4 * H,),
}
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.standard_normal(shape).astype("f4") for name, shape in SHAPES.items()}
CODE = """class LSTM(Module):
  __parameters__ = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", ]
  mode : Final[str] = "LSTM"
  batch_first : Final[bool] = True
  dropout : Final[float] = 0.
  def forward(self, x):
    y, _3, _4 = torch.lstm(x, _1, _2, True, 1, 0., False, False, True)
    return y
"""
# What a damaged pickle may have anywhere: whole operations.
OPERATIONS = (
    *(b"(", b")", b"]", b"}", b"0", b"1", b"2", b"N", b"\x88", b"K\x00", b"K\x05", b"a", b"e"),
    *(b"s", b"u", b"t", b"l", b"d", b"R", b"b", b"\x81", b"\x85", b"\x86", b"\x87", b"Q", b"."),
    *(b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x94", b"J\xff\xff\xff\x7f", b"X\x01\0\0\0a"),
    *(b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n"),
    b"cnumpy\ndtype\n",
)


def originals(folder: Path) -> None:
    net = b"}" + text("net") + state() + b"s."
    module = (
        b"ctorch.nn.modules.rnn\nLSTM\n)\x81}(" + text("_parameters") + state() + text("_modules")
        + b"}" + text("batch_first") + b"\x88" + text("dropout") + b"K\x00" + b"ub."
    )  # fmt: skip
    script = b"c__torch__.torch.nn.modules.rnn\nLSTM\n)\x81" + state() + b"b."
    (folder / "net.pt").write_bytes(archive(b"\x80\x02" + net))
    (folder / "module.pt").write_bytes(archive(b"\x80\x02" + module))
    code = {"code/__torch__/torch/nn/modules/rnn.py": CODE.encode()}
    (folder / "script.pt").write_bytes(archive(b"\x80\x02" + script, code))
    (folder / "before.pt").write_bytes(
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + pickle.dumps({"little_endian": True}, 2)
        + b"\x80\x02" + net
        + pickle.dumps([*SHAPES], 2)
        + b"".join(struct.pack("<q", w.size) + w.tobytes() for w in WEIGHTS.values())
    )  # fmt: skip
    for protocol in (0, 2, 5):
        data = pickle.dumps({"net": [WEIGHTS, np.float64(3)]}, protocol)
        (folder / f"pickle{protocol}.pt").write_bytes(data)
    with contextlib.suppress(ImportError):
        import torch

        tensors = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}
        torch.save({"net": tensors, "lr": 0.1}, folder / "saved.pt")


def read(path: str) -> object:
    layer = fastlstm.from_torch(path)
    return layer, [tensor.read() for tensor in read_torch_file(path).tensors.values()]


def mutated(random: Random, data: bytes) -> bytes:
    """A file with a pickle that has other operations, and an archive that fits it."""
    if not data.startswith(b"PK"):
        return _with_other_operations(random, data)
    with zipfile.ZipFile(io.BytesIO(data)) as original:
        members = {name: original.read(name) for name in original.namelist()}
    name = next(name for name in members if name.endswith("/data.pkl"))
    members[name] = _with_other_operations(random, members[name])
    if random.random() < 0.2:
        name = random.choice([*members])
        members[name] = members[name][: random.randrange(len(members[name]) + 1)]
    return _zipped(members)


def _with_other_operations(random: Random, data: bytes) -> bytes:
    starts = [place for _, _, place in pickletools.genops(data)]
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(pieces))
        match random.randrange(5):
            case 0:
                pieces[at] = random.choice(OPERATIONS)
            case 1:
                pieces.insert(at, random.choice(OPERATIONS) * random.choice((1, 1, 3, 100_000)))
            case 2:
                pieces.insert(at, pieces[random.randrange(len(pieces))])
            case 3:
                del pieces[at : at + random.choice((1, 1, 5))]
                pieces = pieces or [b"."]
            case 4:
                piece = bytearray(pieces[at])
                piece[random.randrange(len(piece))] = random.randrange(256)
                pieces[at] = bytes(piece)
    return b"".join(pieces)


# --- what PyTorch writes, by hand -----------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def state() -> bytes:
    """A dictionary of all parameters, in storages of their names."""
    return (
        b"}(" + b"".join(text(name) + tensor(name, w.shape) for name, w in WEIGHTS.items()) + b"u"
    )


def tensor(key: str, shape: tuple[int, ...]) -> bytes:
    strides = (shape[1], 1) if len(shape) == 2 else (1,)
    sizes = [b"(" + b"".join(b"K" + bytes([n]) for n in each) + b"t" for each in (shape, strides)]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        + text(key) + text("cpu") + b"K" + bytes([int(np.prod(shape))]) + b"NtQK\x00"
        + sizes[0] + sizes[1] + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def archive(pickled: bytes, others: dict[str, bytes] | None = None) -> bytes:
    members = {"a/data.pkl": pickled, "a/byteorder": b"little"}
    members |= {f"a/data/{name}": value.tobytes() for name, value in WEIGHTS.items()}
    return _zipped(members | {f"a/{name}": data for name, data in (others or {}).items()})


def _zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()

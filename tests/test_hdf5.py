"""HDF5 files: read as h5py reads them, or refused: nothing leads out of a file, or in circles."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastlstm.interchange._keras.hdf5 import Object, open_hdf5

h5py = pytest.importorskip("h5py")

MOST_MEMORY = 64 << 20


def written(write: Callable[[Any], None], **options: Any) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        write(file)
    return memory.getvalue()


def root_of(data: bytes) -> Object:
    root = open_hdf5(data)
    assert root is not None
    return root


def assert_refused(data: bytes, path: str, message: str) -> None:
    """Reading a dataset fails, in little memory and few steps."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            root_of(data)[path].tensor().read()
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


# --- what is read ---------------------------------------------------------------------------------


def many_things(file: Any) -> None:
    for n in range(7):
        group = file.create_group(f"group {n}/ö/deep")
        for dtype in ("f2", "f4", "f8", ">f4", ">f8"):
            group[dtype] = np.arange(n * 6.0).reshape(n, 2, 3).astype(dtype)
        group["scalar"] = np.float32(n)
        group.attrs["text"] = "ö" * n
        group.attrs["texts"] = ["a", "bcd", ""] * n
        group.attrs["bytes"] = np.array([b"abc", b"d"])
        group.attrs["empty"] = np.array([])
        group.create_dataset("compact", data=np.ones(2, "f4"), dcpl=compact())


CHUNKED: dict[str, dict[str, Any]] = {
    "plain": {"chunks": True},
    "growing": {"maxshape": (None, None)},
    "gzip": {"compression": "gzip"},
    "all": {"compression": 9, "shuffle": True, "fletcher32": True, "chunks": (7, 5)},
    "shuffle": {"shuffle": True, "chunks": (64, 40)},
    "many": {"chunks": (1, 2)},
}


def in_chunks(file: Any) -> None:
    values = np.random.default_rng(0).normal(size=(64, 40))
    for dtype in ("f2", "f4", ">f8"):
        for name, options in CHUNKED.items():
            file.create_dataset(f"{name} {dtype}", data=values.astype(dtype), **options)
    file.create_dataset("one", data=values[0], compression="gzip")
    file.create_dataset("three", data=values.reshape(8, 8, 40), chunks=(3, 3, 7))


def compact() -> Any:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    return properties


def many_links(file: Any) -> None:
    """Enough for B-trees of two levels."""
    for n in range(600):
        file.create_group(f"{n}").attrs["n"] = str(n)


def many_attributes(file: Any) -> None:
    """More than eight, one of them larger than a block of a heap, some not there any more."""
    for n in range(300):
        file.attrs[f"{n}"] = "x" * n
    file.attrs["large"] = ["y" * 100] * 500
    for n in range(0, 300, 3):
        del file.attrs[f"{n}"]


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (many_links, {"libver": "latest"}),
        (many_links, {"track_order": True}),
        (many_attributes, {"libver": "latest"}),
        (many_attributes, {"track_order": True}),
        (many_things, {}),
        (many_things, {"libver": "latest"}),
        (many_things, {"libver": "v108"}),
        (many_things, {"track_order": True}),
        (many_things, {"userblock_size": 1024}),
        (many_links, {}),
        (in_chunks, {}),
        (in_chunks, {"track_order": True}),
    ],
)
def test_as_h5py_reads(write: Callable[[Any], None], options: dict[str, Any]) -> None:
    data = written(write, **options)
    with h5py.File(io.BytesIO(data)) as file:
        compare(root_of(data), file)


def compare(ours: Object, theirs: Any) -> None:
    for name, value in theirs.attrs.items():
        values = np.atleast_1d(np.asarray(value)).tolist()
        assert ours.texts(name) == [v.decode() if isinstance(v, bytes) else v for v in values]
    if isinstance(theirs, h5py.Group):
        assert sorted(ours) == sorted(theirs)
        for name in theirs:
            compare(ours[name], theirs[name])
    elif theirs.size:
        values = theirs[...]
        wide = np.float64 if values.dtype.itemsize == 8 else np.float32
        assert np.array_equal(ours.tensor().read(), values.astype(wide))
        assert ours.tensor().shape == values.shape


@pytest.mark.parametrize("order", ["<", ">"])
def test_bfloat16(order: str) -> None:
    values = np.array([1.0, -2.5, 3.0e38], "f4")
    upper = (values.view("u4") >> 16).astype(f"{order}u2")

    def write(file: Any) -> None:
        file["said"] = upper
        file["said"].attrs["dtype"] = "bfloat16"
        file["opaque"] = upper.astype("<u2").view("V2")
        file["integers"] = upper

    root = root_of(written(write))
    for name in ("said", "opaque"):
        read = root[name].tensor().read()
        assert np.array_equal(read.view("u4"), values.view("u4") >> 16 << 16)
    with pytest.raises(ValueError, match="integers: expected floats, got uint16"):
        root["integers"].tensor()


def test_attributes_that_were_divided_or_are_not_there() -> None:
    def write(file: Any) -> None:
        file.attrs["names0"], file.attrs["names1"] = ["a", "b"], ["c"]
        file.attrs["number"] = 3

    root = root_of(written(write))
    assert root.texts("names") == ["a", "b", "c"]
    assert root.texts("absent") == []
    with pytest.raises(ValueError, match="/: attribute number: expected text, got int64"):
        root.text("number")


# --- what is refused ------------------------------------------------------------------------------


def links(file: Any) -> None:
    file["values"] = np.zeros(3, "f4")
    file["soft"] = h5py.SoftLink("/values")
    file["loop"] = h5py.SoftLink("/loop")
    for name, target in {"file": "other.h5", "device": "/dev/zero", "itself": "."}.items():
        file[name] = h5py.ExternalLink(target, "/values")
    file["group"] = h5py.ExternalLink("other.h5", "/")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("soft", "/soft: a soft link, which is not followed"),
        ("loop", "/loop: a soft link"),
        ("file", "/file: a link to another file, which is not followed"),
        ("device", "/device: a link to another file"),
        ("itself", "/itself: a link to another file"),
        ("group/values", "/group: a link to another file"),
        ("", "/: missing"),
        ("/values", "/: missing"),
        ("values/..", "/values/..: missing"),
        ("../values", r"/\.\.: missing"),
    ],
)
def test_links(path: str, message: str, libver: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = np.ones(3, "f4")
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        if libver == "earliest":
            links(file)
        else:  # of a group with at most eight the links are in its header
            file.create_group("inner")
            links(file)
    assert_refused((tmp_path / "m.h5").read_bytes(), path, message)


def in_another_file(file: Any) -> None:
    file.create_dataset("x", (3,), "f4", external=[("/etc/passwd", 0, 12)])


def of_other_datasets(file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "values", (3,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (in_another_file, "/x: its values are in another file"),
        (of_other_datasets, "/x: its values are in other files"),
        (lambda f: f.create_dataset("x", (2**40,), "f4"), "/x: its values are missing"),
        (lambda f: f.create_dataset("x", (2**40,), "f4", chunks=(9,)), "/x: .* far too many"),
        (lambda f: f.create_dataset("x", (9,), "f4", chunks=(9,)), "/x: its values are missing"),
        (
            lambda f: f.create_dataset("x", (9,), "f4", chunks=(2**28,), maxshape=(2**28,)),
            "/x: its chunks are far larger than it",
        ),
        (
            lambda f: f.create_dataset("x", data=np.zeros(2**22), compression="gzip"),
            "/x: damaged: .* far too many",
        ),
        (
            lambda f: f.create_dataset("x", data=np.zeros(9), compression="lzf"),
            "/x: its values are compressed by lzf",
        ),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "c8")), "got compounds"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "i4")), "got int32"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, bool)), "got an enumeration"),
        (lambda f: f.create_dataset("x", data=["text"]), "got text"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "V3")), "got bytes"),
        (lambda f: f.create_dataset("x", (3,), h5py.vlen_dtype("f4")), "got sequences"),
        (lambda f: f.create_dataset("x", (3,), h5py.ref_dtype), "got references"),
        (lambda f: f.create_dataset("x", (3,), h5py.regionref_dtype), "got references"),
        (lambda f: f.create_dataset("x", data=h5py.Empty("f4")), "its values are missing"),
        (lambda f: f.create_group("x"), "/x: expected a dataset"),
    ],
)
def test_values_that_are_not_in_one_piece(write: Callable[[Any], None], message: str) -> None:
    assert_refused(written(write), "x", message)


def test_types_that_are_elsewhere() -> None:
    def write(file: Any) -> None:
        file["type"] = np.dtype("f4")
        file.create_dataset("x", (3,), file["type"])[...] = 1

    assert_refused(written(write), "x", "its type is elsewhere")


# --- damage that the HDF5 library does not survive ------------------------------------------------


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_heaps_of_texts_that_do_not_end() -> None:
    data = written(lambda file: file.attrs.__setitem__("a", "text"))
    heap = data.index(b"GCOL")
    assert root_of(data).text("a") == "text"
    free = heap + 16 + 16 + 8
    for size in (bytes(8), b"\xff" * 8):  # of what is free, where the library loops
        assert root_of(patched(data, free + 8, size)).text("a") == "text"
    for size in (2**64 - 24, 2**63, 2**20):
        new = patched(data, heap + 24, size.to_bytes(8, "little"))
        with pytest.raises(ValueError, match="attribute a: damaged"):
            root_of(new).text("a")


def test_trees_in_circles() -> None:
    data = written(many_links)
    tree = data.index(b"TREE")
    trees = [at for at in range(len(data)) if data.startswith(b"TREE", at)]
    top = next(at for at in trees if data[at + 5] == 1)
    for other in (top, tree):
        with pytest.raises(ValueError, match="damaged"):
            root_of(patched(data, top + 32, other.to_bytes(8, "little")))


@pytest.mark.parametrize("write", [many_links, many_attributes])
def test_damaged_heaps(write: Callable[[Any], None]) -> None:
    """Read, or an error, but not for long: each byte of the structures that lead to others."""
    data = written(write, libver="latest")
    for signature in (b"FRHP", b"FHIB", b"BTHD", b"BTIN"):
        at = data.find(signature)
        for k in range(at, min(at + 150, len(data)), 3) if at >= 0 else ():
            try:
                root = root_of(patched(data, k, b"\xff" if data[k] != 0xFF else b"\0"))
                root.texts("large")
            except ValueError:
                pass


@pytest.mark.parametrize("name", ["all f4", "many f4", "gzip >f8"])
def test_damaged_chunks(name: str) -> None:
    """Read, or an error: each byte of a node of the tree."""

    def write(file: Any) -> None:
        kind, dtype = name.split()
        values = np.random.default_rng(0).normal(size=(64, 40)).astype(dtype)
        file.create_dataset("x", data=values, **CHUNKED[kind])

    data = written(write)
    tree = data.index(b"TREE\1")
    failed = 0
    for k in range(tree, tree + 120, 2):
        try:
            root_of(patched(data, k, b"\xfe"))["x"].tensor().read()
        except ValueError:
            failed += 1
    assert failed > 10


def test_heaps_in_circles() -> None:
    data = written(many_links, libver="latest")
    tree = data.index(b"BTHD")
    inner = data.index(b"BTIN")
    count = int.from_bytes(data[tree + 24 : tree + 26], "little")
    child = inner + 6 + 11 * count
    deep = patched(data, tree + 12, b"\x10\0")
    for new in (
        patched(deep, child, inner.to_bytes(8, "little")),
        patched(data, child, inner.to_bytes(8, "little")),
    ):
        with pytest.raises(ValueError, match="damaged"):
            root_of(new)


def test_headers_in_circles() -> None:
    """A continuation that is the header's own."""

    def write(file: Any) -> None:
        for n in range(40):
            file.attrs[f"{n}"] = "text"

    data = written(write)
    at = data.index(b"\x10\x00\x10\x00")  # a message of 16 bytes: where, and how long
    here = patched(data, at + 8, (at).to_bytes(8, "little") + (24).to_bytes(8, "little"))
    with pytest.raises(ValueError, match="damaged: its parts are read again and again"):
        root_of(here)


def test_a_group_that_is_its_own() -> None:
    def write(file: Any) -> None:
        group = file.create_group("a")
        for n in range(60):
            group[f"{n}"] = group

    def descend(group: Object) -> None:
        while True:
            group = group["7"]

    with pytest.raises(ValueError, match="its parts are read again and again"):
        descend(root_of(written(write))["a"])


def test_texts_that_are_one() -> None:
    """Each of 4000 texts is the same half a megabyte."""
    length = 500_000
    data = written(lambda file: file.attrs.__setitem__("a", ["x" * length] + ["y"] * 3999))
    heap = data.rindex(b"GCOL", 0, data.index(b"x" * length))
    one = data.index(length.to_bytes(4, "little") + heap.to_bytes(8, "little"))
    new = patched(data, one, data[one : one + 16] * 4000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="damaged: its parts are read again and again"):
            root_of(new).texts("a")
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()

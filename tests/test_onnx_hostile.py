"""ONNX files that are none, or that claim more than they have."""

from __future__ import annotations

import gzip
import itertools
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import B, H, I, graph, info, model, node, recurrent, weights  # noqa: E402

W = weights()

# --- other things ---------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 19332096\n"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.onnx", LFS, "not an ONNX model but a git-lfs pointer"),
        ("m.onnx", b"<!DOCTYPE html><html>", "not an ONNX model but a web page"),
        ("m.onnx", b"", "not an ONNX model but an empty file"),
        ("m.json", b'{"irVersion": "8"}', "not an ONNX model but text: the binary form"),
        ("m.textproto", b"ir_version: 8\ngraph {\n}\n", "not an ONNX model but text"),
        ("m.onnxtxt", b"<ir_version: 8>\nagraph (float x) => () {}", "not an ONNX model but text"),
        ("m.json", b"\x0a\xff\xff", "not an ONNX model that can be read"),
        ("m.textproto", b"\x0a\xff\xff", "not an ONNX model that can be read"),
        ("m.ort", b"\x28\0\0\0ORTM" + bytes(99), "not an ONNX model but ONNX Runtime's own format"),
        ("m.onnx", b"PK\3\4" + bytes(99), "not an ONNX model but a zip archive"),
        ("m.onnx", gzip.compress(b"a", mtime=0), "not an ONNX model but compressed by gzip"),
        ("m.onnx", b"\x89HDF\r\n\x1a\n" + bytes(99), "not an ONNX model but an HDF5 file"),
        ("m.onnx", b"\x80\x04]\x94.", "not an ONNX model but a pickle"),
        ("m.onnx", b"<!-- 404 -->\n<HTML>", "not an ONNX model but a web page"),
        ("m.onnx", b"\x08\x08\x12\x07\xff", "not an ONNX model that can be read"),
    ],
)
def test_files_that_are_something_else(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {re.escape(message)}"):
        fastlstm.from_onnx(path)


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    """A suffix is no format: onnx.load would take a model of this name for JSON."""
    onnx.save(model([recurrent()], W), tmp_path / "m.json", format="protobuf")
    assert fastlstm.from_onnx(tmp_path / "m.json").hidden_size == H


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (onnx.ModelProto, "the class ModelProto"),
        (fastlstm.LSTM, "the class LSTM"),
        (onnx.GraphProto(), "GraphProto"),
        (b"m.onnx", "bytes"),
        (None, "NoneType"),
        ([], "list"),
    ],
)
def test_things_that_are_no_models(source: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"source: expected a model or a path, got {kind}"):
        fastlstm.from_onnx(source)


def test_what_is_there_where_nothing_is_found() -> None:
    branch = graph([node("Gelu", ["X"], ["g"])], "g")
    nodes = [node("Relu", ["X"], ["a"]), node("Relu", ["a"], ["b"])]
    nodes.append(node("If", ["c"], ["Y"], then_branch=branch, else_branch=branch))
    message = (
        "model: expected an LSTM, GRU or RNN, found none among its nodes: 2 Relu, 2 Gelu, 1 If"
    )
    with pytest.raises(ValueError, match=message):
        fastlstm.from_onnx(model(nodes))
    many = [node(f"Op{k}", ["X"], [f"o{k}"], domain="my") for k in range(1000)]
    with pytest.raises(ValueError, match=r"1 Op0, .* 1 Op11, \.\.\.$"):
        fastlstm.from_onnx(model(many))


def test_errors_are_of_no_other_package(tmp_path: Path) -> None:
    source, path = model([recurrent()], W), tmp_path / "m.onnx"
    onnx.save(source, path, save_as_external_data=True, location="data", size_threshold=0)
    alone = onnx.load(path, load_external_data=False)
    with pytest.raises(ValueError, match="W: W: its values are in the file 'data' beside the mod"):
        fastlstm.from_onnx(alone)
    (tmp_path / "data").write_bytes(bytes(10))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: rnn: W: "):
        fastlstm.from_onnx(path)
    (tmp_path / "data").write_bytes(LFS)
    with pytest.raises(ValueError, match=r"in 'data', which has .*; it is a git-lfs pointer"):
        fastlstm.from_onnx(path)


def test_every_error_names_the_file_and_the_node(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lengths = {**W, "n": np.full(B, 3, np.int32)}
    for source in (
        model([recurrent(clip=-1.0)], W),
        model([recurrent("X", "W", "R", "B", "n")], lengths),
        model([recurrent("X", "W", "R", "h")], W),
        model([recurrent(direction="up")], W),
    ):
        onnx.save(source, path)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: rnn: "):
            fastlstm.from_onnx(path)
    with pytest.raises(TypeError, match="constants: expected True or False, got 1"):
        fastlstm.from_onnx(path, constants=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="node: expected text, got int"):
        fastlstm.verify(fastlstm.LSTM(1, 1), path, 3)  # type: ignore[arg-type]


def test_low_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(numpy_helper, "to_array", fail)
    with pytest.raises(MemoryError):
        fastlstm.from_onnx(model([recurrent()], W))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
@pytest.mark.parametrize("beside", [False, True])
def test_a_process_that_has_little_memory(beside: bool, tmp_path: Path) -> None:
    """Protobuf ends the process where it has no room for bytes that it is given."""
    size = 24 << 20
    tensors = {**W, "W": np.zeros((1, 4 * H, size // 16 // H), np.float32)}
    path, small = tmp_path / "m.onnx", tmp_path / "small.onnx"
    options = {"save_as_external_data": beside, "size_threshold": 0}
    onnx.save(model([recurrent()], tensors), path, location="data", **options)
    onnx.save(model([recurrent()], W), small, location="less", **options)
    code = f"""
import os, resource, sys
import fastlstm
fastlstm.from_onnx({str(small)!r})
for most in range(0, {7 * size}, 4 << 20):
    child = os.fork()
    if child == 0:
        held = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + most, resource.RLIM_INFINITY))
        try:
            layer = fastlstm.from_onnx({str(path)!r})
        except MemoryError:
            os._exit(1)
        except BaseException as error:
            os.write(2, type(error).__name__.encode())
            os._exit(2)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stderr
    assert {*run.stdout.split()} == {"0", "256"}  # a layer, or a MemoryError


# --- sizes ----------------------------------------------------------------------------------------

HUGE = 2**33


def made(*nodes: Any, **tensors: Any) -> Any:
    """A model whose W these nodes make."""
    return model([*nodes, recurrent("X", "W", "R")], {"R": W["R"], **tensors})


def chain(kind: str, *more: str, **attributes: Any) -> Any:
    names = ["w", *(f"c{k}" for k in range(40)), "W"]
    return made(
        *(
            node(kind, [a, *(a if m == "." else m for m in more)], [b], **attributes)
            for a, b in itertools.pairwise(names)
        ),
        w=np.ones((1, 4), np.float32),
        half=np.array([0, 0] * 2),
        twice=np.array([2, 1]),
    )


def integers(*nodes: Any) -> Any:
    """A model with very many integers i, in few bytes."""
    zero = numpy_helper.from_array(np.zeros(1, np.int8))
    return made(
        node("ConstantOfShape", ["count"], ["i"], value=zero),
        *nodes,
        count=np.array([7_900_000]),
        w=np.zeros(1, np.float32),
        none=np.zeros(0, np.float32),
    )


INTEGERS = {
    **{
        f"{kind} by integers": [node(kind, ["w", "i"], ["W"])]
        for kind in ("Reshape", "Squeeze", "Unsqueeze", "ReduceSum", "Pad", "Tile", "Expand")
    },
    "Slice by integers": [node("Slice", ["w", "i", "i", "i", "i"], ["W"])],
    "Split by integers": [node("Split", ["none", "i"], ["W"], axis=0)],
}
ONE = np.ones(1, np.float32)
BOMBS: dict[str, Callable[[], Any]] = {
    "Expand": lambda: made(node("Expand", ["w", "s"], ["W"]), w=ONE, s=np.array([1, HUGE, 1])),
    "Tile": lambda: made(node("Tile", ["w", "s"], ["W"]), w=ONE, s=np.array([HUGE])),
    "ConstantOfShape": lambda: made(node("ConstantOfShape", ["s"], ["W"]), s=np.array([2**62] * 9)),
    "Pad": lambda: made(node("Pad", ["w", "s"], ["W"]), w=ONE, s=np.array([0, HUGE])),
    "Pad, reflect": lambda: made(
        node("Pad", ["w", "s"], ["W"], mode="reflect"), w=np.ones(2), s=np.array([0, 10**6])
    ),
    "Range": lambda: made(
        node("Range", ["a", "b", "c"], ["W"]), a=np.float64(0), b=np.float64(1), c=np.float64(1e-18)
    ),
    "OneHot": lambda: made(
        node("OneHot", ["i", "d", "v"], ["W"]), i=np.array([1]), d=np.int64(HUGE), v=np.ones(2)
    ),
    "Gather": lambda: made(
        node("Gather", ["w", "i"], ["W"]), w=np.ones((1, 9999)), i=np.zeros(9999, np.int64)
    ),
    "outer product": lambda: made(
        node("Mul", ["a", "b"], ["W"]), a=np.ones((9999, 1)), b=np.ones((1, 9999))
    ),
    "MatMul": lambda: made(
        node("MatMul", ["a", "b"], ["W"]), a=np.ones((9999, 1)), b=np.ones((1, 9999))
    ),
    "PRelu": lambda: made(
        node("PRelu", ["a", "b"], ["W"]), a=np.ones((9999, 1)), b=np.ones((1, 9999))
    ),
    "LayerNormalization": lambda: made(
        node("LayerNormalization", ["a", "b"], ["W"]), a=np.ones((9999, 1)), b=np.ones((1, 9999))
    ),
    "Clip": lambda: made(
        node("Clip", ["a", "b"], ["W"]), a=np.ones((9999, 1)), b=np.ones((1, 9999))
    ),
    "Gemm": lambda: made(
        node("Gemm", ["a", "a", "b"], ["W"], transB=1), a=np.ones((1, 1)), b=np.ones((9999, 1))
    ),
    "OneHot of rows": lambda: made(
        node("OneHot", ["i", "d", "v"], ["W"]), i=np.ones((999, 1)), d=1, v=np.ones((2, 9999))
    ),
    "Where": lambda: made(
        node("Where", ["c", "a", "b"], ["W"]),
        c=np.ones((999, 1, 1), bool),
        a=np.ones((1, 999, 1)),
        b=np.ones((1, 1, 999)),
    ),
    "Split": lambda: made(
        node("Split", ["w"], ["W"], axis=0, num_outputs=500_000_000), w=np.ones(8, np.float32)
    ),
    "blocks": lambda: made(
        node("DequantizeLinear", ["q", "s"], ["W"], axis=0, block_size=10**8),
        q=np.zeros((8, 1000), np.int8),
        s=np.ones((8, 1000), np.float32),
    ),
    **{name: lambda n=nodes: integers(*n) for name, nodes in INTEGERS.items()},
    "ArgMax": lambda: made(
        node("ConstantOfShape", ["s"], ["c"], value=numpy_helper.from_array(np.zeros(1, np.int8))),
        *(node("ArgMax", ["c"], [f"a{k}"], axis=1) for k in range(9)),
        node("Concat", [f"a{k}" for k in range(9)], ["W"], axis=0),
        s=np.array([7_900_000, 1]),
    ),
    "Concats": lambda: chain("Concat", ".", axis=0),
    "Gathers": lambda: chain("Gather", "half"),
    "Tiles": lambda: chain("Tile", "twice"),
    "Resize": lambda: made(
        node("Resize", ["w", "", "s"], ["W"]), w=ONE, s=np.array([1e9], np.float32)
    ),
    "Einsum": lambda: made(node("Einsum", ["w"] * 9, ["W"], equation="a,b,c,d,e,f,g,h,i"), w=ONE),
    "Loop": lambda: made(
        node(
            "Loop",
            ["n", ""],
            ["W"],
            body=helper.make_graph(
                [node("Identity", ["c"], ["c2"]), node("Identity", ["R"], ["o"])],
                "body",
                [info("i", "INT64", []), info("c", "BOOL", [])],
                [info("c2", "BOOL", []), info("o")],
            ),
        ),
        n=np.int64(2**62),
    ),
    "circle": lambda: made(node("Neg", ["W2"], ["W"]), node("Neg", ["W"], ["W2"])),
    "long chain": lambda: made(
        *(node("Neg", [f"n{k}"], [f"n{k + 1}"]) for k in range(2000)),
        node("Neg", ["n2000"], ["W"]),
        n0=np.ones((1, 20, 3000), np.float32),
    ),
    "many of one": lambda: made(
        *(node("Concat", ["w"] * 1000, ["W"], axis=0) for _ in range(2)),
        w=np.ones(10_000, np.float32),
    ),
    "shapes that double": lambda: state_of(
        node("Gather", ["X", "X"], ["s0"]),
        *(node("Gather", [f"s{k}", f"s{k}"], [f"s{k + 1}"]) for k in range(60)),
        node("Shape", ["s60"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["h"]),
    ),
    "shape by integers": lambda: state_of(
        node("ConstantOfShape", ["count"], ["i"], value=numpy_helper.from_array(np.ones(1, "i1"))),
        node("Reshape", ["X", "i"], ["r"]),
        node("Shape", ["r"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["h"]),
        count=np.array([7_900_000]),
    ),
    "states": lambda: state_of(
        node("Shape", ["X"], ["shape"]),
        node("Tile", ["shape", "many"], ["sizes"]),
        node("ConstantOfShape", ["sizes"], ["h"]),
        many=np.array([30]),
    ),
}


def state_of(*nodes: Any, **tensors: Any) -> Any:
    return model([*nodes, recurrent("X", "W", "R", "B", "", "h")], {**W, **tensors})


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_model_makes_is_bounded_by_its_size(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(BOMBS[name]().SerializeToString())
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fastlstm.from_onnx(path, constants=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size + (64 << 20)
    assert time.process_time() - start < 60  # a hang, not a slow machine


def test_as_many_sizes_as_outputs() -> None:
    source = made(
        node("Split", ["w", "sizes"], ["W"], axis=0), w=np.ones(3), sizes=np.array([1, 2])
    )
    with pytest.raises(ValueError, match="expected at most 1 split, got 2"):
        fastlstm.from_onnx(source)
    source = made(node("Split", ["w"], ["W", "V"], split=[3]), w=np.ones(3))
    with pytest.raises(ValueError, match="Split: expected 2 sizes that sum up to 3"):
        fastlstm.from_onnx(source)


def test_tensors_that_claim_more_than_they_have() -> None:
    for dims in ([1, 2**40, 2**20], [2**62, 2**62], [1, -20, I]):
        source = model([recurrent()], W)
        source.graph.initializer[0].dims[:] = dims
        with pytest.raises(ValueError, match="model: rnn: W: "):
            fastlstm.from_onnx(source)
        sparse = source.graph.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "W"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64)))
        sparse.dims[:] = dims
        del source.graph.initializer[0]
        with pytest.raises(ValueError, match="model: rnn: W: "):
            fastlstm.from_onnx(source)


def field(number: int, content: bytes) -> bytes:
    """A field of a message, as protobuf writes it."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


@pytest.mark.parametrize("what", ["nodes", "attributes", "initialisers", "numbers"])
def test_messages_that_are_larger_in_memory(what: str, tmp_path: Path) -> None:
    """Nothing at all has two bytes in a file, and a hundred in memory."""
    count = 1 << 21
    lstm = field(4, b"LSTM")
    content = {
        "nodes": field(1, b"") * count,
        "attributes": field(1, lstm + field(5, b"") * count),
        "initialisers": field(5, b"") * count,
        "numbers": field(1, lstm + field(5, field(8, b"\1" * 2 * count))),
    }[what]
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + field(7, content) + field(8, b"\x10\x11"))
    with pytest.raises(ValueError, match="it would take more memory than its size explains"):
        fastlstm.from_onnx(path)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "INT64", "INT32", "INT8"])
def test_numbers_one_by_one(kind: str) -> None:
    data_type, values = getattr(TensorProto, kind), np.arange(8 * H) % 5
    tensor = helper.make_tensor("b", data_type, [1, 8 * H], values.tolist())
    assert not tensor.raw_data
    cast = node("Cast", ["b"], ["B"], to=TensorProto.FLOAT)
    source = model([cast, recurrent()], {"W": W["W"], "R": W["R"]})
    source.graph.initializer.append(tensor)
    biases = fastlstm.from_onnx(source).params
    i, o, f, g = np.split(values[: 4 * H], 4)
    assert np.array_equal(biases["bias_ih_l0"], np.concatenate([i, f, g, o]))
    tensor = source.graph.initializer[-1]
    tensor.dims[1] += 1
    with pytest.raises(ValueError, match="model: rnn: B: "):
        fastlstm.from_onnx(source)


@pytest.mark.parametrize("spelled", ["data", "./"])
def test_one_file_beside_the_model_for_many_tensors(spelled: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    source = made(node("Concat", [f"t{k}" for k in range(400)], ["W"], axis=0))
    for k in range(400):
        tensor = source.graph.initializer.add()
        tensor.name, tensor.data_type, tensor.data_location = f"t{k}", TensorProto.FLOAT, 1
        tensor.dims[:] = [1 << 18]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "data" if spelled == "data" else spelled * k + "data"
    path = tmp_path / "m.onnx"
    path.write_bytes(source.SerializeToString())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more room than the model's size explains"):
            fastlstm.from_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_only_what_the_node_needs_is_read(tmp_path: Path) -> None:
    source = model([recurrent()], {**W, "other": np.zeros(B << 20, np.float32)})
    path = tmp_path / "m.onnx"
    onnx.save(source, path, save_as_external_data=True, location="data", size_threshold=0)
    tracemalloc.start()
    try:
        fastlstm.from_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < B << 20
    finally:
        tracemalloc.stop()

"""Layers from PyTorch: results and gradients over a grid of options, files, errors, damage."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from damage import assert_reads_or_refuses, check_reader
from tolerances import FOREIGN, FOREIGN_GRADIENTS, assert_close

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

KINDS = [
    kind
    if hasattr(fastlstm, kind)
    else pytest.param(kind, marks=pytest.mark.skip(reason=f"no fastlstm.{kind}"))
    for kind in ("LSTM", "GRU", "RNN")
]
SAVERS = ["zip", "legacy", "safetensors"]


def make_module(kind: str, *args: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(torch.nn, kind)(*args, **options)


def save(tensors: Any, path: Path, saver: str) -> Path:
    if saver == "safetensors":
        safetensors_torch.save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=saver == "zip")
    return path


def to_numpy(values: Any) -> Any:
    if isinstance(values, tuple):
        return tuple(to_numpy(value) for value in values)
    return values.detach().numpy()


def as_tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


# --- results ------------------------------------------------------------------------------------

GRID = [
    {"num_layers": L, "bidirectional": two, "bias": bias, "batch_first": batch_first}
    for L, two, bias, batch_first in itertools.product((1, 3), *[(False, True)] * 3)
]


def check_parity(module: Any, layer: Any, dtype: str, *, lengths: Any = None) -> None:
    """Compare results and all gradients of the same call."""
    T, B = 5, 4
    module.zero_grad()
    rng = np.random.default_rng(0)
    shape = (B, T) if module.batch_first else (T, B)
    x = rng.standard_normal((*shape, module.input_size)).astype(dtype)
    torch_x = torch.tensor(x, requires_grad=True)
    D = 2 if module.bidirectional else 1
    P = getattr(module, "proj_size", 0) or module.hidden_size
    widths = (P, module.hidden_size) if layer.__class__.__name__ == "LSTM" else (P,)
    states = [rng.standard_normal((module.num_layers * D, B, w)).astype(dtype) for w in widths]
    torch_states = tuple(torch.tensor(s, requires_grad=True) for s in states)
    torch_state = torch_states if len(widths) == 2 else torch_states[0]
    state = tuple(states) if len(widths) == 2 else states[0]

    if lengths is None:
        torch_output, torch_final = module(torch_x, torch_state)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch_x, lengths, batch_first=module.batch_first, enforce_sorted=False
        )
        torch_output, torch_final = module(packed, torch_state)
        torch_output, _ = torch.nn.utils.rnn.pad_packed_sequence(
            torch_output, batch_first=module.batch_first, total_length=T
        )
    d_output = rng.standard_normal(torch_output.shape).astype(dtype)
    (torch_output * torch.tensor(d_output)).sum().backward()

    output, final = layer(x, state, lengths=lengths)
    assert output.dtype == dtype
    assert_close(output, to_numpy(torch_output), FOREIGN[dtype], "output")
    for ours, theirs in zip(as_tuple(final), as_tuple(torch_final), strict=True):
        assert_close(ours, to_numpy(theirs), FOREIGN[dtype], "state")

    _, _, tape = layer.forward(x, state, lengths=lengths)
    grads = tape.backward(d_output)
    assert_close(grads.x, torch_x.grad.numpy(), FOREIGN_GRADIENTS[dtype], "x")
    for ours, theirs in zip(as_tuple(grads.state), torch_states, strict=True):
        assert_close(ours, theirs.grad.numpy(), FOREIGN_GRADIENTS[dtype], "state")
    for name, parameter in module.named_parameters():
        tolerance = FOREIGN_GRADIENTS[dtype]
        assert_close(grads.params[name], parameter.grad.numpy(), tolerance, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
@pytest.mark.parametrize("kind", KINDS)
def test_parity(kind: str, options: dict[str, Any], dtype: str) -> None:
    module = make_module(kind, 3, 5, **options, dtype=getattr(torch, dtype))
    layer = fastlstm.from_torch(module)
    assert type(layer).__name__ == kind
    assert layer.dtype == dtype
    check_parity(module, layer, dtype)
    check_parity(module, layer, dtype, lengths=[3, 5, 1, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
def test_relu(options: dict[str, Any], dtype: str) -> None:
    module = make_module("RNN", 3, 5, nonlinearity="relu", **options, dtype=getattr(torch, dtype))
    layer = fastlstm.from_torch(module)
    assert layer.nonlinearity == "relu"
    check_parity(module, layer, dtype)
    check_parity(module, layer, dtype, lengths=[3, 5, 1, 2])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
def test_projections(options: dict[str, Any], dtype: str) -> None:
    module = make_module("LSTM", 3, 5, proj_size=2, **options, dtype=getattr(torch, dtype))
    layer = fastlstm.from_torch(module)
    assert layer.proj_size == 2
    check_parity(module, layer, dtype)
    check_parity(module, layer, dtype, lengths=[3, 5, 1, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RNN, relu"])
def test_cells(kind: str, bias: bool, dtype: str) -> None:
    """Single steps of a stream, and the gradients of all steps."""
    kind, _, relu = kind.partition(", ")
    options: dict[str, Any] = {"nonlinearity": relu} if relu else {}
    cell = make_module(f"{kind}Cell", 3, 5, bias=bias, dtype=getattr(torch, dtype), **options)
    layer = fastlstm.from_torch(cell)
    stream = layer.stream(batch_size=4)
    rng = np.random.default_rng(0)
    x, d_output = rng.standard_normal((6, 4, 3)).astype(dtype), rng.standard_normal((6, 4, 5))
    torch_x = torch.tensor(x, requires_grad=True)
    state, steps = None, []
    for t in range(6):
        state = cell(torch_x[t], state)
        steps.append(as_tuple(state)[0])
        assert_close(stream.step(x[t]), to_numpy(steps[t]), FOREIGN[dtype], "h")
    d_output = d_output.astype(dtype)
    (torch.stack(steps) * torch.tensor(d_output)).sum().backward()
    output, final, tape = layer.forward(x)
    assert_close(output, to_numpy(torch.stack(steps)), FOREIGN[dtype], "output")
    for ours, theirs in zip(as_tuple(final), as_tuple(state), strict=True):
        assert_close(ours[0], to_numpy(theirs), FOREIGN[dtype], "state")
    grads = tape.backward(d_output)
    assert_close(grads.x, torch_x.grad.numpy(), FOREIGN_GRADIENTS[dtype], "x")
    for name, parameter in cell.named_parameters():
        theirs = parameter.grad.numpy()
        assert_close(grads.params[f"{name}_l0"], theirs, FOREIGN_GRADIENTS[dtype], name)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch(kind: str, two: bool) -> None:
    module = make_module(kind, 3, 5, 2, bidirectional=two, dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((6, 3))
    theirs, ours = module(torch.tensor(x)), fastlstm.from_torch(module)(x)
    expected = (theirs[0], *as_tuple(theirs[1]))
    for a, b in zip((ours[0], *as_tuple(ours[1])), expected, strict=True):
        assert_close(a, to_numpy(b), FOREIGN["float64"], "result")


def test_dropout_is_the_modules() -> None:
    layer = fastlstm.from_torch(make_module("LSTM", 3, 5, 2, dropout=0.25))
    assert layer.dropout == 0.25


def test_values_of_parametrisations_are_taken() -> None:
    module = make_module("LSTM", 3, 5)
    torch.nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    expected = module.eval().weight_hh_l0.detach().numpy()
    assert np.array_equal(fastlstm.from_torch(module).params["weight_hh_l0"], expected)


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_converts_exactly(half: str, saver: str, tmp_path: Path) -> None:
    module = make_module("LSTM", 3, 5).to(getattr(torch, half))
    path = save(module.state_dict(), tmp_path / "m", saver)
    for source in (module, module.state_dict(), path):
        layer = fastlstm.from_torch(source)
        assert layer.dtype == "float32"
        for name, value in module.state_dict().items():
            assert np.array_equal(layer.params[name], value.float().numpy())


# --- state_dicts and files ----------------------------------------------------------------------


class Model(torch.nn.Module):
    """Several recurrent layers, and other things."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(10, 3)
        self.encoder = torch.nn.ModuleDict(
            {"rnn": torch.nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)}
        )
        self.decoder = torch.nn.LSTMCell(3, 4, bias=False)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def assert_is(layer: Any, module: Any) -> None:
    weights = dict(module.named_parameters())
    assert len(layer.params) == len(weights)
    for name, value in layer.params.items():
        name = name if name in weights else name.removesuffix("_l0")
        assert np.array_equal(value, weights[name].detach().numpy())


@pytest.mark.parametrize("saver", SAVERS)
def test_state_dict_files(model: Model, saver: str, tmp_path: Path) -> None:
    path = save(model.state_dict(), tmp_path / "m", saver)
    for prefix in ("encoder.rnn.", "encoder.rnn", "encoder"):
        assert_is(fastlstm.from_torch(path, prefix), model.encoder["rnn"])
    assert_is(fastlstm.from_torch(str(path), "decoder"), model.decoder)
    assert fastlstm.from_torch(path, "encoder").batch_first is False
    layer = fastlstm.from_torch(path, "encoder", batch_first=True, dropout=0.5)
    assert layer.batch_first
    assert layer.dropout == 0.5


def test_state_dicts(model: Model) -> None:
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    for state_dict in (model.state_dict(), arrays):
        assert_is(fastlstm.from_torch(state_dict, "encoder.rnn"), model.encoder["rnn"])
        assert_is(fastlstm.from_torch(state_dict, "decoder"), model.decoder)
    assert_is(fastlstm.from_torch(model, "encoder.rnn"), model.encoder["rnn"])
    assert_is(fastlstm.from_torch(model.encoder), model.encoder["rnn"])
    assert_is(fastlstm.from_torch(model.decoder.state_dict()), model.decoder)


@pytest.mark.parametrize("saver", SAVERS[:2])
def test_checkpoints(model: Model, saver: str, tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.zeros(2, 3, 3)
    model.encoder["rnn"](x)[0].sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "config": argparse.Namespace(lr=0.1),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loss": np.float64(3.0),
    }
    path = save(checkpoint, tmp_path / "m", saver)
    assert_is(fastlstm.from_torch(path, "model.encoder.rnn"), model.encoder["rnn"])


@pytest.mark.parametrize("saver", SAVERS[:2])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_modules_saved_whole(model: Model, saver: str, tmp_path: Path) -> None:
    path = save(model, tmp_path / "m", saver)
    layer = fastlstm.from_torch(path, "encoder.rnn")
    assert_is(layer, model.encoder["rnn"])
    assert layer.batch_first
    assert_is(fastlstm.from_torch(path, "decoder"), model.decoder)
    with pytest.raises(ValueError, match="batch_first: expected None"):
        fastlstm.from_torch(path, "encoder.rnn", batch_first=False)


@pytest.mark.parametrize("saver", SAVERS[:2])
def test_tensors_may_share_a_storage_and_have_any_strides(saver: str, tmp_path: Path) -> None:
    memory = torch.arange(1000, dtype=torch.float32)
    state_dict = {
        "weight_ih_l0": memory[100:160].view(3, 20).T,
        "weight_hh_l0": memory[200:400].view(20, 10)[:, ::2],
    }
    layer = fastlstm.from_torch(save(state_dict, tmp_path / "m", saver))
    for name, value in state_dict.items():
        assert np.array_equal(layer.params[name], value.numpy())


def test_no_need_for_pytorch(model: Model, tmp_path: Path) -> None:
    for saver in SAVERS:
        save(model.state_dict(), tmp_path / saver, saver)
    program = (
        f"import sys; sys.path[:] = {sys.path}; sys.modules['torch'] = None\n"
        "import fastlstm\n"
        f"for name in {SAVERS}: print(fastlstm.from_torch(name, 'decoder'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stderr == ""
    assert result.stdout == "LSTM(3, 4, bias=False)\n" * 3


# --- errors -------------------------------------------------------------------------------------


def test_several_are_listed(model: Model, tmp_path: Path) -> None:
    names = "'decoder', 'encoder.rnn'"
    path = save(model.state_dict(), tmp_path / "m", "safetensors")
    with pytest.raises(ValueError, match=f"expected prefix= to be one of {names}, got None"):
        fastlstm.from_torch(path)
    with pytest.raises(ValueError, match=f"one of {names}, got 'lstm'"):
        fastlstm.from_torch(path, "lstm")
    with pytest.raises(ValueError, match=r"one of 'encoder\.rnn', 'decoder', got None"):
        fastlstm.from_torch(model)


def test_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="Linear: expected an LSTM, GRU or RNN, found none"):
        fastlstm.from_torch(torch.nn.Linear(3, 4))
    with pytest.raises(ValueError, match="state_dict: expected an LSTM, GRU or RNN, found none"):
        fastlstm.from_torch({})
    with pytest.raises(TypeError, match="source: expected a module, a state_dict or a path"):
        fastlstm.from_torch(3)
    with pytest.raises(TypeError, match="prefix: expected text, got int"):
        fastlstm.from_torch({}, 3)


def zeros(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


LSTM_SHAPES: dict[str, tuple[int, ...]] = {
    "weight_ih_l0": (20, 3),
    "weight_hh_l0": (20, 5),
    "bias_ih_l0": (20,),
    "bias_hh_l0": (20,),
}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"weight_hh_l0": None}, "expected weight_hh_l0, among weight_ih_l0, bias_ih_l0"),
        ({"weight_ih_l0": None}, "expected weight_ih_l0, among"),
        ({"bias_hh_l0": None}, "missing: bias_hh_l0; unexpected: none"),
        ({"bias_hh_l2": (20,)}, "missing: none; unexpected: bias_hh_l2"),
        ({"weight_ih_l0": (20,)}, r"weight_ih_l0: expected \(rows, columns\), got \(20,\)"),
        (
            {"weight_ih_l0": (10, 3)},
            r"expected 4H rows \(LSTM\), 3H \(GRU\) or H \(RNN\) with H = 5",
        ),
        ({"weight_ih_l0": (21, 3)}, "got 21"),
        ({"weight_hh_l0": (20, 0)}, "with H = 0"),
        ({"weight_hh_l0": (15, 5)}, r"weight_hh_l0: expected \(20, 5\), got \(15, 5\)"),
        ({"bias_ih_l0": (5,)}, r"bias_ih_l0: expected \(20,\), got \(5,\)"),
        ({"weight_hr_l0": (3,)}, r"weight_hr_l0: expected \(P, H\), got \(3,\)"),
        ({"weight_hr_l0": (5, 5)}, "proj_size: expected less than hidden_size"),
        ({"weight_hr_l0": (5, 20)}, "projection in an LSTM only, got one in a RNN"),
        ({"weight_ih_l1": (20, 5)}, "missing: weight_hh_l1, bias_ih_l1, bias_hh_l1"),
        ({"weight_ih_l0_reverse": (20, 3)}, "missing: weight_hh_l0_reverse"),
    ],
)
def test_wrong_shapes(shapes: dict[str, Any], message: str) -> None:
    merged = {name: s for name, s in {**LSTM_SHAPES, **shapes}.items() if s is not None}
    with pytest.raises(ValueError, match=message):
        fastlstm.from_torch(zeros(**merged))


def test_wrong_types() -> None:
    with pytest.raises(
        ValueError, match="weight_hh_l0: expected a tensor of floats, got one of int"
    ):
        fastlstm.from_torch({**zeros(**LSTM_SHAPES), "weight_hh_l0": np.zeros((20, 5), int)})
    with pytest.raises(ValueError, match="expected parameters of one type, but"):
        fastlstm.from_torch({**zeros(**LSTM_SHAPES), "weight_hh_l0": np.zeros((20, 5))})


def test_what_a_state_dict_does_not_say() -> None:
    rnn = zeros(weight_ih_l0=(5, 3), weight_hh_l0=(5, 5))
    with pytest.raises(ValueError, match="nonlinearity='tanh' or 'relu', got None"):
        fastlstm.from_torch(rnn)
    with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu', got 'elu'"):
        fastlstm.from_torch(rnn, nonlinearity="elu")
    with pytest.raises(ValueError, match="nonlinearity: expected None for a LSTM"):
        fastlstm.from_torch(zeros(**LSTM_SHAPES), nonlinearity="tanh")
    with pytest.raises(TypeError, match="batch_first: expected True or False"):
        fastlstm.from_torch(zeros(**LSTM_SHAPES), batch_first=1)
    with pytest.raises(ValueError, match="dropout: expected a number from 0 to 1"):
        fastlstm.from_torch(zeros(**LSTM_SHAPES), dropout=2)
    with pytest.raises(ValueError, match="batch_first: expected None, as the module says"):
        fastlstm.from_torch(torch.nn.LSTM(3, 4), batch_first=True)


# --- malice and damage --------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize("saver", SAVERS[:2])
def test_no_code_is_run(saver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state_dict = torch.nn.LSTM(3, 5).state_dict()
    path = save({"evil": Evil(), "lstm": state_dict}, tmp_path / "m", saver)
    fastlstm.from_torch(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="a pickle with no tensors or arrays in it"):
        fastlstm.from_torch(path)
    assert os.listdir() == ["m"]


def rebuild(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip archive like PyTorch's with other contents."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return path


def strided_pickle(shape: tuple[int, ...], strides: tuple[int, ...], numel: int = 100) -> bytes:
    """A state_dict of one tensor, which may not fit its storage."""

    class Persistent:
        pass

    class Rebuilt:
        def __reduce__(self) -> Any:
            return (
                torch._utils._rebuild_tensor_v2,
                (Persistent(), 0, shape, strides, False, OrderedDict()),
            )

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            if isinstance(thing, Persistent):
                return ("storage", torch.FloatStorage, "0", "cpu", numel)
            return None

    file = io.BytesIO()
    tensor = Rebuilt()
    Pickler(file, 2).dump({"weight_ih": tensor, "weight_hh": tensor})
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "strides", "numel", "message"),
    [
        ((40, 10), (10, 1), 100, "reaches beyond its storage"),
        ((2**20, 2**18), (0, 0), 100, "more than a file of its size can hold"),
        ((20, 5), (10, 1), 100, "reaches beyond its storage"),
        ((20, 5), (5, 1), 2**40, "has 400 bytes instead of"),
        ((20, 5), (5, 1), 99, "reaches beyond its storage"),
        ((20, -5), (5, 1), 100, "expected a size"),
        ((20, 5), (5,), 100, "shorter"),
    ],
)
def test_tensors_that_do_not_fit(
    shape: Any, strides: Any, numel: int, message: str, tmp_path: Path
) -> None:
    members = {"data.pkl": strided_pickle(shape, strides, numel), "data/0": bytes(400)}
    with pytest.raises(ValueError, match=message):
        fastlstm.from_torch(rebuild(tmp_path / "m", members))


def test_archives_that_are_refused(tmp_path: Path) -> None:
    good = {"data.pkl": strided_pickle((20, 5), (5, 1)), "data/0": bytes(400)}
    fastlstm.from_torch(rebuild(tmp_path / "m", good))
    with pytest.raises(ValueError, match=r"data\.pkl is compressed"):
        fastlstm.from_torch(rebuild(tmp_path / "m", good, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="big-endian"):
        fastlstm.from_torch(rebuild(tmp_path / "m", {**good, "byteorder": b"big"}))
    with pytest.raises(ValueError, match="archive/data/0 is missing"):
        fastlstm.from_torch(rebuild(tmp_path / "m", {"data.pkl": good["data.pkl"]}))
    with pytest.raises(ValueError, match=r"one data\.pkl"):
        fastlstm.from_torch(rebuild(tmp_path / "m", {"data/0": b""}))


def _nested_dictionaries() -> bytes:
    return b"\x80\x02" + b"X\x01\x00\x00\x00a".join([b"}"] * 5000) + b"s" * 4999 + b"."


def _doubling_tuples() -> bytes:
    """Each tuple has the one before twice: a hundred lines, 2^100 leaves."""
    return b"\x80\x02}X\x01\x00\x00\x00a)" + b"2\x86" * 100 + b"s."


def _doubling_dictionaries() -> bytes:
    """The same with dictionaries, which are searched."""
    step = b"q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u"
    return b"\x80\x02}" + step * 90 + b"."


def _deep_key() -> bytes:
    return b"\x80\x02})" + b"\x85" * 20_000 + b"Ns."


@pytest.mark.parametrize(
    "data",
    [
        _nested_dictionaries(),
        _doubling_tuples(),
        _doubling_dictionaries(),
        _deep_key(),
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memo of four billion entries
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # bytes without end
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",  # a number without end
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dictionary in itself
        b"\x80\x02.",
        b"\x80\x02u.",
        b"\x80\x02]}s.",
    ],
    ids=range(11),
)
def test_hostile_pickles(data: bytes, tmp_path: Path) -> None:
    path = rebuild(tmp_path / "m", {"data.pkl": data})
    assert not assert_reads_or_refuses(fastlstm.from_torch, path, path.read_bytes())
    assert not assert_reads_or_refuses(fastlstm.from_torch, path, data)


@pytest.mark.parametrize("saver", SAVERS)
def test_damaged_files(saver: str, tmp_path: Path) -> None:
    path = save(torch.nn.LSTM(3, 4).state_dict(), tmp_path / "m", saver)
    check_reader(fastlstm.from_torch, path, path.read_bytes())


@pytest.mark.filterwarnings("ignore:dropout acts between layers", "ignore:invalid escape")
def test_damaged_modules(tmp_path: Path) -> None:
    path = save(torch.nn.LSTM(3, 4), tmp_path / "m", "zip")
    data = path.read_bytes()
    check_reader(fastlstm.from_torch, path, data, count=50)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    # With checksums that fit, so that the damage is seen by our reader and not by zipfile.
    rng = np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(members["data.pkl"])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        rebuild(path, {**members, "data.pkl": bytes(damaged)})
        assert_reads_or_refuses(fastlstm.from_torch, path, path.read_bytes())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"layer_norm": True}, "weight_ln_ih_l0"),
        ({"peepholes": True}, "weight_peephole_l0"),
    ],
)
def test_parameters_that_pytorch_does_not_have_are_refused(
    options: dict[str, Any], what: str
) -> None:
    state_dict = fastlstm.LSTM(3, 4, **options).state_dict()
    with pytest.raises(ValueError, match=f"expected the parameters of PyTorch's layers.*{what}"):
        fastlstm.from_torch(state_dict)


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        (lambda: fastlstm.GRU(3, 4, reset_after=False), "reset_after=False"),
        (lambda: fastlstm.LSTM(3, 4, clip=0.5), "clip=0.5"),
        (lambda: fastlstm.RNN(3, 4, reverse=True), "reverse=True"),
    ],
)
def test_saved_layers_are_not_read_without_their_options(
    layer: Any, option: str, tmp_path: Path
) -> None:
    path = tmp_path / "layer.safetensors"
    layer().save(path)
    with pytest.raises(ValueError, match=f"saved by fastlstm with {option}.*fastlstm.load"):
        fastlstm.from_torch(path)

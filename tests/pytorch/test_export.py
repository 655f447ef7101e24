"""torch.export, torch.jit, torch.fx and torch.onnx, of models with modules of ours."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from twins import CELLS, SEQUENCES, assert_alike, state_of, twins

pytestmark = [  # PyTorch's own: of torch.jit, and of what exports call
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
of_kinds = pytest.mark.parametrize("kind", [*SEQUENCES, *CELLS])


class Model(nn.Module):
    """A recurrent module between others; its output or its new state comes out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        result = self.inner(torch.tanh(x))
        return self.head(result[0] if isinstance(result, tuple) else result)


def model(kind: str, **options: Any) -> Model:
    return Model(twins(kind, 3, 4, **options)[0]).eval()


def inputs(kind: str, T: int = 5, B: int = 2) -> Tensor:
    return torch.randn((B, 3) if kind in CELLS else (T, B, 3), dtype=torch.float64)


@pytest.mark.parametrize("strict", [True, False])
@of_kinds
def test_an_exported_program_is_saved_and_runs(kind: str, strict: bool) -> None:
    module, x = model(kind), inputs(kind)
    sizes = {0: torch.export.Dim("B", min=2)}
    if kind in SEQUENCES:
        sizes = {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("B", min=2)}
    program = torch.export.export(module, (x,), strict=strict, dynamic_shapes=(sizes,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert "fastlstm.forward.default" in [str(node.target) for node in loaded.graph.nodes]
    run, other = loaded.module(), inputs(kind, 9, 7)
    assert_alike(run(other), module(other))
    name = "weight_hh_l0" if kind in SEQUENCES else "weight_hh"
    (weight,) = [w for its, w in run.named_parameters() if its.endswith(name)]
    wanted = torch.autograd.grad(module(other).sum(), getattr(module.inner, name))
    assert_alike(torch.autograd.grad(run(other).sum(), weight), wanted)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_takes_packed_sequences(strict: bool) -> None:
    layer, _ = twins("GRU", 3, 4)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, rows: Tensor, batch_sizes: Tensor, h: Tensor) -> Any:
            output, state = self.layer(PackedSequence(rows, batch_sizes, None, None), h)
            return output.data, state

    packed = pack_padded_sequence(inputs("GRU"), [5, 3])
    h = state_of("GRU", 1, 2, 4)
    program = torch.export.export(Packed(), (packed.data, packed.batch_sizes, h), strict=strict)
    output, state = layer(packed, h)
    assert_alike(program.module()(packed.data, packed.batch_sizes, h), (output.data, state))


def test_training_is_exported_with_its_dropout() -> None:
    module = Model(twins("LSTM", 3, 4, 2, dropout=0.5)[0])
    x = inputs("LSTM")
    run = torch.export.export(module, (x,)).module()
    results = []
    for call in (module, run):
        torch.manual_seed(1)
        results.append(call(x))
    assert_alike(*results)


@of_kinds
def test_a_trace_is_saved_and_runs(kind: str, tmp_path: Path) -> None:
    module, x = model(kind), inputs(kind)
    traced = torch.jit.trace(module, (x,))
    path = tmp_path / "traced.pt"
    torch.jit.save(traced, path)
    loaded = torch.jit.load(path)
    assert "fastlstm::forward" in str(loaded.inlined_graph)
    other = inputs(kind, 9, 7).requires_grad_()
    assert_alike(loaded(other), module(other))
    wanted = torch.autograd.grad(module(other).sum(), other)
    assert_alike(torch.autograd.grad(loaded(other).sum(), other), wanted)
    torch.save((other.detach(), loaded(other).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch, fastlstm.torch; folder = sys.argv[1];"
        "module = torch.jit.load(folder + '/traced.pt');"
        "x, expected = torch.load(folder + '/expected.pt');"
        "sys.exit(not torch.equal(module(x), expected))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    if kind == "LSTM":  # another process has nothing of this one
        assert subprocess.run(command, check=False).returncode == 0


def test_a_trace_is_checked_where_it_runs() -> None:
    loaded = torch.jit.trace(model("LSTM"), (inputs("LSTM"),))
    with pytest.raises(Exception, match="x: expected"):
        loaded(torch.zeros(5, 2, 4, dtype=torch.float64))


def test_traces_of_lengths() -> None:
    layer, _ = twins("LSTM", 3, 4)
    x, lengths = inputs("LSTM"), torch.tensor([5, 3])
    for padding in ("post", "pre"):

        class Padded(nn.Module):
            def __init__(self, padding: str) -> None:
                super().__init__()
                self.layer, self.padding = layer, padding

            def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
                return self.layer(x, lengths=lengths, padding=self.padding)[0]

        module = Padded(padding)
        traced = torch.jit.trace(module, (x, lengths))
        x, lengths = inputs("LSTM", 7, 3), torch.tensor([1, 7, 4])
        assert_alike(traced(x, lengths), module(x, lengths))


@of_kinds
def test_scripts_have_torchs_own_modules_and_say_so(kind: str) -> None:
    module, x = model(kind), inputs(kind)
    expected = module(x)
    parameters = list(module.parameters())

    class Plain(nn.Module):
        """Text that torch.jit.script takes for every kind."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module.inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)[0]

    plain = Plain()
    with pytest.warns(UserWarning, match="torch's own from now on") as caught:
        scripted = torch.jit.script(plain)
    assert len([w for w in caught if "from now on" in str(w.message)]) == 1
    assert type(plain.inner) is getattr(nn, kind)
    module.inner = plain.inner
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert_alike(module(x), expected)
    assert_alike(scripted(torch.tanh(x)), plain(torch.tanh(x)))
    fastlstm.torch.accelerate(plain)
    assert_alike(scripted(x), plain(x))


def test_scripts_of_options_of_ours_are_refused() -> None:
    with pytest.raises(RuntimeError, match="peepholes"):
        torch.jit.script(fastlstm.torch.LSTM(3, 4, peepholes=True))


@of_kinds
def test_ours_are_leaves_of_fx(kind: str) -> None:
    module, x = model(kind), inputs(kind)

    class WithState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module.inner

        def forward(self, x: Tensor, h: Any) -> Any:
            return self.inner(x, h)

    traced = torch.fx.symbolic_trace(WithState())
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["inner"]
    state = state_of(kind, *((2, 4) if kind in CELLS else (1, 2, 4)))
    assert_alike(traced(x, state), module.inner(x, state))


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_onnx_has_its_own_node(kind: str, dynamo: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module, path = model(kind).float(), str(tmp_path / "model.onnx")
    x = inputs(kind).float()
    with warnings.catch_warnings():  # of the exporters, about torch's own module
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    # The newer exporter has no RNN: it writes out the steps of torch's own module.
    assert kind in nodes or (kind == "RNN" and dynamo)
    session = onnxruntime.InferenceSession(path)
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert_alike(torch.from_numpy(result), module(x).detach())

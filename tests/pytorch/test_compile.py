"""torch.compile, with and without the setting that lets Dynamo look at recurrent modules."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from fastlstm.torch import _tapes
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from twins import CELLS, SEQUENCES, assert_alike, assert_same_gradients, state_of, twins

pytestmark = [  # PyTorch's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
of_backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled before counts."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each backward operator found its tape."""
    results: list[bool] = []
    find = _tapes.find

    def watched(token: Tensor) -> Any:
        tape = find(token)
        results.append(tape is not None)
        return tape

    monkeypatch.setattr(_tapes, "find", watched)
    return results


class Model(nn.Module):
    """Something before and after a recurrent module."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(width, 2, dtype=torch.float64)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        x = x._replace(data=torch.tanh(x.data)) if isinstance(x, PackedSequence) else torch.tanh(x)
        output, state = self.inner(x, *args, **kwargs)
        rows = output.data if isinstance(output, PackedSequence) else output
        return self.head(rows), state


def model(kind: str, **options: Any) -> Model:
    ours, _ = twins(kind, 3, 4, 2, **options)
    width = (options.get("proj_size") or 4) * (1 + options.get("bidirectional", False))
    return Model(ours, width)


class Recorder:
    """A backend that runs a graph as it is, and keeps it."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward

    def operators(self) -> list[str]:
        return [
            str(n.target) for g in self.graphs for n in g.graph.nodes if n.op == "call_function"
        ]


@of_backends
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_one_graph_gives_the_same(
    kind: str, options: dict[str, Any], backend: str, found: list[bool]
) -> None:
    eager = model(kind, **options)
    compiled = fastlstm.torch.compile(eager, fullgraph=True, backend=backend)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    B = 5 if options else 4
    state = state_of(kind, 2 * (1 + bool(options)), B, 4)
    assert_same_gradients(compiled, eager, x)
    assert found == [True]  # the eager call keeps its tape itself
    assert_same_gradients(compiled, eager, x, state)
    with torch.no_grad():
        assert_alike(compiled(x), eager(x))
        lengths = torch.arange(B) % 3 + 1
        assert_alike(compiled(x, lengths=lengths), eager(x, lengths=lengths))
        before = compiled(x)[0]
        eager.inner.weight_hh_l0.mul_(2)
        assert_alike(compiled(x), eager(x))
        assert not torch.equal(before, compiled(x)[0])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_calls_of_all_sorts(backend: str) -> None:
    eager = model("LSTM", proj_size=2)
    compiled = fastlstm.torch.compile(eager, fullgraph=True, backend=backend)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    state = (torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64))
    assert_same_gradients(compiled, eager, x[:, 0], state)  # without a batch
    assert_same_gradients(compiled, eager, x.transpose(0, 1))
    for padding in ("post", "pre"):
        call = {"lengths": [5, 1, 0, 2], "padding": padding}
        assert_alike(compiled(x, **call), eager(x, **call))
    with pytest.raises(RuntimeError, match=r"input\.size\(-1\) must be equal to input_size"):
        eager(x[..., :2])
    with pytest.raises(Exception, match=r"input\.size\(-1\) must be equal to input_size"):
        compiled(x[..., :2])


@of_backends
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_packed_sequences(kind: str, enforce_sorted: bool, backend: str) -> None:
    eager = model(kind, bidirectional=True)
    compiled = fastlstm.torch.compile(eager, fullgraph=True, backend=backend)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    assert_same_gradients(compiled, eager, packed, state_of(kind, 4, 4, 4))
    assert_same_gradients(compiled, eager, packed)


@of_backends
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: str, backend: str, found: list[bool]) -> None:
    eager, _ = twins(kind, 3, 4)
    compiled = torch.compile(eager, fullgraph=True, backend=backend)  # Dynamo looks at these
    x = torch.randn(2, 3, dtype=torch.float64)
    assert_same_gradients(compiled, eager, x)
    assert found == [True]
    assert_same_gradients(compiled, eager, x, state_of(kind, 2, 4))
    assert_same_gradients(compiled, eager, x[0])


def test_options_of_ours() -> None:
    options = {"zoneout": (0.1, 0.2), "clip": 2.5, "peepholes": True, "merge": None}
    activations = ("Sigmoid", ("LeakyRelu", 0.02), "Tanh")
    layer = fastlstm.torch.LSTM(
        3, 4, 2, bidirectional=True, batch_first=True, activations=activations, **options
    )
    compiled = fastlstm.torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    x = torch.randn(5, 2, 3)
    results = []
    for module in (layer, compiled):
        torch.manual_seed(1)
        results.append(module(x))
    assert results[0][0].shape == (2, 5, 2, 4)
    assert_alike(*results)
    cell = fastlstm.torch.LSTMCell(3, 4, peepholes=True)
    assert_alike(torch.compile(cell, fullgraph=True, backend="aot_eager")(x[0]), cell(x[0]))


@of_backends
def test_dropout_is_drawn_from_torchs_generator(backend: str, found: list[bool]) -> None:
    eager = model("LSTM", dropout=0.5)
    compiled = fastlstm.torch.compile(eager, fullgraph=True, backend=backend)
    x = torch.randn(5, 4, 3, dtype=torch.float64)

    def loss(module: nn.Module, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return module(x)[0].sum()

    if backend != "inductor":  # which draws in its own way
        assert_alike(loss(compiled, 1), loss(eager, 1))
    first = torch.autograd.grad(loss(compiled, 1), eager.inner.weight_ih_l1)
    assert_alike(torch.autograd.grad(loss(compiled, 1), eager.inner.weight_ih_l1), first)
    assert not torch.equal(loss(compiled, 1), loss(compiled, 2))
    assert all(found)
    eager.eval()
    state = torch.get_rng_state()
    assert_alike(compiled(x), eager(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_another_rate_counts(rate: float) -> None:
    eager = model("GRU", dropout=0.5)
    compiled = fastlstm.torch.compile(eager, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    compiled(x)
    eager.inner.dropout = rate
    results = []
    for module in (eager, compiled):
        torch.manual_seed(1)
        results.append(module(x))
    assert_alike(*results)


def test_sizes_that_change_are_compiled_once() -> None:
    counter = torch._dynamo.testing.CompileCounter()
    compiled = fastlstm.torch.compile(model("LSTM"), fullgraph=True, backend=counter)
    for T, B in ((3, 2), (4, 7), (17, 5)):
        x = torch.randn(T, B, 3, dtype=torch.float64)
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(x, 1)
        compiled(x)
    assert counter.frame_count == 1


def test_bfloat16_and_autocast() -> None:
    for kind in SEQUENCES:
        low, x = getattr(fastlstm.torch, kind)(3, 4).bfloat16(), torch.randn(5, 2, 3)
        compiled = fastlstm.torch.compile(low, fullgraph=True, backend="aot_eager")
        assert_alike(compiled(x.bfloat16()), low(x.bfloat16()))
        high = getattr(fastlstm.torch, kind)(3, 4)
        compiled = fastlstm.torch.compile(high, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu"):
            assert_alike(compiled(x), high(x))


# Dynamo asks, where a graph breaks.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_without_the_setting_the_graph_breaks_at_ours() -> None:
    recorder = Recorder()
    eager = model("LSTM")
    compiled = torch.compile(eager, backend=recorder)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    assert_same_gradients(compiled, eager, x)
    packed = pack_padded_sequence(x, [5, 3, 3, 1])
    assert_same_gradients(compiled, eager, packed)
    # Nothing of ours was compiled: neither as an operator, nor the code around the core.
    assert not [name for name in recorder.operators() if "fastlstm" in name]
    files = [node.stack_trace or "" for g in recorder.graphs for node in g.graph.nodes]
    assert not [text for text in files if "fastlstm/torch" in text]
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="RNN, GRU, or LSTM"):
        torch.compile(model("LSTM"), backend="eager", fullgraph=True)(x)
    alone = torch.compile(eager.inner, backend=recorder)
    assert_same_gradients(alone, eager.inner, x)


def test_with_the_setting_torchs_own_function_does() -> None:
    recorder = Recorder()
    compiled = torch.compile(model("LSTM"), backend=recorder, fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled(torch.randn(5, 4, 3, dtype=torch.float64))
    assert recorder.operators().count("fastlstm.forward") == 1


def test_the_setting_is_that_of_its_calls() -> None:
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    seen: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        seen.append(torch._dynamo.config.allow_rnn)
        return graph.forward

    compiled = fastlstm.torch.compile(model("LSTM"), backend=backend, fullgraph=True)
    assert not torch._dynamo.config.allow_rnn
    compiled(x)
    assert not torch._dynamo.config.allow_rnn
    with pytest.raises(Exception, match="must be equal to input_size"):
        compiled(x[..., :2])
    assert not torch._dynamo.config.allow_rnn
    assert seen == [True]


def test_what_comes_back_is_what_torch_gives() -> None:
    eager = model("LSTM")
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    compiled = fastlstm.torch.compile(eager, backend="aot_eager", fullgraph=True)
    assert isinstance(compiled, torch._dynamo.eval_frame.OptimizedModule)
    assert list(compiled.state_dict()) == ["_orig_mod." + name for name in eager.state_dict()]
    assert compiled.eval().training is False
    assert eager.training is False
    expected = eager(x)
    file = io.BytesIO()
    torch.save(compiled, file)
    file.seek(0)
    for other in (copy.deepcopy(compiled), torch.load(file, weights_only=False)):
        torch._dynamo.reset()
        assert_alike(other(x), expected)

    @fastlstm.torch.compile(backend="aot_eager", fullgraph=True)
    def doubled(x: Tensor) -> Tensor:
        return 2 * eager(x)[0]

    assert_alike(doubled(x), 2 * expected[0])
    assert doubled.__name__ == "doubled"
    assert fastlstm.torch.compile(eager, disable=True) is eager


@pytest.mark.slow
def test_a_compiled_training_loop_learns_the_same() -> None:
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = model("LSTM", dropout=0.25)
        run = module
        if compiled:
            run = fastlstm.torch.compile(module, fullgraph=True, backend="aot_eager")
        optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
        x = torch.randn(5, 4, 3, dtype=torch.float64)
        losses.append([])
        for _ in range(5):
            optimiser.zero_grad()
            loss = run(x)[0].square().mean()
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.detach())
    assert_alike(losses[1], losses[0])
    assert losses[0][-1] < losses[0][0]


def test_a_checkpoint_in_the_graph_computes_again(found: list[bool]) -> None:
    eager = model("GRU")

    def checkpointed(x: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(lambda x: eager(x)[0], x, use_reentrant=False)

    compiled = fastlstm.torch.compile(checkpointed, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(eager(x)[0].sum(), x)
    assert_alike(torch.autograd.grad(compiled(x).sum(), x), wanted)
    assert found == [True]


def test_dynamo_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, fastlstm.torch; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What LSTM, GRU and RNN compute and refuse: the same inputs through torch's modules and ours."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from twins import (
    SEQUENCES,
    assert_alike,
    assert_same_gradients,
    assert_same_outcome,
    computed,  # noqa: F401
    leaves,
    state_of,
    twins,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
]
NAMES = [",".join(f"{k}={v}" for k, v in options.items()) or "plain" for options in OPTIONS]
LENGTHS = {"sorted": [5, 4, 4, 1], "unsorted": [2, 5, 1, 4], "equal": [5, 5, 5, 5]}


def x_of(module: Any, T: int = 5, B: int = 4, I: int = 3) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn((B, T, I) if module.batch_first else (T, B, I), dtype=torch.float64)


def cells_of(module: Any) -> int:
    return int(module.num_layers * (2 if module.bidirectional else 1))


def states_of(kind: str, module: Any, *batch: int) -> Any:
    state = state_of(kind, cells_of(module), *batch, module.hidden_size)
    if module.proj_size:
        return (state[0][..., : module.proj_size].contiguous(), state[1])
    return state


with_options = pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
of_kinds = pytest.mark.parametrize("kind", SEQUENCES)


@of_kinds
@with_options
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("layout", ["batch", "one", *LENGTHS])
def test_results_and_gradients_are_torchs(
    kind: str,
    options: dict[str, Any],
    state: bool,
    layout: str,
    computed: list[str],  # noqa: F811
) -> None:
    ours, theirs = twins(kind, 3, 7, **options)
    x: Any = x_of(ours)
    batch: tuple[int, ...] = (4,)
    if layout == "one":
        x, batch = torch.randn(5, 3, dtype=torch.float64), ()
    elif layout in LENGTHS:
        sorted_ = layout != "unsorted"
        x = pack_padded_sequence(x, LENGTHS[layout], ours.batch_first, enforce_sorted=sorted_)
    args = (x, states_of(kind, ours, *batch)) if state else (x,)
    assert_same_gradients(ours, theirs, *args)
    assert computed == [kind]  # theirs alone


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
@pytest.mark.parametrize("packed", [False, True])
def test_projections_are_torchs(options: dict[str, Any], packed: bool) -> None:
    ours, theirs = twins("LSTM", 3, 7, proj_size=4, **options)
    x: Any = x_of(ours)
    if packed:
        x = pack_padded_sequence(x, LENGTHS["unsorted"], enforce_sorted=False)
    assert_same_gradients(ours, theirs, x)
    assert_same_gradients(ours, theirs, x, states_of("LSTM", ours, 4))


def test_a_relu_is_torchs() -> None:
    ours, theirs = twins("RNN", 3, 7, 2, "relu")
    assert_same_gradients(ours, theirs, x_of(ours))


@of_kinds
def test_float32_is_torchs(kind: str) -> None:
    ours, theirs = twins(kind, 8, 16, 2, dtype=torch.float32, bidirectional=True)
    assert_same_gradients(ours, theirs, torch.randn(12, 5, 8))


@of_kinds
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "how", ["transposed", "expanded", "sliced", "flipped", "strided", "zero stride in time"]
)
def test_inputs_may_lie_anyhow(kind: str, batch_first: bool, how: str) -> None:
    ours, theirs = twins(kind, 3, 7, batch_first=batch_first)
    shape = (4, 5, 3) if batch_first else (5, 4, 3)
    base = torch.randn(shape, dtype=torch.float64)
    x = {
        "transposed": lambda: base.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": lambda: base[:, :1].expand(shape),
        "zero stride in time": lambda: base[:1].expand(shape),
        "sliced": lambda: torch.randn(shape[0], shape[1], 6, dtype=torch.float64)[..., 1:4],
        "flipped": lambda: base.flip(0),
        "strided": lambda: torch.randn(shape[0] * 2, shape[1], 3, dtype=torch.float64)[::2],
    }[how]()
    assert not x.is_contiguous() or how == "flipped"
    assert_same_outcome(ours, theirs, x)
    assert_same_gradients(ours, theirs, x)
    grown = x.detach().requires_grad_()  # gradients of what lies so
    got = torch.autograd.grad(ours(grown)[0].sum(), grown)[0]
    expected = torch.autograd.grad(theirs(grown)[0].sum(), grown)[0]
    assert_alike(got, expected)


@of_kinds
def test_states_may_lie_anyhow(kind: str) -> None:
    ours, theirs = twins(kind, 3, 7, 2)
    x = x_of(ours)
    for part in (
        torch.randn(4, 2, 7, dtype=torch.float64).transpose(0, 1),
        torch.randn(2, 1, 7, dtype=torch.float64).expand(2, 4, 7),
    ):
        assert_same_gradients(ours, theirs, x, (part, part * 2) if kind == "LSTM" else part)


@of_kinds
@pytest.mark.parametrize("wanted", ["x", "state", "one weight", "biases", "nothing"])
def test_any_subset_may_require_gradients(kind: str, wanted: str) -> None:
    got: list[Any] = []
    for module in twins(kind, 3, 7, 2):
        x, state = leaves(x_of(module)), leaves(states_of(kind, module, 4))
        x.requires_grad_(wanted == "x")
        for part in state if kind == "LSTM" else (state,):
            part.requires_grad_(wanted == "state")
        for name, p in module.named_parameters():
            p.requires_grad_(
                {"one weight": name == "weight_hh_l1", "biases": "bias" in name}.get(wanted, False)
            )
            p.grad = None
        torch.manual_seed(4)
        x.data.normal_()
        for part in state if kind == "LSTM" else (state,):
            part.data.normal_()
        output, _ = module(x, state)
        assert output.requires_grad == (wanted != "nothing")
        if wanted != "nothing":
            output.square().sum().backward()
        states = state if kind == "LSTM" else (state,)
        got.append([t.grad for t in (x, *states, *module.parameters())])
    for mine, its in zip(*got, strict=True):
        assert (mine is None) == (its is None)
        if its is not None:
            assert_alike(mine, its)


@of_kinds
@pytest.mark.parametrize("used", ["h_n", "output", "last step", "c_n"])
def test_some_results_may_be_unused(kind: str, used: str) -> None:
    if used == "c_n" and kind != "LSTM":
        pytest.skip("an LSTM's")
    grads = []
    for module in twins(kind, 3, 7, 2, bidirectional=True):
        x = leaves(x_of(module))
        output, final = module(x)
        part = {
            "h_n": lambda f=final: f[0] if kind == "LSTM" else f,
            "c_n": lambda f=final: f[1],
            "output": lambda o=output: o,
            "last step": lambda o=output: o[-1],
        }[used]()
        part.sin().sum().backward()
        grads.append([x.grad, *(p.grad for p in module.parameters())])
    assert_alike(*grads)


def wrong_calls(kind: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of a (3, 7) module of two layers: most are wrong, some are at the edge."""
    d = torch.float64
    x = torch.randn(5, 4, 3, dtype=d)
    pair = kind == "LSTM"

    def state(*shape: int, dtype: torch.dtype = d) -> Any:
        return state_of(kind, *shape, dtype=dtype)

    rows = pack_padded_sequence(x, [5, 4, 4, 1])
    calls: dict[str, tuple[Any, ...]] = {
        "1-D": (torch.randn(3, dtype=d),),
        "0-D": (torch.tensor(1.0, dtype=d),),
        "4-D": (torch.randn(2, 5, 4, 3, dtype=d),),
        "width": (torch.randn(5, 4, 2, dtype=d),),
        "width, one sequence": (torch.randn(5, 2, dtype=d),),
        "no steps": (torch.randn(0, 4, 3, dtype=d),),
        "no sequences": (torch.randn(5, 0, 3, dtype=d),),
        "nothing": (torch.randn(0, 0, 3, dtype=d),),
        "no steps of one sequence": (torch.randn(0, 3, dtype=d),),
        "float32": (x.float(),),
        "float16": (x.half(),),
        "integers": (torch.ones(5, 4, 3, dtype=torch.int64),),
        "complex": (x.to(torch.complex128),),
        "state's batch": (x, state(2, 3, 7)),
        "state's layers": (x, state(1, 4, 7)),
        "state's width": (x, state(2, 4, 6)),
        "state without batch": (x, state(2, 7)),
        "state 4-D": (x, state(2, 2, 4, 7)),
        "state with batch": (x[:, 0], state(2, 1, 7)),
        "state's layers, one sequence": (x[:, 0], state(3, 7)),
        "state's type": (x, state(2, 4, 7, dtype=torch.float32)),
        "packed: width": (rows._replace(data=torch.randn(14, 2, dtype=d)),),
        "packed: 3-D": (rows._replace(data=torch.randn(14, 1, 3, dtype=d)),),
        "packed: float32": (rows._replace(data=rows.data.float()),),
        "packed: state's batch": (rows, state(2, 3, 7)),
        "packed: state's width": (rows, state(2, 4, 6)),
        "packed: state's layers": (rows, state(1, 4, 7)),
        "packed: rows": (rows._replace(data=torch.randn(13, 3, dtype=d)),),
        "packed: sizes grow": (
            PackedSequence(torch.randn(6, 3, dtype=d), torch.tensor([2, 1, 3])),
        ),
        "None": (None,),
        "a list": ([[1.0, 2.0, 3.0]],),
        "state a number": (x, 3),
    }
    if pair:
        h, c = state(2, 4, 7)
        calls |= {
            "h alone": (x, h),
            "h in a tuple": (x, (h,)),
            "three parts": (x, (h, c, h)),
            "c's batch": (x, (h, torch.randn(2, 3, 7, dtype=d))),
            "c's width": (x, (h, torch.randn(2, 4, 6, dtype=d))),
            "a list of parts": (x, [h, c]),
            "stacked": (x, torch.stack((h, c))),
            "no c": (x, (h, None)),
        }
    else:
        calls |= {"state in a tuple": (x, (state(2, 4, 7),))}
    return calls


@pytest.mark.parametrize(
    ("kind", "which"), [(kind, which) for kind in SEQUENCES for which in wrong_calls(kind)]
)
def test_odd_arguments_give_what_they_give_torchs(kind: str, which: str) -> None:
    ours, theirs = twins(kind, 3, 7, 2)
    assert_same_outcome(ours, theirs, *wrong_calls(kind)[which])


@of_kinds
@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_and_sequences_of_one(kind: str, batch_first: bool) -> None:
    ours, theirs = twins(kind, 3, 7, 2, bidirectional=True, batch_first=batch_first)
    for T, B in ((1, 1), (1, 6), (6, 1)):
        assert_same_gradients(ours, theirs, x_of(ours, T, B))


@of_kinds
def test_packed_sequences_come_out_as_they_went_in(kind: str) -> None:
    ours, theirs = twins(kind, 3, 7)
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 5, 3)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    output, state = ours(packed)
    assert output.batch_sizes is packed.batch_sizes
    assert output.sorted_indices is packed.sorted_indices
    assert output.unsorted_indices is packed.unsorted_indices
    # Each as it would be alone.
    for b, sequence in enumerate(sequences):
        alone, final = ours(sequence)
        h, h_alone = (state[0], final[0]) if kind == "LSTM" else (state, final)
        assert_alike(h[:, b], h_alone)
        assert_alike(torch.nn.utils.rnn.unpack_sequence(output)[b], alone)
    assert_same_outcome(ours, theirs, pack_sequence(sequences[:1]))


@of_kinds
def test_outputs_are_contiguous(kind: str) -> None:
    for batch_first in (False, True):
        ours, _ = twins(kind, 3, 7, batch_first=batch_first)
        assert ours(x_of(ours))[0].is_contiguous()


@of_kinds
def test_inputs_are_not_changed(kind: str) -> None:
    ours, _ = twins(kind, 3, 7)
    x, state = x_of(ours), states_of(kind, ours, 4)
    before = [t.clone() for t in (x, *(state if kind == "LSTM" else (state,)))]
    output, _ = ours(x.requires_grad_(), state)
    output.sum().backward()
    assert_alike([x.detach(), *(state if kind == "LSTM" else (state,))], before)


def test_hx_may_go_by_its_name() -> None:
    lstm = fastlstm.torch.LSTM(3, 7)
    x, hx = torch.randn(5, 3), state_of("LSTM", 1, 7, dtype=torch.float32)
    assert_alike(lstm(input=x, hx=hx), lstm(x, hx))


def test_tensors_whose_memory_was_freed() -> None:
    """As FSDP does with parameters: said, as nothing computes with them."""
    for freed in ("weight", "x", "state"):
        layer = fastlstm.torch.GRU(3, 4)
        x, state = torch.zeros(2, 5, 3), torch.zeros(1, 5, 4)
        tensor = {"weight": layer.weight_hh_l0, "x": x, "state": state}[freed]
        tensor.untyped_storage().resize_(0)
        with pytest.raises(RuntimeError, match="whose memory was freed"):
            layer(x, state)

"""Where torch's own implementation runs, unchanged; and bfloat16, which float32 stands in for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode
from twins import (
    CELLS,
    SEQUENCES,
    assert_alike,
    computed,  # noqa: F401
    outcome,
    state_of,
    tensors,
    twins,
)

KINDS = (*SEQUENCES, *CELLS)
of_kinds = pytest.mark.parametrize("kind", KINDS)


def x_of(kind: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((4, 3) if kind in CELLS else (6, 4, 3), generator=generator).to(dtype)


@of_kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.complex64])
def test_other_types_are_torchs(kind: str, dtype: torch.dtype, computed: list[str]) -> None:  # noqa: F811
    def call(module: Any) -> Any:
        module = module(3, 5)
        for p in module.parameters():
            p.data = p.data.to(dtype)
        return module(x_of(kind).to(dtype))

    got = []
    for kinds in (fastlstm.torch, nn):
        torch.manual_seed(0)
        got.append(outcome(lambda k=kinds: call(getattr(k, kind))))
    assert got[0][0] == got[1][0]
    assert_alike(got[0][1], got[1][1])
    assert computed == [kind, kind]


@of_kinds
def test_other_devices_are_torchs(kind: str, computed: list[str]) -> None:  # noqa: F811
    ours, theirs = twins(kind, 3, 5, dtype=torch.float32)
    for module in (ours, theirs):
        module.to("meta")
    assert_alike(ours(x_of(kind).to("meta")), theirs(x_of(kind).to("meta")))
    assert computed == [kind, kind]
    cpu, _ = twins(kind, 3, 5, dtype=torch.float32)
    for x, module in ((x_of(kind).to("meta"), cpu), (x_of(kind), ours)):
        _, it = twins(kind, 3, 5, dtype=torch.float32)
        it.to(next(module.parameters()).device)
        expected = outcome(lambda it=it, x=x: it(x))
        got = outcome(lambda module=module, x=x: module(x))
        assert got[0] == expected[0]


@of_kinds
def test_negations_that_are_to_come(kind: str) -> None:
    """The imaginary part of a conjugate is negative where its memory is not."""
    ours, theirs = twins(kind, 3, 5)
    values = torch.view_as_complex(torch.randn(*x_of(kind).shape, 2, dtype=torch.float64))
    x = values.conj().imag
    assert x.is_neg()
    assert_alike(ours(x), theirs(x))
    with torch.no_grad():
        for module in (ours, theirs):
            p = next(module.parameters())
            p.data = torch._neg_view(p.data.clone())
    assert_alike(ours(x_of(kind, torch.float64)), theirs(x_of(kind, torch.float64)))
    # And of gradients.
    x = x_of(kind, torch.float64).requires_grad_()
    got = []
    for module in twins(kind, 3, 5):
        result = tensors(module(x))[0]
        d = torch._neg_view(torch.ones_like(result))
        got.append(torch.autograd.grad(result, [x, *module.parameters()], d))
    assert_alike(*got)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_negations_that_are_to_come_with_lengths(kind: str, computed: list[str]) -> None:  # noqa: F811
    ours, _ = twins(kind, 3, 5)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    state = [torch.randn(1, 4, 5, dtype=torch.float64) for _ in range(1 + (kind == "LSTM"))]
    negative = [torch._neg_view(part) for part in state]
    hx, negative_hx = (s if kind == "LSTM" else s[0] for s in ([-p for p in state], negative))
    expected = ours(-x, hx, lengths=[6, 2, 4, 1])
    assert_alike(ours(torch._neg_view(x), negative_hx, lengths=[6, 2, 4, 1]), expected)
    assert not computed


class Tagged(torch.Tensor):
    """A subclass that says what it is."""


@of_kinds
def test_subclasses_of_tensors_stay_themselves(kind: str, computed: list[str]) -> None:  # noqa: F811
    ours, theirs = twins(kind, 3, 5)
    x = x_of(kind, torch.float64).as_subclass(Tagged)
    got, expected = ours(x), theirs(x)
    assert all(isinstance(t, Tagged) for t in tensors(expected))
    assert_alike(got, expected)
    assert computed == [kind, kind]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_torchs() -> None:
    parts = [torch.randn(n, 3) for n in (4, 2)]
    for layout in (torch.strided, torch.jagged):
        ours, theirs = twins("LSTM", 3, 5, dtype=torch.float32)
        got = []
        for module in (ours, theirs):
            nested = torch.nested.nested_tensor(parts, layout=layout)
            got.append(outcome(lambda m=module, x=nested: m(x)))
        assert got[0][0] == got[1][0]


@of_kinds
def test_sparse_tensors_are_torchs(kind: str) -> None:
    ours, theirs = twins(kind, 3, 5, dtype=torch.float32)
    x = x_of(kind).to_sparse()
    got, expected = outcome(lambda: ours(x)), outcome(lambda: theirs(x))
    assert got[0] == expected[0]


@of_kinds
def test_modes_that_watch_operations_see_them(kind: str, computed: list[str]) -> None:  # noqa: F811
    ours, theirs = twins(kind, 3, 5, dtype=torch.float32)
    counts = []
    for module in (ours, theirs):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x_of(kind))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
    assert computed == [kind, kind]


@of_kinds
def test_fake_tensors_are_torchs(kind: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    ours, theirs = twins(kind, 3, 5, dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(x_of(kind))
        got, expected = ours(x), theirs(x)
    for mine, its in zip(tensors(got), tensors(expected), strict=True):
        assert type(mine) is type(its)
        assert mine.shape == its.shape


# --- bfloat16 -------------------------------------------------------------------------------------

TYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


@of_kinds
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_types_of_results_are_torchs(kind: str, grad: bool, packed: bool, state: bool) -> None:
    """Of weights and inputs of any types, in autocast to any or none."""
    if packed and kind in CELLS:
        pytest.skip("of sequences")
    for weights, of_x, cast in itertools.product(
        TYPES, TYPES, (None, torch.bfloat16, torch.float16)
    ):
        ours, theirs = twins(kind, 3, 5, dtype=weights)
        x: Any = x_of(kind, of_x)
        if packed:
            x = pack_padded_sequence(x, [5, 6, 2, 1], enforce_sorted=False)
        shape = (4, 5) if kind in CELLS else (1, 4, 5)
        args = (x, state_of(kind, *shape, dtype=of_x)) if state else (x,)
        got = []
        for module in (theirs, ours):
            with (
                torch.set_grad_enabled(grad),
                torch.autocast("cpu", dtype=cast or torch.bfloat16, enabled=cast is not None),
            ):
                got.append(outcome(lambda m=module, a=args: m(*a)))
        what = f"weights {weights}, x {of_x}, autocast {cast}"
        if got[0][0] == "value":
            assert got[1][0] == "value", (what, got[1])
            for mine, its in zip(tensors(got[1][1]), tensors(got[0][1]), strict=True):
                assert mine.dtype == its.dtype, what
                close = 1e-10 if its.dtype == torch.float64 else 0.03
                assert float((mine.detach() - its.detach()).abs().max()) < close, what
        else:
            assert got[1][0] == got[0][0], (what, got)


@of_kinds
@pytest.mark.parametrize("how", ["bfloat16", "autocast"])
def test_gradients_of_bfloat16(kind: str, how: str, computed: list[str]) -> None:  # noqa: F811
    exact, _ = twins(kind, 3, 16, dtype=torch.float32)
    ours, theirs = twins(kind, 3, 16, dtype=torch.bfloat16 if how == "bfloat16" else torch.float32)
    grads = []
    for module in (ours, theirs, exact):
        module.zero_grad()
        x = x_of(kind, next(module.parameters()).dtype).requires_grad_()
        with torch.autocast("cpu", enabled=how == "autocast" and module is not exact):
            result = tensors(module(x))[0]
        result.float().sin().sum().backward()
        grads.append([x.grad, *(p.grad for p in module.parameters())])
    for mine, its, right in zip(*grads, strict=True):
        assert mine.dtype == its.dtype
        error, its_error = (float((d.float() - right).abs().max()) for d in (mine, its))
        assert error <= max(1.5 * its_error, 0.03 * float(right.abs().max()))
    assert computed == [kind]


def test_a_model_of_mixed_precision_trains() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), fastlstm.torch.GRU(8, 8))
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    x, losses = torch.randn(6, 4, 3), []
    for _ in range(20):
        optimiser.zero_grad()
        with torch.autocast("cpu"):
            loss = (model(x)[0].float() - 0.5).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2

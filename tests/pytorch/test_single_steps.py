"""What the cells compute and refuse: the same inputs through torch's modules and ours."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from twins import (
    CELLS,
    assert_alike,
    assert_same_gradients,
    assert_same_outcome,
    computed,  # noqa: F401
    state_of,
    tensors,
    twins,
)

of_kinds = pytest.mark.parametrize("kind", CELLS)


@of_kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(4,), (1,), ()], ids=str)
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
def test_results_and_gradients_are_torchs(
    kind: str,
    bias: bool,
    batch: tuple[int, ...],
    state: bool,
    computed: list[str],  # noqa: F811
) -> None:
    ours, theirs = twins(kind, 3, 7, bias=bias)
    x = torch.randn(*batch, 3, dtype=torch.float64)
    args = (x, state_of(kind, *batch, 7)) if state else (x,)
    assert_same_gradients(ours, theirs, *args)
    assert_same_outcome(ours, theirs, *args)
    assert set(computed) == {kind}  # theirs alone
    assert len(computed) == 3


def test_a_relu_is_torchs() -> None:
    ours, theirs = twins("RNNCell", 3, 7, nonlinearity="relu")
    assert_same_gradients(ours, theirs, torch.randn(4, 3, dtype=torch.float64))
    for module in (ours, theirs):
        module.nonlinearity = "sin"
    with pytest.raises(ValueError, match="sin"):
        ours(torch.randn(4, 3, dtype=torch.float64))


@of_kinds
def test_inputs_and_states_may_lie_anyhow(kind: str) -> None:
    ours, theirs = twins(kind, 3, 7)
    x = torch.randn(3, 4, dtype=torch.float64).t()
    h = torch.randn(1, 7, dtype=torch.float64).expand(4, 7)
    state = (h, h[:, :].flip(1)) if kind == "LSTMCell" else h
    assert_same_gradients(ours, theirs, x, state)


def wrong_calls(kind: str) -> dict[str, tuple[Any, ...]]:
    d = torch.float64
    x = torch.randn(4, 3, dtype=d)

    def state(*shape: int, dtype: torch.dtype = d) -> Any:
        return state_of(kind, *shape, dtype=dtype)

    calls: dict[str, tuple[Any, ...]] = {
        "0-D": (torch.tensor(1.0, dtype=d),),
        "3-D": (torch.randn(2, 4, 3, dtype=d),),
        "width": (torch.randn(4, 2, dtype=d),),
        "width, without batch": (torch.randn(2, dtype=d),),
        "no batch": (torch.randn(0, 3, dtype=d),),
        "no batch, state": (torch.randn(0, 3, dtype=d), state(0, 7)),
        "float32": (x.float(),),
        "float16": (x.half(),),
        "integers": (torch.ones(4, 3, dtype=torch.int64),),
        "state's batch": (x, state(3, 7)),
        "state's width": (x, state(4, 6)),
        "state of one": (x, state(1, 7)),
        "state 3-D": (x, state(1, 4, 7)),
        "state without batch": (x, state(7)),
        "state with batch": (x[0], state(1, 7)),
        "state's type": (x, state(4, 7, dtype=torch.float32)),
        "None": (None,),
        "a list": ([1.0, 2.0, 3.0],),
        "a number as a state": (x, 3),
    }
    if kind == "LSTMCell":
        h, c = state(4, 7)
        calls |= {
            "h alone": (x, h),
            "h in a tuple": (x, (h,)),
            "three parts": (x, (h, c, h)),
            "c's width": (x, (h, torch.randn(4, 6, dtype=d))),
            "a list of parts": (x, [h, c]),
            "stacked": (x, torch.stack((h, c))),
        }
    else:
        calls |= {"state in a tuple": (x, (state(4, 7),))}
    return calls


@pytest.mark.parametrize(
    ("kind", "which"), [(kind, which) for kind in CELLS for which in wrong_calls(kind)]
)
def test_odd_arguments_give_what_they_give_torchs(kind: str, which: str) -> None:
    ours, theirs = twins(kind, 3, 7)
    assert_same_outcome(ours, theirs, *wrong_calls(kind)[which])


@of_kinds
def test_a_loop_is_a_layer(kind: str) -> None:
    cell, _ = twins(kind, 3, 7)
    layer = getattr(fastlstm.torch, kind.removesuffix("Cell"))(3, 7, dtype=torch.float64)
    layer.load_state_dict({f"{name}_l0": p for name, p in cell.state_dict().items()})
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    output, final = layer(x)
    state, steps = None, []
    for step in x:
        state = cell(step, state)
        steps.append(tensors(state)[0])
    assert_alike(torch.stack(steps), output)
    assert_alike([part[None] for part in tensors(state)], tensors(final))
    output.sin().sum().backward()
    torch.stack(steps).sin().sum().backward()
    for name, p in cell.named_parameters():
        assert_alike(p.grad, getattr(layer, f"{name}_l0").grad)


@of_kinds
def test_results_have_their_own_memory(kind: str) -> None:
    ours, _ = twins(kind, 3, 7)
    first = ours(torch.randn(4, 3, dtype=torch.float64))
    kept = [t.clone() for t in tensors(first)]
    ours(torch.randn(4, 3, dtype=torch.float64))
    assert_alike(tensors(first), kept)

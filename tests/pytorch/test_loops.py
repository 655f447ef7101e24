"""Loops over cells: the weights' gradients are those of all steps, whichever passes go through."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from twins import CELLS, assert_alike, state_of, tensors, twins

of_kinds = pytest.mark.parametrize("kind", CELLS)
I, H, B = 3, 5, 4


def steps(cell: Any, x: torch.Tensor, state: Any = None) -> list[Any]:
    """The states after each step."""
    states = []
    for row in x:
        state = cell(row, state)
        states.append(state)
    return states


def loss_of(states: list[Any]) -> torch.Tensor:
    return sum(part.sin().sum() for state in states for part in tensors(state))  # type: ignore[return-value]


def grads(cell: Any) -> list[torch.Tensor | None]:
    found = [None if p.grad is None else p.grad.clone() for p in cell.parameters()]
    cell.zero_grad()
    return found


def of_both(kind: str, run: Any, **options: Any) -> None:
    """What `run` gives is the same for torch's cell and for ours."""
    got = []
    for cell in twins(kind, I, H, **options):
        torch.manual_seed(1)
        got.append(run(cell))
    assert_alike(*got)


@of_kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("T", [1, 7, 150])  # the last: more rows than are multiplied at once
def test_gradients_are_torchs(kind: str, bias: bool, T: int) -> None:
    def run(cell: Any) -> Any:
        x = torch.randn(T, B, I, dtype=torch.float64).requires_grad_()
        state = state_of(kind, B, H)
        for part in tensors(state):
            part.requires_grad_()
        loss_of(steps(cell, x, state)).backward()
        return [x.grad, *(part.grad for part in tensors(state)), *grads(cell)]

    of_both(kind, run, bias=bias)


@of_kinds
@pytest.mark.parametrize("wanted", ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "none"])
def test_some_gradients(kind: str, wanted: str) -> None:
    def run(cell: Any) -> Any:
        x = torch.randn(6, B, I, dtype=torch.float64).requires_grad_()
        for name, p in cell.named_parameters():
            p.requires_grad_(name == wanted)
        loss_of(steps(cell, x)).backward()
        return [d for d in (x.grad, *grads(cell)) if d is not None]

    of_both(kind, run)


@of_kinds
def test_what_requires_gradients_may_change_within_a_loop(kind: str) -> None:
    def run(cell: Any) -> Any:
        x = torch.randn(6, B, I, dtype=torch.float64)
        states = steps(cell, x[:3])
        cell.weight_hh.requires_grad_(False)
        states += steps(cell, x[3:], states[-1])
        cell.weight_hh.requires_grad_(True)
        states += steps(cell, x, states[-1])
        loss_of(states).backward()
        return grads(cell)

    of_both(kind, run)


@of_kinds
def test_what_requires_gradients_is_that_of_the_steps(kind: str) -> None:
    def run(cell: Any) -> Any:
        loss = loss_of(steps(cell, torch.randn(6, B, I, dtype=torch.float64)))
        cell.weight_ih.requires_grad_(False)
        loss.backward()
        return grads(cell)

    of_both(kind, run)


@of_kinds
def test_values_may_change_within_a_loop(kind: str) -> None:
    """By ways that autograd does not see: each step's gradient is that of the values it had."""
    cell, _ = twins(kind, I, H)
    x = torch.randn(2, B, I, dtype=torch.float64)
    expected = []
    for factor, row in ((1.0, x[0]), (2.0, x[1])):
        cell.weight_hh.data.mul_(factor)
        loss_of(steps(cell, row[None])).backward()
        expected.append(grads(cell))
    cell.weight_hh.data.mul_(0.5)
    first = steps(cell, x[:1])
    cell.weight_hh.data.mul_(2)
    loss_of(first + steps(cell, x[1:])).backward()
    assert_alike(
        grads(cell),
        [a + b for a, b in zip(*expected, strict=True)],  # type: ignore[operator]
    )


@of_kinds
def test_passes_over_parts_of_a_loop(kind: str) -> None:
    """Truncated back-propagation, all steps before the first pass. No pass keeps its graph."""

    def run(cell: Any) -> Any:
        x = torch.randn(9, B, I, dtype=torch.float64)
        losses, state, found = [], None, []
        for part in x.split(3):
            states = steps(cell, part, state)
            losses.append(loss_of(states))
            last = tensors(states[-1])
            state = tuple(t.detach() for t in last) if len(last) > 1 else last[0].detach()
        for loss in losses:
            loss.backward()
            found.append(grads(cell))
        return found

    of_both(kind, run)


@of_kinds
def test_passes_that_ask_for_less(kind: str) -> None:
    def run(cell: Any) -> Any:
        x = torch.randn(6, B, I, dtype=torch.float64).requires_grad_()
        loss = loss_of(steps(cell, x))
        found = list(torch.autograd.grad(loss, x, retain_graph=True))
        found += torch.autograd.grad(loss, [cell.bias_hh], retain_graph=True)
        found += torch.autograd.grad(loss, [x, cell.weight_ih], retain_graph=True)
        loss.backward(inputs=[cell.weight_hh], retain_graph=True)
        found.append(cell.weight_hh.grad.clone())
        loss.backward()
        loss_of(steps(cell, x)).backward()  # another loop
        return [*found, x.grad, *grads(cell)]

    of_both(kind, run)


def test_passes_that_do_not_ask_leave_nothing() -> None:
    cell, _ = twins("LSTMCell", I, H)
    x = torch.randn(6, B, I, dtype=torch.float64).requires_grad_()
    loss = loss_of(steps(cell, x))
    loop = cell._core_engine.loop()
    for _ in range(3):
        torch.autograd.grad(loss, x, retain_graph=True)
    assert not loop._sums._of_passes
    loss.backward()
    assert not loop._sums._of_passes
    del loss, loop
    assert cell._core_engine.loop() is None  # it goes with the graph


@of_kinds
def test_a_pass_that_fails_changes_no_other(kind: str) -> None:
    def run(cell: Any) -> Any:
        x = torch.randn(6, B, I, dtype=torch.float64)
        states = steps(cell, x)
        middle = tensors(states[2])[0]

        def fail(_: torch.Tensor) -> None:
            raise ValueError("a hook's")

        handle = middle.register_hook(fail)
        loss = loss_of(states)
        with pytest.raises(ValueError, match="a hook's"):
            loss.backward(retain_graph=True)
        handle.remove()
        cell.zero_grad()
        loss.backward()
        return grads(cell)

    of_both(kind, run)


@of_kinds
def test_weights_with_another_layout_in_the_backward_pass(kind: str) -> None:
    cell, other = twins(kind, I, H)
    x = torch.randn(6, B, I, dtype=torch.float64)
    loss = loss_of(steps(cell, x))
    cell.weight_hh.data = cell.weight_hh.data.t().contiguous().t()
    loss.backward()
    loss_of(steps(other, x)).backward()
    assert_alike(grads(cell), grads(other))


@of_kinds
def test_gradients_of_the_weights_gradients_are_refused(kind: str) -> None:
    cell, _ = twins(kind, I, H)
    x = torch.randn(6, B, I, dtype=torch.float64)
    loss_of(steps(cell, x)).backward()
    expected = grads(cell)
    found = torch.autograd.grad(loss_of(steps(cell, x)), list(cell.parameters()), create_graph=True)
    assert all(d.requires_grad for d in found)
    assert_alike([d.detach() for d in found], expected)
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        sum(d.square().sum() for d in found).backward()  # type: ignore[union-attr]


@of_kinds
def test_tied_cells_and_hooks_of_weights(kind: str) -> None:
    def run(cell: Any) -> Any:
        other = type(cell)(I, H, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(other, name, getattr(cell, name))
        calls = []
        cell.weight_ih.register_hook(lambda d: calls.append(1) or d * 3)
        x = torch.randn(6, B, I, dtype=torch.float64)
        states = steps(cell, x)
        loss_of(states + steps(other, x, states[-1])).backward()
        return [torch.tensor(len(calls)), *grads(cell)]

    of_both(kind, run)


def test_loops_in_several_threads() -> None:
    cell, other = twins("GRUCell", I, H)
    x = torch.randn(20, B, I, dtype=torch.float64)
    expected = torch.autograd.grad(loss_of(steps(other, x)), list(other.parameters()))
    got: list[Any] = []

    def work() -> None:
        parameters = list(cell.parameters())
        got.extend(torch.autograd.grad(loss_of(steps(cell, x)), parameters) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 20
    for found in got:
        assert_alike(found, expected)

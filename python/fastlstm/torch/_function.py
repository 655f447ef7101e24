"""What autograd sees of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _tapes
from ._engine import Call, States, changed, kind_of, no_transform
from ._internals import graph_is_kept, saved_tensors_hooks, tangents_are_possible

_requires_grad = attrgetter("requires_grad")


class Recurrent(torch.autograd.Function):
    """One call: the output and the final state of x, the initial state and the weights.

    The tape is the node's own. Where somebody has a say in what autograd saves (checkpoints,
    ``save_on_cpu``, hooks of users'), a token is saved with the other tensors instead: who drops it
    drops the tape, and if only a copy comes back, the call is computed again.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, states: int, x: Tensor, *tensors: Tensor) -> Any:
        output, final, tape = call.forward(x, tensors[:states], tensors[states:], taped=True)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.states = call, states
        ctx.kinds = [*map(kind_of, (x, *tensors))]
        if saved_tensors_hooks(False) is None:
            ctx.tape = tape
            ctx.save_for_backward(x, *tensors)
        else:
            ctx.tape = None
            ctx.save_for_backward(x, *tensors, _tapes.token(tape))
        return (output, *final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        # Once: it may be hooks that load them. An error if somebody has written to them.
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            tensors = (*saved, *gradients)
            return (None, None, *refusing_more(lambda: _gradients(ctx, saved, gradients), tensors))
        return (None, None, *_gradients(ctx, saved, gradients))


class _Gradients(torch.autograd.Function):
    """A backward pass as a node of its own, whose gradients nobody can have."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Any], *tensors: Any) -> Any:
        return tuple(compute())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise no_transform("gradients of gradients")


def refusing_more(
    compute: Callable[[], Sequence[Tensor | None]], tensors: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """The gradients that `compute` finds, as of a function of the tensors without derivatives."""
    found: Sequence[Tensor | None] = _Gradients.apply(compute, *tensors)
    return found


def _gradients(
    ctx: Any, saved: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Of x, the initial state and the weights, as they were saved, and a token if there is one."""
    call: Call = ctx.call
    needs = list(ctx.needs_input_grad[2:])
    if ctx.kinds != [*map(kind_of, saved[: len(needs)])]:  # by ``p.data = ...``, or a hook's
        raise changed()
    x, states, weights = saved[0], saved[1 : 1 + ctx.states], saved[1 + ctx.states : len(needs)]
    if call.steps == 1 and gradients[0] is None and gradients[1] is None:
        for k in call.engine.last_projections:  # of an h that nobody uses: None, as of torch's
            needs[1 + ctx.states + k] = False
    tape = ctx.tape
    if tape is None:
        tape = _tapes.find(saved[-1]) or call.again(x, states, weights)
    found = call.backward(tape, x, states, weights, gradients[0], gradients[1:], needs)
    if not graph_is_kept():
        ctx.tape = None  # as saved tensors go: the node may live on
    return found


_apply = super(torch.autograd.Function, Recurrent).apply  # for calls outside of transforms


def gradient_is_possible(x: Tensor, states: States, weights: Sequence[Tensor]) -> bool:
    """Whether somebody may ask for gradients.

    Raises
    ------
    RuntimeError
        One of the tensors is dual.
    """
    if tangents_are_possible() and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in (x, *states, *weights)
    ):
        raise no_transform("forward-mode gradients (dual tensors)")
    return torch.is_grad_enabled() and (
        x.requires_grad or any(map(_requires_grad, weights)) or any(map(_requires_grad, states))
    )


def run(
    call: Call, x: Tensor, states: States, weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The output and the final state; with a graph where gradients may be asked for."""
    if gradient_is_possible(x, states, weights):
        output, *final = _apply(call, len(states), x, *states, *weights)
        return output, final
    output, final, _ = call.forward(x, states, weights, taped=False)
    return output, final

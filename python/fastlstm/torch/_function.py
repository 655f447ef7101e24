"""What autograd sees of a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._engine import Call, States


class Recurrent(torch.autograd.Function):
    """One call: the output and the final state of x, the initial state and the weights."""

    @staticmethod
    def forward(ctx: Any, call: Call, states: int, x: Tensor, *tensors: Tensor) -> Any:
        output, final, ctx.tape = call.forward(x, tensors[:states], tensors[states:], taped=True)
        ctx.call, ctx.states = call, states
        ctx.save_for_backward(x, *tensors)
        ctx.set_materialize_grads(False)
        return (output, *final)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor | None, *d_final: Tensor | None) -> Any:
        x, *tensors = ctx.saved_tensors  # which checks that nobody has written to them
        states, weights = tensors[: ctx.states], tensors[ctx.states :]
        gradients = ctx.call.backward(
            ctx.tape,
            x,
            states,
            weights,
            None if d_output is None else d_output.contiguous(),
            [None if d is None else d.contiguous() for d in d_final],
            ctx.needs_input_grad[2:],
        )
        return (None, None, *gradients)


def run(
    call: Call, x: Tensor, states: States, weights: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The output and the final state; with a graph where gradients may be asked for."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights)):
        output, *final = Recurrent.apply(call, len(states), x, *states, *weights)
        return output, final
    output, final, _ = call.forward(x, states, weights, taped=False)
    return output, final

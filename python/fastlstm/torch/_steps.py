"""What autograd sees of a cell's steps.

A loop over a cell uses the same weights at every step. Autograd would add up their gradients step
by step, each as large as the weights. So the weights of a loop go through a node of their own,
``_Weights``: in the backward pass steps leave it the rows whose products are the gradients, and it
gives those of all steps at once, when autograd has come through the last one.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

from ._engine import Call, Engine, States, changed, kind_of
from ._function import gradient_is_possible, refusing_more, run
from ._internals import backward_pass, graph_is_kept, saved_tensors_hooks, will_run

_requires_grad = attrgetter("requires_grad")
_is_leaf = attrgetter("is_leaf")
_version = attrgetter("_version")


class _Sums:
    """What the steps of each backward pass have left for the gradients of some weights."""

    def __init__(self, engine: Engine, weights: Sequence[Tensor]) -> None:
        self.engine, self.weights = engine, weights
        self.required = [*map(_requires_grad, weights)]
        self.used = False  # in a backward pass
        self._kinds = [*map(kind_of, weights)]
        self._of_passes: dict[int, tuple[Any, list[Tensor | None]]] = {}

    def of_pass(self) -> Any:
        """What takes the rows of the backward pass that runs."""
        of_pass = self._of_passes.get(backward_pass())
        if of_pass is None:
            if self._kinds != [*map(kind_of, self.weights)]:  # by ``p.data = ...``
                raise changed()
            gradients = [
                torch.zeros_like(w, memory_format=torch.contiguous_format) if required else None
                for w, required in zip(self.weights, self.required, strict=True)
            ]
            of_pass = self.engine.collected(gradients), gradients
            self._of_passes[backward_pass()] = of_pass
        return of_pass[0]

    def finish(self) -> Sequence[Tensor | None]:
        """The gradients that the backward pass has collected."""
        self.used = True
        collected, gradients = self._of_passes.pop(backward_pass(), (None, None))
        if collected is None or gradients is None:
            return (None,) * len(self.weights)
        collected.finish()
        return gradients


class _Weights(torch.autograd.Function):
    """The weights of a loop: a token for its steps, whose gradient is never asked for."""

    @staticmethod
    def forward(ctx: Any, sums: _Sums, *weights: Tensor) -> Tensor:
        ctx.sums = sums
        ctx.set_materialize_grads(False)
        return weights[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            return (None, *refusing_more(ctx.sums.finish, ctx.sums.weights))
        return (None, *ctx.sums.finish())


class Loop:
    """Steps of a cell with the same values of the same weights.

    It lives as long as the graph of one of its steps. The next loop has a node of its own once this
    one's has run, as those who count on the order of a backward pass's nodes expect.
    """

    def __init__(self, engine: Engine, weights: Sequence[Tensor], version: int) -> None:
        self.weights, self.version = weights, version
        self._sums = _Sums(engine, weights)
        self.token: Tensor = _Weights.apply(self._sums, *weights)
        self._node: Any = self.token.grad_fn

    def goes_on(self, weights: Sequence[Tensor], version: int) -> bool:
        """Whether a step with these weights belongs to it."""
        return (
            self.version == version
            and not self._sums.used
            and all(map(is_, self.weights, weights))
            and self._sums.required == [*map(_requires_grad, weights)]
        )

    def collected(self) -> Any:
        """What takes this step's rows; None: nobody asks for gradients of the weights."""
        return self._sums.of_pass() if will_run(self._node) else None

    def check(self) -> None:
        """Raise the error of autograd's for weights that were written to since the step."""
        if sum(map(_version, self.weights)) != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation: a weight of a cell, after the step whose gradient is computed"
            )


def _loop(engine: Engine, weights: Sequence[Tensor]) -> Loop | None:
    """The loop that a step with these weights belongs to.

    None: autograd has to know the step's weights themselves. They are no leaves, or somebody looks
    at what is saved.
    """
    if saved_tensors_hooks(False) is not None:
        return None
    try:
        version = sum(map(_version, weights))
    except RuntimeError:  # inference tensors have none
        return None
    last: Loop | None = engine.loop()
    if last is not None and last.goes_on(weights, version):
        return last
    if not all(map(_is_leaf, weights)) or not any(map(_requires_grad, weights)):
        return None
    loop = Loop(engine, weights, version)
    engine.loop = weakref.ref(loop)
    return loop


class _Step(torch.autograd.Function):
    """One step: the final state of x and the initial state, with the weights of a loop."""

    @staticmethod
    def forward(ctx: Any, call: Call, loop: Loop, _: Tensor, x: Tensor, *states: Tensor) -> Any:
        _, final, ctx.tape = call.forward(x, states, loop.weights, taped=True)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.loop = call, loop
        ctx.kinds = [*map(kind_of, (x, *states))]
        ctx.save_for_backward(x, *states)
        return tuple(final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, *states = ctx.saved_tensors  # an error if somebody has written to them
        if torch.is_grad_enabled():  # create_graph=True
            tensors = (ctx.loop.token, x, *states, *gradients)
            found = refusing_more(lambda: _gradients(ctx, x, states, gradients), tensors)
        else:
            found = _gradients(ctx, x, states, gradients)
        return (None, None, None, *found)


def _gradients(
    ctx: Any, x: Tensor, states: States, gradients: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    call, loop = ctx.call, ctx.loop
    if ctx.kinds != [*map(kind_of, (x, *states))]:
        raise changed()
    loop.check()
    found: Sequence[Tensor | None] = call.backward(
        ctx.tape, x, states, (), None, gradients, ctx.needs_input_grad[3:], loop.collected()
    )
    if not graph_is_kept():
        ctx.tape = None  # as saved tensors go: the node may live on
    return found


_apply = super(torch.autograd.Function, _Step).apply  # for calls outside of transforms


def run_step(call: Call, x: Tensor, states: States, weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """The final state of a step; with a graph where gradients may be asked for."""
    if not gradient_is_possible(x, states, weights):
        return call.forward(x, states, weights, taped=False)[1]
    loop = _loop(call.engine, weights) if call.engine.collects else None
    if loop is None:
        return run(call, x, states, weights)[1]
    final: Sequence[Tensor] = _apply(call, loop, loop.token, x, *states)
    return final

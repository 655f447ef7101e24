"""The core's calls as operators of PyTorch: what graphs are made of.

``fastlstm::forward`` is one call of a layer, ``fastlstm::backward`` its gradients. They are
functions of their arguments: graphs may copy, move, save and repeat them. Eager calls do not come
here.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, library
from torch.multiprocessing.reductions import StorageWeakRef

from fastlstm import layers
from fastlstm._checks import as_lengths, check_shape, shape_text
from fastlstm.layers.spec import Spec

from . import _tapes
from ._engine import BATCH_FIRST, PACKED, Call, Engine, is_plain, no_transform, refuse_batched
from ._internals import below_autograd, tangents_are_possible, transforms_are_active
from ._lengths import lengths_of
from ._tracing import untraced

# x: (T, B, I), (B, T, I) or packed rows, as `order` says; states: none are zeros.
# lengths: (B,), int64; of packed rows the batch sizes, (T,).
# seed: int64, of a training call and what regularises it; without, as in inference.
# layer, numbers: of `describe`.
# taped: keep what backward reads; without, backward computes it again.
_FORWARD = """forward(
    Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, Tensor? seed,
    str layer, float[] numbers, int order, bool taped
) -> (Tensor output, Tensor[] final, Tensor token)"""
# needed: of x, the states and the weights; the gradients of those come back, in order.
_BACKWARD = """backward(
    Tensor token, Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, Tensor? seed,
    str layer, float[] numbers, int order, Tensor? d_output, Tensor?[] d_final, bool[] needed
) -> Tensor[]"""


def describe(kind: str, options: Mapping[str, Any]) -> tuple[str, list[float]]:
    """A layer as operators are told of it: ``LSTM(input_size=3, dropout=...)`` and the numbers.

    options: those at their defaults may be left out; the dtype is that of x. Numbers stay apart:
    a tracer may not know them, and what it makes takes others without being compiled again.
    """
    numbers: list[float] = []
    described = [f"{name}={_described(value, numbers)}" for name, value in options.items()]
    return f"{kind}({', '.join(described)})", numbers


def _described(value: Any, numbers: list[float]) -> str:
    if isinstance(value, tuple):
        return "(" + "".join([_described(part, numbers) + ", " for part in value]) + ")"
    if isinstance(value, float):
        numbers.append(value)
        return "..."
    return repr(value)


def _with(value: Any, numbers: Iterator[float]) -> Any:
    if isinstance(value, tuple):
        return tuple([_with(part, numbers) for part in value])
    return next(numbers) if value is ... else value


@lru_cache(maxsize=256)
def _spec(layer: str, numbers: tuple[float, ...], dtype: torch.dtype) -> Spec:
    described: Any = ast.parse(layer, mode="eval").body
    rest = iter(numbers)
    options = {
        option.arg: _with(ast.literal_eval(option.value), rest) for option in described.keywords
    }
    options["dtype"] = str(dtype).removeprefix("torch.")
    return layers.make_spec(layers.LAYERS[described.func.id], options)


def cell_parameters(layer: str) -> list[str]:
    """The names of one cell's parameters, in the core's order."""
    return list(_spec(layer, (0.5,) * layer.count("..."), torch.float32).parameters[0])


# As torch.compiler.assume_constant_result, which would import Dynamo: it is a function of text.
cell_parameters._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _shapes(layer: str, numbers: Sequence[float], dtype: torch.dtype) -> Spec:
    """A spec of the same shapes: they do not depend on numbers, which may be unknown."""
    return _spec(layer, (0.5,) * len(numbers), dtype)


# Of the latest layers, by their first weight's memory: packed weights stay packed between calls,
# though graphs have no object that could keep them. Single operations on it are atomic; two threads
# that meet make one engine too many.
_engines: dict[Hashable, tuple[Engine, StorageWeakRef]] = {}
_MOST_ENGINES = 64


def _engine(layer: str, numbers: Sequence[float], weights: Sequence[Tensor]) -> Engine:
    first = weights[0]
    key = layer, *numbers, first.dtype, first.data_ptr()
    found = _engines.get(key)
    if found is not None:
        return found[0]
    for other, (_, memory) in list(_engines.items()):
        if memory.expired():
            _engines.pop(other, None)
    for other in list(_engines)[: 1 - _MOST_ENGINES]:
        _engines.pop(other, None)
    engine = Engine(_spec(layer, tuple(numbers), first.dtype))
    _engines[key] = engine, StorageWeakRef(first.untyped_storage())
    return engine


def _call(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
) -> tuple[Call, tuple[Tensor, ...]]:
    """The call, and the weights as the core reads them.

    Everything is checked: graphs run on whatever they are given.
    """
    engine = _engine(layer, numbers, weights)
    spec, I = engine.spec, engine.spec.input_size
    readable = engine.readable(tuple(weights))
    if readable is None:
        expected = ", ".join(map(shape_text, spec.shapes.values()))
        raise ValueError(f"weights: expected {expected} of one type on the CPU, got others")
    if order == PACKED:
        _check("x", x, engine, ("rows", I))
        if spec.merge is None:
            raise ValueError("merge: expected a merged output for packed rows, got None")
        sizes, lengths = lengths, None
        if sizes is not None:
            lengths = lengths_of(sizes, x.shape[0])
        if sizes is None or lengths is None:
            raise ValueError(f"lengths: expected batch sizes of {x.shape[0]} rows, got {sizes}")
        T, B = len(sizes), len(lengths)
    else:
        _check("x", x, engine, ("B", "T", I) if order == BATCH_FIRST else ("T", "B", I))
        B, T = x.shape[:2] if order == BATCH_FIRST else x.shape[1::-1]
        if lengths is not None:
            lengths = torch.from_numpy(as_lengths(lengths.numpy(), B, T))
    if T == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")  # as torch does
    shapes = engine.state_shapes(B)
    if states and len(states) != len(shapes):
        raise ValueError(f"states: expected none or {len(shapes)}, got {len(states)}")
    for (name, _), state, shape in zip(spec.state_parts, states, shapes, strict=False):
        _check(name, state, engine, shape)
    regularisation = None
    if seed is not None:
        regularisation = {**spec.training, "seed": int(seed), "zoneout": True}
    return Call(engine, T, B, order, lengths, regularisation), readable


def _check(name: str, tensor: Tensor, engine: Engine, shape: Sequence[int | str]) -> None:
    if not is_plain(tensor) or tensor.dtype is not engine.dtype:
        raise TypeError(
            f"{name}: expected a CPU tensor of {engine.dtype}, as the weights, got {tensor.dtype} "
            f"on {tensor.device}"
        )
    check_shape(name, cast(Any, tensor), shape)


@untraced
def _forward(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
    taped: bool,
) -> tuple[Tensor, list[Tensor], Tensor]:
    call, weights = _call(x, states, weights, lengths, seed, layer, numbers, order)
    output, final, tape = call.forward(x, states, weights, taped=taped)
    return output, final, _tapes.token(tape)


@untraced
def _backward(
    token: Tensor,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
    d_output: Tensor | None,
    d_final: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor]:
    call, weights = _call(x, states, weights, lengths, seed, layer, numbers, order)
    tape = _tapes.find(token) or call.again(x, states, weights)
    gradients = call.backward(tape, x, states, weights, d_output, d_final, needed)
    return [d for d in gradients if d is not None]


def _forward_fake(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
    taped: bool,
) -> tuple[Tensor, list[Tensor], Tensor]:
    spec = _shapes(layer, numbers, x.dtype)
    if order != PACKED:
        B = x.shape[0 if order == BATCH_FIRST else 1]
    elif states:
        B = states[0].shape[1]
    else:  # the first batch size
        B = library.get_ctx().new_dynamic_size()
    output = x.new_empty((*x.shape[:-1], spec.core_output_size))
    final = [x.new_empty((spec.cells, B, width)) for _, width in spec.state_parts]
    return output, final, _tapes.empty_token(x)


def _backward_fake(
    token: Tensor,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
    d_output: Tensor | None,
    d_final: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor]:
    inputs = (x, *states, *weights)
    return [t.new_empty(t.shape) for t, n in zip(inputs, needed, strict=True) if n]


class _Differentiable(torch.autograd.Function):
    """What autograd sees of ``fastlstm::forward``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        lengths: Tensor | None,
        seed: Tensor | None,
        layer: str,
        numbers: Sequence[float],
        order: int,
        taped: bool,
        states: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        with below_autograd():
            output, final, token = torch.ops.fastlstm.forward(
                x, tensors[:states], tensors[states:], lengths, seed, layer, numbers, order, taped
            )
        ctx.layer, ctx.numbers, ctx.order, ctx.states = layer, numbers, order, states
        ctx.mark_non_differentiable(token)
        ctx.save_for_backward(token, lengths, seed, x, *tensors)
        ctx.set_materialize_grads(False)
        return output, token, *final

    @staticmethod
    @untraced
    def backward(ctx: Any, d_output: Tensor | None, _: None, *d_final: Tensor | None) -> Any:
        refuse_batched((d_output, *d_final))
        token, lengths, seed, x, *tensors = ctx.saved_tensors
        states, weights = tensors[: ctx.states], tensors[ctx.states :]
        before = len(ctx.needs_input_grad) - len(tensors)
        needed = [ctx.needs_input_grad[0], *ctx.needs_input_grad[before:]]
        gradients = iter(
            torch.ops.fastlstm.backward(
                *(token, x, states, weights, lengths, seed, ctx.layer, ctx.numbers, ctx.order),
                *(d_output, d_final, needed),
            )
        )
        d_x, *d_tensors = [next(gradients) if n else None for n in needed]
        return d_x, *[None] * (before - 1), *d_tensors

    @staticmethod
    def jvp(*arguments: Any) -> NoReturn:
        raise no_transform("forward-mode gradients (dual tensors)")


def _refuse_vmap(*arguments: Any) -> NoReturn:
    raise no_transform("vmap")


def _refuse_twice(*arguments: Any) -> NoReturn:
    raise no_transform("gradients of gradients (create_graph)")


@untraced
def _forward_autograd(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    layer: str,
    numbers: Sequence[float],
    order: int,
    taped: bool,
) -> tuple[Tensor, list[Tensor], Tensor]:
    if transforms_are_active():
        raise no_transform("transforms of torch.func")
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    if not needed and not tangents_are_possible():  # as calls in compiled code: the short way
        with below_autograd():
            result: tuple[Tensor, list[Tensor], Tensor] = torch.ops.fastlstm.forward(
                x, states, weights, lengths, seed, layer, numbers, order, taped
            )
        return result
    output, token, *final = _Differentiable.apply(
        x, lengths, seed, layer, numbers, order, taped, len(states), *states, *weights
    )
    return output, final, token


def _register() -> library.Library:
    operators = library.Library("fastlstm", "DEF")
    for schema, kernel, fake in (
        (_FORWARD, _forward, _forward_fake),
        (_BACKWARD, _backward, _backward_fake),
    ):
        name = schema.split("(")[0]
        # Results of a graph's operators may be kept in any layout; inputs come as they are.
        operators.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        operators.impl(name, kernel, "CPU")
        library.register_fake(f"fastlstm::{name}", fake, lib=operators)
        library.register_vmap(f"fastlstm::{name}", _refuse_vmap, lib=operators)
    operators.impl("forward", _forward_autograd, "Autograd")
    library.register_autograd("fastlstm::backward", _refuse_twice, lib=operators)
    return operators


_operators = _register()

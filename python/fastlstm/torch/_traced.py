"""Calls that become part of a graph, by operators, in words that tracers follow.

There are no values yet: nothing here branches on any, and memory is the operators' to look at. To
torch.jit.trace shapes are values, too: the operators check them when they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _ops
from ._engine import BATCH_FIRST, PACKED, TIME_FIRST
from ._lengths import Places

# Options of ours that draw in training.
_RANDOM = ("recurrent_dropout", "zoneout", "weight_dropout")


class Layer(NamedTuple):
    """What a module is to the operators."""

    kind: str
    """The name of the class in :mod:`fastlstm.layers`."""
    options: dict[str, Any]
    names: Sequence[str] | None
    """Those of the weights, in the core's order; None: of a cell."""


def sequences(
    module: Any,
    layer: Layer,
    lowered: tuple[bool, bool],
    input: Any,
    hx: Any,
    lengths: Any,
    padding: str,
) -> Any:
    """What an LSTM, GRU or RNN gives; None: torch's own has to compute, or to say what is wrong."""
    states = _parts(hx)
    if len(states) not in (0, _count(layer)):
        return None
    if isinstance(input, PackedSequence):
        if lengths is not None:
            raise ValueError("lengths: expected None for a PackedSequence, which has its own")
        return _packed(module, layer, lowered[1], input, states)
    x, batch_first = input, module.batch_first
    if x.dim() not in (2, 3):
        return None
    batched = x.dim() == 3
    if not batched:
        if lengths is not None:
            raise ValueError("lengths: expected None for a sequence without a batch")
        if any(state.dim() != 2 for state in states):
            return None
        x = x.unsqueeze(0 if batch_first else 1)
        states = [state.unsqueeze(1) for state in states]
    if states and not torch.jit.is_tracing():
        module.check_forward_args(x, states[0] if len(states) == 1 else tuple(states), None)
    elif not torch.jit.is_tracing():
        module.check_input(x, None)
    places = None
    if lengths is not None:
        if not isinstance(lengths, Tensor):
            lengths = torch.tensor(lengths, device="cpu")
        if padding == "pre":
            places = Places(x.shape[1 if batch_first else 0], lengths, batch_first)
            x = places.to_start(x)
    order = BATCH_FIRST if batch_first else TIME_FIRST
    result = _call(module, layer, x, states, lengths, order, lowered[0])
    if result is None:
        return None
    output, final = result
    if places is not None:
        output = places.back(output)
    if not batched:
        output = output.squeeze(-3 if batch_first else -2)
        final = [part.squeeze(1) for part in final]
    if module.merge is None:
        output = torch.stack(output.chunk(2, -1))
    return output, _state(final)


def step(module: Any, layer: Layer, lowered: bool, x: Tensor, hx: Any) -> Any:
    """What a cell gives; None: as of :func:`sequences`."""
    states = _parts(hx)
    if x.dim() not in (1, 2) or len(states) not in (0, _count(layer)):
        return None
    if module.input_size == 0 or module.hidden_size == 0:
        return None
    if not torch.jit.is_tracing():
        shape = (*x.shape[:-1], module.hidden_size)
        if x.shape[-1] != module.input_size or any(state.shape != shape for state in states):
            return None
    missing = 3 - x.dim()  # axes: time, and the batch
    for _ in range(missing):
        x, states = x.unsqueeze(0), [state.unsqueeze(0) for state in states]
    result = _call(module, layer, x, states, None, TIME_FIRST, lowered)
    if result is None:
        return None
    final = result[1]
    for _ in range(missing):
        final = [part.squeeze(0) for part in final]
    return _state(final)


def _packed(
    module: Any, layer: Layer, lowered: bool, input: PackedSequence, states: Sequence[Tensor]
) -> Any:
    x, batch_sizes, sorted_indices, unsorted_indices = input
    if not torch.jit.is_tracing():
        module.check_input(x, batch_sizes)
    if sorted_indices is not None:
        states = [state.index_select(1, sorted_indices) for state in states]
    result = _call(module, layer, x, states, batch_sizes, PACKED, lowered)
    if result is None:
        return None
    output, final = result
    if unsorted_indices is not None:
        final = [part.index_select(1, unsorted_indices) for part in final]
    rows = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
    return rows, _state(final)


def _call(
    module: Any,
    layer: Layer,
    x: Tensor,
    states: Sequence[Tensor],
    lengths: Tensor | None,
    order: int,
    lowered: bool,
) -> tuple[Tensor, Sequence[Tensor]] | None:
    """The operator's output and final state; None: as of :func:`sequences`.

    lengths, order: the operator's. lowered: whether results under autocast are bfloat16.
    """
    if torch.onnx.is_in_onnx_export():  # ONNX has nodes for what torch's own is
        return None
    described, numbers = _ops.describe(layer.kind, layer.options)
    names = _ops.cell_parameters(described) if layer.names is None else layer.names
    weights: Sequence[Tensor] = [getattr(module, name) for name in names]
    dtype, casts = x.dtype, torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    if casts and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return None
    raised = casts or dtype == torch.bfloat16
    if dtype not in (torch.float32, torch.float64) and not raised:
        return None
    for tensor in (x, *states, *weights):
        fits = tensor.dtype in (torch.bfloat16, torch.float32) if casts else tensor.dtype == dtype
        if not fits or tensor.device.type != "cpu":
            return None
    if raised:
        x, states = x.float(), [state.float() for state in states]
        weights = [weight.float() for weight in weights]
    seed = None
    if module.training and _draws(layer.options):
        seed = torch.randint(2**63 - 1, (), device="cpu")
    taped = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    # What is saved runs in whatever mode: a backward pass not foreseen computes forward again.
    if torch.compiler.is_exporting():
        taped = taped and module.training
    elif torch.jit.is_tracing():  # which traces again, without gradients, to compare
        taped = module.training
    output, final, _ = torch.ops.fastlstm.forward(
        x, states, weights, lengths, seed, described, numbers, order, taped
    )
    if raised:
        dtype = torch.bfloat16 if casts and lowered else dtype
        output, final = output.to(dtype), [part.to(dtype) for part in final]
    return output, final


def _draws(options: dict[str, Any]) -> bool:
    rates = [options.get(name, 0.0) for name in _RANDOM]
    if options.get("num_layers", 1) > 1:
        rates.append(options["dropout"])
    return any(any(rate) if isinstance(rate, tuple) else rate for rate in rates)


def _count(layer: Layer) -> int:
    """How many parts a state has."""
    return 2 if layer.kind == "LSTM" else 1


def _parts(hx: Any) -> Sequence[Tensor]:
    if hx is None:
        return ()
    return hx if isinstance(hx, (tuple, list)) else (hx,)


def _state(parts: Sequence[Tensor]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)

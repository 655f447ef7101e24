"""Calls that become part of a graph: by operators, in what tracers can follow.

Such a call has no values yet: no branch depends on any, and memory is the operators' to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _ops
from ._engine import BATCH_FIRST, PACKED, TIME_FIRST

# Options that draw in training.
_RANDOM = ("dropout", "recurrent_dropout", "zoneout", "weight_dropout")


def computes(tensors: Sequence[Tensor]) -> bool:
    """Whether operators take these; if not, the graph has torch's own."""
    dtype = tensors[0].dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(t.dtype == dtype and t.device.type == "cpu" for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
    )


def call(
    module: Any,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    order: int,
) -> tuple[Tensor, list[Tensor]]:
    """The output and the final state of a module. The arguments are those of the operator."""
    options = module._options()
    seed = None
    if module.training and any(options.get(name) for name in _RANDOM):
        seed = torch.randint(2**63 - 1, (), device="cpu")
    taped = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        # Run in whatever mode: gradients, if asked for, compute forward again.
        taped = taped and module.training
    layer, numbers = _ops.describe(module._layer.__name__, options)
    output, final, _ = torch.ops.fastlstm.forward(
        x, states, weights, lengths, seed, layer, numbers, order, taped
    )
    return output, final


def forward(module: Any, input: Any, hx: Any, lengths: Any) -> Any:
    """What ``forward`` of an LSTM, GRU or RNN gives; None: torch's own has to."""
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    states = () if hx is None else tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
    weights = [getattr(module, name) for name in module._flat_weights_names]
    if not computes([x, *states, *weights]):
        return None
    if packed:
        if input.sorted_indices is not None:
            states = [state.index_select(1, input.sorted_indices) for state in states]
        output, final = call(module, x, states, weights, input.batch_sizes, PACKED)
        if input.unsorted_indices is not None:
            final = [part.index_select(1, input.unsorted_indices) for part in final]
        output = PackedSequence(
            output, input.batch_sizes, input.sorted_indices, input.unsorted_indices
        )
        return output, _state(final)
    if x.dim() not in (2, 3):
        raise ValueError(
            f"{module._get_name()}: Expected input to be 2D or 3D, got {x.dim()}D instead"
        )
    batched, batch_axis = x.dim() == 3, 0 if module.batch_first else 1
    if not batched:
        x = x.unsqueeze(batch_axis)
        states = [state.unsqueeze(1) for state in states]
    module.check_input(x, None)
    if states:
        module.check_forward_args(x, states[0] if len(states) == 1 else tuple(states), None)
    if lengths is not None:
        lengths = torch.as_tensor(lengths, dtype=torch.int64)
    order = BATCH_FIRST if module.batch_first else TIME_FIRST
    output, final = call(module, x, states, weights, lengths, order)
    if not batched:
        output = output.squeeze(batch_axis)
        final = [part.squeeze(1) for part in final]
    return output, _state(final)


def _state(parts: Sequence[Tensor]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)

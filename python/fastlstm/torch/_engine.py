"""Calls of the core on the memory of tensors: checked where they come from, not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastlstm._blas import require_blas
from fastlstm._runtime import num_threads
from fastlstm.layers.spec import Spec

from ._borrowed import make_borrowed

States: TypeAlias = Sequence[Tensor]

TIME_FIRST, BATCH_FIRST, PACKED = range(3)


class Engine:
    """What a module is to the core: its spec, and packed weights that follow those of tensors.

    Attributes
    ----------
    spec : Spec
        Of the layer that computes the same.
    dtype : torch.dtype
        Of the tensors.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.dtype = getattr(torch, spec.dtype.name)
        self._borrowed = make_borrowed(spec.dtype, spec.config)

    def stack(self, weights: Sequence[Tensor]) -> Any:
        """The stack of the weights' values now."""
        version = -1
        if not any(weight.is_inference() for weight in weights):
            version = sum([weight._version for weight in weights])
        return self._borrowed.stack([weight.data_ptr() for weight in weights], version)


class Call:
    """What stays the same in the forward and the backward pass of one call.

    Attributes
    ----------
    steps, batch : int
        T and B.
    order : int
        How `x` and the output lie: TIME_FIRST, BATCH_FIRST or PACKED.
    lengths : Tensor or None
        (B,) int64; of packed rows they do not increase.
    regularisation : dict or None
        What the core is told of a training call; None: as in inference.
    """

    __slots__ = ("batch", "engine", "lengths", "order", "regularisation", "steps")

    def __init__(
        self,
        engine: Engine,
        steps: int,
        batch: int,
        order: int,
        lengths: Tensor | None,
        regularisation: dict[str, Any] | None,
    ) -> None:
        self.engine = engine
        self.steps, self.batch, self.order = steps, batch, order
        self.lengths = lengths
        self.regularisation = regularisation

    def forward(
        self, x: Tensor, states: States, weights: Sequence[Tensor], *, taped: bool
    ) -> tuple[Tensor, list[Tensor], Any]:
        """The output, the final state, and a tape for :meth:`backward` if asked for.

        x, states: contiguous, of the engine's dtype; no states are zeros.
        """
        spec = self.engine.spec
        x = x.detach()
        output = x.new_empty((*x.shape[:-1], spec.directions * spec.output_size))
        final = [x.new_empty((spec.cells, self.batch, width)) for _, width in spec.state_parts]
        with num_threads(torch.get_num_threads()):
            stack = self.engine.stack(weights)
            arguments = (
                x.data_ptr(),
                self.steps,
                self.batch,
                self.order,
                0 if self.lengths is None else self.lengths.data_ptr(),
                tuple([state.data_ptr() for state in states]) or None,
                output.data_ptr(),
                tuple([part.data_ptr() for part in final]),
            )
            if not taped:
                stack.forward_at(*arguments)
                return output, final, None
            regularisation = self.regularisation or {
                **dict.fromkeys(spec.training, 0.0),
                "seed": 0,
                "zoneout": False,
            }
            return output, final, stack.forward_train_at(*arguments, regularisation, 0)

    def backward(
        self,
        tape: Any,
        x: Tensor,
        states: States,
        weights: Sequence[Tensor],
        d_output: Tensor | None,
        d_final: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients of x, the states and the weights, of those that `needs` asks for, in order.

        d_output, d_final: contiguous; None is zeros.
        """
        wanted = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) if needed else None
            for tensor, needed in zip((x, *states, *weights), needs, strict=True)
        ]
        d_x, d_states, d_weights = wanted[0], wanted[1 : 1 + len(states)], wanted[1 + len(states) :]
        asked = any(needs[1 : 1 + len(states)])
        d_initial = [
            torch.empty_like(state) if part is None else part
            for state, part in zip(states, d_states, strict=True)
        ]
        require_blas()
        with num_threads(torch.get_num_threads()):
            tape.backward_at(
                address(d_output),
                tuple(map(address, d_final)),
                address(d_x),
                tuple(map(address, d_initial)) if asked else None,
                tuple(map(address, d_weights)),
            )
        return wanted


def address(tensor: Tensor | None) -> int:
    """Where a tensor's values are; 0: nowhere."""
    return 0 if tensor is None else tensor.data_ptr()

"""LSTMCell, GRUCell and RNNCell: torch's modules of one step with our calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastlstm import layers
from fastlstm.layers.spec import Spec

from . import _traced
from ._base import Computed, Ready, initial_state
from ._engine import TIME_FIRST, Call, UnreadableError
from ._function import run
from ._steps import run_step
from ._tracing import is_traced, untraced


class Cell(Computed, nn.RNNCellBase):
    """What the three share: torch's module, computed by the core where it can be."""

    _core_of_sequences = False
    # Whether autocast to bfloat16 gives that, as of torch's module; otherwise the input's type.
    _core_lowered: bool

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Compute the state after one step.

        Parameters
        ----------
        input : Tensor
            (B, I), or (I,) without a batch.
        hx : Tensor or tuple of Tensor, optional
            The state before: (B, H), or (H,); of an LSTM h and c. Zeros by default.

        Returns
        -------
        Tensor or tuple of Tensor
            The state after it, as `hx`.

        Raises
        ------
        ValueError, RuntimeError
            As of torch's module.
        """
        if is_traced():
            result = _traced.step(self, self._core_traced_as(), self._core_lowered, input, hx)
        else:
            result = self._core_compute(input, hx)
        return self._core_others(input, hx) if result is None else result

    @untraced
    def _core_compute(self, input: Any, hx: Any) -> Any:
        result = self._core_quick(input, hx)
        if result is not None:
            return result
        # torch's cells may be without inputs or units.
        ready = self._core_ready(input) if self.input_size and self.hidden_size else None
        return None if ready is None else self._core_run(ready, input, hx)

    def _core_quick(self, x: Any, hx: Any) -> Any:
        """The result of a call as most are; None: it is none, or the first of its shape."""
        usual = self._core_usual(x, hx)
        if usual is None:
            return None
        call, states, weights = usual
        try:
            return self._core_state(run_step(call, x, states, weights))
        except UnreadableError:
            return None

    def _core_run(self, ready: Ready, x: Tensor, hx: Any) -> Any:
        """The result; None: torch's own implementation computes, or says what is wrong."""
        engine = ready.engine
        batch = x.shape[:-1]
        if x.dim() not in (1, 2) or 0 in batch or x.shape[-1] != self.input_size:
            return None
        shapes = [(*batch, self.hidden_size)] * len(engine.spec.state_parts)
        states = initial_state(hx, x, shapes)
        if states is None:
            return None
        B = batch[0] if batch else 1
        noise = self._core_regularisation(engine, 0.0)
        call = Call(engine, 1, B, TIME_FIRST, None, noise, shapes, single=True)
        if ready.raised:
            dtype = torch.bfloat16 if self._core_lowered else x.dtype
            raised = [state.float() for state in states]
            final = run(call, x.float(), raised, ready.weights)[1]
            return self._core_state([part.to(dtype) for part in final])
        if noise is None:
            engine.remember(self._core_key(x), call)
        return self._core_state(run_step(call, x, states, ready.weights))

    def _core_names(self, spec: Spec) -> list[str]:
        return list(spec.parameters[0])


class LSTMCell(Cell, nn.LSTMCell):
    """``torch.nn.LSTMCell``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.LSTMCell``, in the same order.
    forget_bias, peepholes, input_forget, clip, activations, layer_norm, zoneout
        As of :class:`fastlstm.LSTM`, by keyword: see :class:`fastlstm.torch.LSTM`.

    Examples
    --------
    >>> cell = fastlstm.torch.LSTMCell(8, 16)
    >>> h, c = cell(torch.zeros(3, 8))
    >>> h, c = cell(torch.zeros(3, 8), (h, c))
    >>> h.shape
    torch.Size([3, 16])
    """

    _core_layer = layers.LSTM
    _core_lowered = False


class GRUCell(Cell, nn.GRUCell):
    """``torch.nn.GRUCell``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.GRUCell``, in the same order.
    reset_after, clip, activations, zoneout
        As of :class:`fastlstm.GRU`, by keyword: see :class:`fastlstm.torch.LSTM`.
    """

    _core_layer = layers.GRU
    _core_lowered = False


class RNNCell(Cell, nn.RNNCell):
    """``torch.nn.RNNCell``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As of ``torch.nn.RNNCell``, in the same order.
    clip, activations, zoneout
        As of :class:`fastlstm.RNN`, by keyword: see :class:`fastlstm.torch.LSTM`.
    """

    _core_layer = layers.RNN
    _core_lowered = True

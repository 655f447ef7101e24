"""LSTM, GRU and RNN: torch's modules with our calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastlstm import layers
from fastlstm._checks import as_lengths

from . import _traced
from ._base import Computed, Ready, initial_state
from ._engine import BATCH_FIRST, PACKED, TIME_FIRST, Call, Engine, Shape, UnreadableError, resolved
from ._function import run
from ._lengths import Places, lengths_of
from ._tracing import is_traced, untraced


class Recurrent(Computed, nn.RNNBase):
    """What the three share: torch's module, computed by the core where it can be."""

    # Whether autocast to bfloat16 gives that, for padded and for packed sequences, as of torch's
    # module; otherwise the output has the input's type.
    _core_lowered: tuple[bool, bool]

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, padding: str = "post"
    ) -> Any:
        """Compute the output and the final state.

        Parameters
        ----------
        input : Tensor or PackedSequence
            As of torch's module.
        hx : Tensor or tuple of Tensor, optional
            As of torch's module.
        lengths : Tensor or sequence of int, optional
            (B,) in any order, 0 <= length <= T: the steps that each sequence really has. Output
            past a sequence's end is zero, the final state is the one at its end, the second
            direction starts there, and a length of 0 returns its initial state. Not with a
            PackedSequence, nor without a batch.
        padding : "post" or "pre"
            Where the other steps are: after a sequence's end, or before its start.

        Returns
        -------
        output : Tensor or PackedSequence
            As of torch's module; contiguous, also with ``batch_first``.
        state : Tensor or tuple of Tensor
            As of torch's module.

        Raises
        ------
        ValueError, RuntimeError
            As of torch's module.
        ValueError, TypeError
            `lengths` or `padding` are something else.
        RuntimeError
            Neither we nor torch's module can compute this (docs/pytorch.md).
        """
        if padding not in ("post", "pre"):
            raise ValueError(f"padding: expected 'post' or 'pre', got {padding!r}")
        # Of self first: Dynamo, if it may not look at it, gives up where nothing has begun yet.
        if self._core_layer is not None and is_traced():
            result = _traced.sequences(
                self, self._core_traced_as(), self._core_lowered, input, hx, lengths, padding
            )
        else:
            result = self._core_compute(input, hx, lengths, padding)
        if result is None:
            options = {} if lengths is None else {"lengths": lengths}
            options.update({} if padding == "post" else {"padding": padding})
            return self._core_others(input, hx, **options)
        return result

    @untraced
    def _core_compute(self, input: Any, hx: Any, lengths: Any, padding: str) -> Any:
        """The results; None: torch's own has to compute, or to say what is wrong."""
        if lengths is None:
            result = self._core_quick(input, hx)
            if result is not None:
                return result
        packed = isinstance(input, PackedSequence)
        x = resolved(input.data if packed else input)
        if not packed:
            input = x
        elif x is not input.data:
            input = input._replace(data=x)
        hx = tuple(map(resolved, hx)) if isinstance(hx, (tuple, list)) else resolved(hx)
        ready = self._core_ready(x)
        if ready is None:
            return None
        if not packed:
            return self._core_run(ready, input, hx, lengths, padding)
        if lengths is not None:
            raise ValueError("lengths: expected None for a PackedSequence, which has its own")
        return self._core_run_packed(ready, input, hx)

    def _core_key(self, x: Tensor) -> Any:
        return x.shape, self.batch_first

    def _core_quick(self, x: Any, hx: Any) -> Any:
        """The results of a call as most are; None: it is none, or the first of its shape."""
        usual = self._core_usual(x, hx)
        if usual is None or not x.is_contiguous() or self._core_drops():
            return None
        call, states, weights = usual
        try:
            output, final = run(call, x, states, weights)
        except UnreadableError:
            return None
        return output, self._core_state(final)

    def _core_drops(self) -> bool:
        """Whether there is dropout between layers."""
        return bool(self.training and self.dropout and self.num_layers > 1)

    def _core_run(self, ready: Ready, x: Tensor, hx: Any, lengths: Any, padding: str) -> Any:
        """The results for a tensor; None: torch's own has to compute, or to say what is wrong."""
        engine = ready.engine
        T, B = 0, 1
        batch_first = False
        shapes: Sequence[Shape]
        if x.dim() == 3:
            batch_first = self.batch_first
            (B, T) = x.shape[:2] if batch_first else x.shape[1::-1]
            shapes = engine.state_shapes(B)
        elif x.dim() == 2:
            T = x.shape[0]
            shapes = [(cells, width) for cells, _, width in engine.state_shapes(1)]
            if lengths is not None:
                raise ValueError("lengths: expected None for a sequence without a batch")
        else:
            return None
        if T == 0 or B == 0 or x.shape[-1] != self.input_size:
            return None
        states = initial_state(hx, x, shapes)
        if states is None:
            return None
        places = None
        if lengths is not None:
            lengths = torch.from_numpy(as_lengths(lengths, B, T))
            if padding == "pre":
                places = Places(T, lengths, batch_first)
                x = places.to_start(x)
        # What others transposed to have batches first lies as the core takes it, too.
        turned = batch_first and not x.is_contiguous() and x.transpose(0, 1).is_contiguous()
        if turned:
            x = x.transpose(0, 1)
        order = BATCH_FIRST if batch_first and not turned else TIME_FIRST
        noise = self._core_noise(engine)
        call = Call(engine, T, B, order, lengths, noise, shapes)
        usual = not ready.raised and noise is None and engine.spec.merge is not None
        if usual and lengths is None and not turned:
            engine.remember(self._core_key(x), call)
        output, final = self._core_computed(ready, call, x, states, packed=False)
        if turned:
            output = output.transpose(-3, -2)
        if places is not None:
            output = places.back(output)
        if engine.spec.merge is None:
            output = output.unflatten(-1, (2, -1)).movedim(-2, 0)
        return output, self._core_state(final)

    def _core_run_packed(self, ready: Ready, input: PackedSequence, hx: Any) -> Any:
        """The same for packed rows, which are what the core computes with."""
        x, batch_sizes, sorted_indices, unsorted_indices = input
        engine = ready.engine
        if x.dim() != 2 or x.shape[1] != self.input_size:
            return None
        lengths = lengths_of(batch_sizes, x.shape[0])
        if lengths is None:
            return None
        if engine.spec.merge is None:
            raise ValueError("merge: expected a merged output for a PackedSequence, got None")
        B = len(lengths)
        states = initial_state(hx, x, engine.state_shapes(B))
        if states is None:
            return None
        if sorted_indices is not None:
            states = [state.index_select(1, sorted_indices) for state in states]
        call = Call(engine, len(batch_sizes), B, PACKED, lengths, self._core_noise(engine))
        output, final = self._core_computed(ready, call, x, states, packed=True)
        if unsorted_indices is not None:
            final = [part.index_select(1, unsorted_indices) for part in final]
        rows = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return rows, self._core_state(final)

    def _core_noise(self, engine: Engine) -> dict[str, Any] | None:
        return self._core_regularisation(engine, self.dropout if self.num_layers > 1 else 0.0)

    def _core_computed(
        self, ready: Ready, call: Call, x: Tensor, states: Sequence[Tensor], *, packed: bool
    ) -> tuple[Tensor, Sequence[Tensor]]:
        if not ready.raised:
            return run(call, x, states, ready.weights)
        dtype = torch.bfloat16 if self._core_lowered[packed] else x.dtype
        output, final = run(call, x.float(), [state.float() for state in states], ready.weights)
        return output.to(dtype), [part.to(dtype) for part in final]

    # --- parameters ---------------------------------------------------------------------------

    def _core_add_parameters(self) -> bool:
        added = super()._core_add_parameters()
        if added:
            spec = self._core_spec()
            self._all_weights = [[p.name for p in cell.values()] for cell in spec.parameters]
            self._flat_weights_names = self._core_names(spec)
            self._init_flat_weights()
        return added

    def _core_attributes(self, names: Sequence[str]) -> Mapping[str, Any]:
        self._update_flat_weights()
        return dict(zip(self._flat_weights_names, self._flat_weights, strict=True))

    def flatten_parameters(self) -> None:
        """Do as torch's module does, which can where it can compute."""
        if not self._core_own_options():
            super().flatten_parameters()


class LSTM(Recurrent, nn.LSTM):
    """``torch.nn.LSTM``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, \
    device, dtype
        As of ``torch.nn.LSTM``, in the same order.
    reverse, merge, forget_bias, peepholes, input_forget, clip, activations, layer_norm, \
    recurrent_dropout, zoneout, weight_dropout
        As of :class:`fastlstm.LSTM`, by keyword, with the same names of parameters. They are
        attributes of the module. With any of them, nothing else than fastlstm can compute it.

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated, or two do not go together.

    Notes
    -----
    float32 and float64 on the CPU are ours. bfloat16, and autocast to it, are computed in float32,
    and the results have the type that torch's module gives. For everything else - other devices,
    float16, nested tensors, subclasses of tensors - torch's implementation runs. Weights, gradients
    and random numbers follow torch's rules; gradients of gradients, and ``torch.func``, are errors.

    Examples
    --------
    >>> lstm = fastlstm.torch.LSTM(8, 16, bidirectional=True, zoneout=0.1)
    >>> output, (h_n, c_n) = lstm(torch.zeros(5, 3, 8), lengths=[5, 2, 4])
    >>> output.shape
    torch.Size([5, 3, 32])
    """

    _core_layer = layers.LSTM
    _core_lowered = (True, False)


class GRU(Recurrent, nn.GRU):
    """``torch.nn.GRU``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of ``torch.nn.GRU``, in the same order.
    reset_after, reverse, merge, clip, activations, recurrent_dropout, zoneout, weight_dropout
        As of :class:`fastlstm.GRU`, by keyword: see :class:`LSTM`.
    """

    _core_layer = layers.GRU
    _core_lowered = (False, False)


class RNN(Recurrent, nn.RNN):
    """``torch.nn.RNN``, computed by fastlstm on CPUs.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, \
    device, dtype
        As of ``torch.nn.RNN``, in the same order.
    reverse, merge, clip, activations, recurrent_dropout, zoneout, weight_dropout
        As of :class:`fastlstm.RNN`, by keyword: see :class:`LSTM`.
    """

    _core_layer = layers.RNN
    _core_lowered = (True, True)

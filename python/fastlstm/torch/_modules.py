"""LSTM, GRU and RNN: PyTorch's modules with our calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastlstm import layers

from . import _traced
from ._engine import BATCH_FIRST, PACKED, TIME_FIRST, Call, Engine
from ._function import run
from ._tracing import is_traced, untraced


class Recurrent(nn.RNNBase):
    """What the three share: torch's module, computed by the core where it can be."""

    _layer: type[layers.RecurrentLayer[Any, Any]]

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        # Of self first: Dynamo, if it may not look at it, gives up where nothing has begun yet.
        if self._layer is not None and is_traced():
            traced = _traced.forward(self, input, hx, lengths)
            return super().forward(input, hx) if traced is None else traced
        return self._forward(input, hx, lengths)

    @untraced
    def _forward(self, input: Any, hx: Any, lengths: Any) -> Any:
        if not self._computes(input, hx):
            return super().forward(input, hx)
        self._update_flat_weights()
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if not packed and x.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.dim()}D instead"
            )
        batched = packed or x.dim() == 3
        batch_sizes = input.batch_sizes if packed else None
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
        states = () if hx is None else (hx if isinstance(hx, tuple) else (hx,))
        if not batched:
            states = tuple(state.unsqueeze(1) for state in states)
        if packed and input.sorted_indices is not None:
            states = tuple(state.index_select(1, input.sorted_indices) for state in states)
        self.check_input(x, batch_sizes)
        if states:
            self.check_forward_args(x, states if len(states) == 2 else states[0], batch_sizes)
        engine = self._engine_now()
        if packed:
            sizes = batch_sizes.numpy()
            B, T, order = int(sizes[0]), len(sizes), PACKED
            steps = torch.from_numpy((sizes[:, None] > torch.arange(B).numpy()).sum(0))
        else:
            order = BATCH_FIRST if self.batch_first else TIME_FIRST
            B, T = (x.shape[0], x.shape[1]) if self.batch_first else (x.shape[1], x.shape[0])
            steps = lengths
        call = Call(engine, T, B, order, steps, self._regularisation())
        output, final = run(
            call, x.contiguous(), [s.contiguous() for s in states], list(self._flat_weights)
        )
        if packed:
            if input.unsorted_indices is not None:
                final = [part.index_select(1, input.unsorted_indices) for part in final]
            result = PackedSequence(
                output, batch_sizes, input.sorted_indices, input.unsorted_indices
            )
            return result, self._state(final)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            final = [part.squeeze(1) for part in final]
        return output, self._state(final)

    def _computes(self, input: Any, hx: Any) -> bool:
        """Whether the core computes this call."""
        x = input.data if isinstance(input, PackedSequence) else input
        weights = self._flat_weights
        return (
            isinstance(x, Tensor)
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and all(w.device.type == "cpu" for w in weights)
        )

    def _state(self, parts: list[Tensor]) -> Any:
        return tuple(parts) if len(parts) > 1 else parts[0]

    def _engine_now(self) -> Engine:
        engine = self.__dict__.get("_engine")
        dtype = str(self._flat_weights[0].dtype).removeprefix("torch.")
        if engine is None or engine.spec.dtype.name != dtype:
            engine = Engine(layers.make_spec(self._layer, {**self._options(), "dtype": dtype}))
            self.__dict__["_engine"] = engine
        return engine

    def _options(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
        }

    def _regularisation(self) -> dict[str, Any] | None:
        if not self.training or self.dropout == 0:
            return None
        seed = int(torch.randint(2**63 - 1, ()))
        training = self._engine_now().spec.training
        return {**training, "seed": seed, "zoneout": True}

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        state.pop("_engine", None)
        return state


class LSTM(Recurrent, nn.LSTM):
    """torch.nn.LSTM."""

    _layer = layers.LSTM

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "proj_size": self.proj_size}


class GRU(Recurrent, nn.GRU):
    """torch.nn.GRU."""

    _layer = layers.GRU


class RNN(Recurrent, nn.RNN):
    """torch.nn.RNN."""

    _layer = layers.RNN

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "nonlinearity": self.nonlinearity}

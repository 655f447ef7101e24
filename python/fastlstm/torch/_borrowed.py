"""Stand-in for the core's stacks on borrowed memory, until the core has them: NumPy on addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm.layers import core


def at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size == 0:
        return np.zeros(shape, dtype)
    memory = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


class Borrowed:
    def __init__(self, dtype: Any, config: Any) -> None:
        self.dtype, self.config, self.frozen = dtype, config, False

    def stack(self, addresses: Sequence[int], version: int) -> Stack:
        rest = iter(addresses)
        cells = [
            {
                name: at(next(rest), tuple(shape), self.dtype).copy()
                for name, (shape, _) in cell.items()
            }
            for cell in _core.parameters(dict(self.config))
        ]
        return Stack(self, core.make_stack(self.dtype, self.config, cells))


class Stack:
    def __init__(self, owner: Borrowed, stack: Any) -> None:
        self.owner, self.stack = owner, stack
        self.parts = _core.state_parts(dict(owner.config))
        self.cells = len(_core.parameters(dict(owner.config)))
        self.I = owner.config["input_size"]
        D = 2 if owner.config.get("bidirectional") else 1
        self.width = self.parts[0][1] * (
            D if owner.config.get("merge", "concat") == "concat" else 1
        )

    def states(self, B: int, addresses: Any) -> Any:
        if addresses is None:
            return None
        return [
            at(a, (self.cells, B, w), self.owner.dtype) if a else None
            for a, (_, w) in zip(addresses, self.parts, strict=True)
        ]

    def rows(self, address: int, steps: int, B: int, order: int, lengths: Any, width: int) -> Any:
        d = self.owner.dtype
        if order != 2:
            return at(address, (B, steps, width) if order else (steps, B, width), d)
        return at(address, (int(lengths.sum()), width), d)

    @staticmethod
    def mask(steps: int, lengths: Any) -> Any:
        return np.arange(steps)[:, None] < lengths

    def padded(self, rows: Any, steps: int, lengths: Any) -> Any:
        full = np.zeros((steps, len(lengths), rows.shape[1]), rows.dtype)
        full[self.mask(steps, lengths)] = rows
        return full

    def forward_at(self, x, steps, B, order, lengths, initial, output, final):  # type: ignore
        self._run(x, steps, B, order, lengths, initial, output, final, ())

    def forward_train_at(  # type: ignore
        self, x, steps, B, order, lengths, initial, output, final, regularisation, limit
    ):
        return self._run(
            x, steps, B, order, lengths, initial, output, final, (regularisation, limit)
        )

    def _run(self, x, steps, B, order, lengths, initial, output, final, more):  # type: ignore
        lengths = at(lengths, (B,), np.int64) if lengths else None
        xs = self.rows(x, steps, B, order, lengths, self.I)
        out = self.rows(output, steps, B, order, lengths, self.width)
        room = out
        if order == 2:
            xs = self.padded(xs, steps, lengths)
            room = np.empty((steps, B, self.width), self.owner.dtype)
        f = self.stack.forward_train if more else self.stack.forward
        tape = f(
            xs, self.states(B, initial), lengths, room, self.states(B, final), order == 1, *more
        )
        if order == 2:
            out[:] = room[self.mask(steps, lengths)]
        return Tape(self, tape, steps, B, order, None if lengths is None else lengths.copy())


class Tape:
    def __init__(self, stack, tape, steps, B, order, lengths):  # type: ignore
        self.s, self.tape = stack, tape
        self.steps, self.B, self.order, self.lengths = steps, B, order, lengths

    def backward_at(self, d_output, d_final, d_x, d_initial, d_params):  # type: ignore
        s, call = self.s, (self.steps, self.B, self.order, self.lengths)
        d_out = s.rows(d_output, *call, s.width) if d_output else None
        into = room = s.rows(d_x, *call, s.I) if d_x else None
        if self.order == 2:
            if d_out is not None:
                d_out = s.padded(d_out, self.steps, self.lengths)
            if into is not None:
                room = np.empty((self.steps, self.B, s.I), s.owner.dtype)
        rest, cells = iter(d_params), []
        for cell in _core.parameters(dict(s.owner.config)):
            arrays = {}
            for name, (shape, _) in cell.items():
                if a := next(rest):
                    arrays[name] = at(a, tuple(shape), s.owner.dtype)
                    arrays[name][:] = 0
            cells.append(arrays)
        self.tape.backward(
            d_out, s.states(self.B, d_final), room, s.states(self.B, d_initial), cells, None
        )
        if self.order == 2 and into is not None:
            into[:] = room[s.mask(self.steps, self.lengths)]


def make_borrowed(dtype: Any, config: Any) -> Borrowed:
    return Borrowed(dtype, config)

"""All that layers ask of the C++ core; its arrays are contiguous and of the stack's dtype.

No argument goes by its name: pybind11 makes strings of the names, and without memory for one it
ends the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._checks import FloatArray, IndexArray

# Keys left out have the values of a plain layer: csrc/include/fastlstm/config.hpp.
Config: TypeAlias = Mapping[str, Any]
# The parameters of one cell (layer k // D, direction k % D) by their short names, "weight_ih".
CellArrays: TypeAlias = Mapping[str, FloatArray]

_STACKS: dict[str, Any] = {
    "float32": _core.StackFloat32,
    "float64": _core.StackFloat64,
}
_BORROWED: dict[str, Any] = {
    "float32": _core.BorrowedFloat32,
    "float64": _core.BorrowedFloat64,
}
_COLLECTED: dict[str, Any] = {
    "float32": _core.CollectedFloat32,
    "float64": _core.CollectedFloat64,
}
_STREAMS: dict[str, Any] = {
    "float32": _core.StreamFloat32,
    "float64": _core.StreamFloat64,
}


class Order(IntEnum):
    """How the rows of sequences that are given by their address are ordered."""

    TIME_FIRST = 0
    BATCH_FIRST = 1
    PACKED = 2
    """Those that live at step 0, then those of step 1, ...: PyTorch's PackedSequence."""


class Collected(Protocol):
    """Gradients of a cell's weights, from backward passes of many steps."""

    def finish(self) -> None:
        """Add to the gradients what has not been added yet."""


class Tape(Protocol):
    """What a training call leaves."""

    def backward(
        self,
        d_output: FloatArray | None,
        d_final: Sequence[FloatArray | None] | None,
        d_x: FloatArray | None,
        d_initial: Sequence[FloatArray] | None,
        d_params: Sequence[CellArrays],
        d_steps: Sequence[FloatArray] | None,
        /,
    ) -> None:
        """Write gradients to the arrays that are given; those of parameters are added."""

    def backward_at(
        self,
        d_output: int,
        d_final: Sequence[int] | None,
        d_x: int,
        d_initial: Sequence[int] | None,
        d_params: Sequence[int],
        collected: Collected | None,
        /,
    ) -> None:
        """The same for addresses, 0 for none; those of parameters are written, not added to.

        Where `collected` is given, it takes what gradients of parameters are made of instead.
        Sequences have the order of the call; parameters that of the core's list. As before the
        other, :func:`fastlstm._blas.require_blas` comes first.
        """

    def backward_of(
        self,
        d_output: Any,
        d_final: tuple[Any, ...],
        d_x: Any,
        d_initial: tuple[Any, ...],
        d_params: tuple[Any, ...],
        collected: Collected | None,
        /,
    ) -> bool:
        """The same for tensors, None for none; False where it could not read a gradient."""

    def gates(self, k: int, /) -> FloatArray:
        """(T, B, G * H): the gates of cell k."""

    def state(self, k: int, part: int, /) -> FloatArray:
        """(T, B, width): one part of the state of cell k."""


class Stack(Protocol):
    """Layers with their weights, which do not change."""

    def with_params(self, cells: Mapping[int, CellArrays], /) -> Stack:
        """The same with other parameters of some cells: all of each."""

    def forward(
        self,
        x: FloatArray,
        initial: Sequence[FloatArray] | None,
        lengths: IndexArray | None,
        output: FloatArray,
        final: Sequence[FloatArray],
        batch_first: bool,
        /,
    ) -> None:
        """Write the output and the final state."""

    def forward_train(
        self,
        x: FloatArray,
        initial: Sequence[FloatArray] | None,
        lengths: IndexArray | None,
        output: FloatArray,
        final: Sequence[FloatArray],
        batch_first: bool,
        regularisation: Mapping[str, Any],
        memory_limit: int,
        /,
    ) -> Tape:
        """The same for training; a limit of 0 is none."""

    def forward_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
        /,
    ) -> None:
        """As forward, for addresses of contiguous arrays, 0 for none; see :class:`Order`.

        Lengths of a packed call must not increase: ValueError.
        """

    def forward_train_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
        regularisation: Mapping[str, Any],
        memory_limit: int,
        /,
    ) -> Tape:
        """The same for training."""

    def training_memory(
        self,
        steps: int,
        batch_size: int,
        lengths: IndexArray | None,
        batch_first: bool,
        regularisation: Mapping[str, Any],
        memory_limit: int,
        /,
    ) -> tuple[int, float]:
        """The bytes and the extra time of a training call."""


class Borrowed(Protocol):
    """Parameters in somebody else's memory, where they may change at any time."""

    frozen: bool
    """Whether values at the same addresses, of the same version, are taken to be the same."""

    def stack(self, addresses: Sequence[int], version: int, /) -> Stack:
        """Return a stack of the values that the memory has now.

        The addresses are those of all parameters, in the core's order; the version is a number that
        changes when they are written to, or -1. Writes that it does not tell of are found.
        """

    def run(
        self,
        x: Any,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: tuple[Any, ...],
        weights: tuple[Any, ...],
        output: Any,
        final: tuple[Any, ...],
        regularisation: Mapping[str, Any] | None,
        /,
    ) -> Any:
        """One call on tensors, with the values that their weights have now.

        Returns None, with nothing done, where it could not read a tensor: not one of PyTorch's own
        class on the CPU, of the layer's dtype and shape, contiguous. Otherwise True; or, where
        `regularisation` is given, the tape. lengths: an address, or 0.
        """


class Stream(Protocol):
    """Layers that run step by step."""

    def step(self, x: FloatArray, out: FloatArray, /) -> None:
        """One step."""

    def quick_calls(
        self,
    ) -> tuple[
        Callable[[object, object], FloatArray | None], Callable[[object, bool], FloatArray | None]
    ]:
        """Functions of x and out (or None), and of x and batch_first: a step, and many.

        They return the result, or None, with nothing done, where an array needs checks or
        conversions.
        """

    def run(self, x: FloatArray, output: FloatArray, batch_first: bool, /) -> None:
        """Many steps."""

    def state(self) -> list[FloatArray]:
        """Copies of the state's parts."""

    def set_state(self, state: Sequence[FloatArray], /) -> None:
        """Copy a state."""

    def reset(self, rows: npt.NDArray[np.bool_], /) -> None:
        """Set the state of the rows that are marked to zero. rows: [B]"""

    def reorder(self, rows: IndexArray, /) -> None:
        """Let row b go on from what row rows[b] was. rows: [B]"""


def read_only(array: FloatArray) -> FloatArray:
    """Return the same values in an array that cannot be made writable."""
    return _core.read_only(array)


def parameters(config: Config) -> list[dict[str, tuple[tuple[int, ...], str]]]:
    """Return those of each cell in PyTorch's order: short name -> shape and initial value.

    The initial value is "uniform", "one" or "zero".
    """
    return _core.parameters(dict(config))


def state_parts(config: Config) -> list[tuple[str, int]]:
    """Return the names and widths of a state's parts; the first is h, the output."""
    return _core.state_parts(dict(config))


def plan(
    config: Config,
    dtype: np.dtype[Any],
    T: int,
    B: int,
    lengths: IndexArray | None,
    training: bool,
    dropout: float,
) -> list[tuple[tuple[int, int, int, int, int], float, str, list[tuple[str, float]]]]:
    """How a call would be divided: forward and, in training, each cell backward.

    Of each: threads, rows, directions, layers, units; microseconds; what takes the most of them;
    what they go to.
    """
    return _core.plan(dict(config), dtype.itemsize, T, B, lengths, training, dropout)


def make_stack(dtype: np.dtype[Any], config: Config, cells: Sequence[CellArrays]) -> Stack:
    """Pack the parameters of all cells, small ones where the configuration has an arithmetic."""
    stacks = _STACKS[dtype.name]
    make = stacks.make_small if "arithmetic" in config else stacks.make
    stack: Stack = make(dict(config), cells)
    return stack


def make_borrowed(dtype: np.dtype[Any], config: Config) -> Borrowed:
    """Return what gives stacks of parameters that are somebody else's."""
    borrowed: Borrowed = _BORROWED[dtype.name].make(dict(config))
    return borrowed


def set_tensor_classes(tensor: type, parameter: type) -> None:
    """Say which classes tensors have: PyTorch's. Before any call on tensors."""
    _core.set_tensor_classes(tensor, parameter)


def make_collected(dtype: np.dtype[Any], config: Config, d_params: Sequence[int]) -> Collected:
    """Return what adds to a cell's gradients: their addresses in the core's order, 0 for none."""
    collected: Collected = _COLLECTED[dtype.name].make(dict(config), d_params)
    return collected


def can_collect(dtype: np.dtype[Any], config: Config, parameters: int) -> bool:
    """Whether :func:`make_collected` is for these layers, of so many parameters: the core says."""
    try:
        make_collected(dtype, config, [0] * parameters)
    except ValueError:
        return False
    return True


def make_stream(dtype: np.dtype[Any], stack: Stack, batch_size: int) -> Stream:
    """Return a stream whose state is zeros."""
    stream: Stream = _STREAMS[dtype.name].make(stack, batch_size)
    return stream

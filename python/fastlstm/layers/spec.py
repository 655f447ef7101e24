"""What a layer is, without its values: its sizes, the names and shapes of what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm._checks import FloatArray, check_shape

from . import core
from .layouts import Layout

# After a parameter's name, where its values are integers: that of their scales.
SCALE = "_scale"


class Parameter(NamedTuple):
    """One parameter of one layer and direction."""

    name: str
    """As users know it: ``weight_ih_l0_reverse``."""
    shape: tuple[int, ...]
    initial: str
    """``uniform``, ``one`` or ``zero``."""


class Spec:
    """What calls, tapes, streams and files need to know of a layer. It never changes.

    Parameters
    ----------
    options : mapping
        The values of all options.
    config : mapping
        What the core is told of them.
    training : mapping
        What it is told in training calls.

    Attributes
    ----------
    directions, cells : int
        D, and L * D: pairs of layer and direction. Cell k is layer k // D, direction k % D.
    state_parts : list of tuple
        Names and widths of the parts of a state; the first is h, the output.
    core_output_size : int
        The width of an output's rows as the core writes them: directions that are not merged are
        side by side there.
    parameters : list of dict
        By cell, then by short name.
    shapes : dict
        Of all parameters by their names, in PyTorch's order.
    """

    def __init__(
        self, options: Mapping[str, Any], config: core.Config, training: Mapping[str, Any]
    ) -> None:
        self.options = options
        self.config = config
        self.training = training
        self.dtype: np.dtype[Any] = np.dtype(options["dtype"])
        self.input_size: int = options["input_size"]
        self.hidden_size: int = options["hidden_size"]
        self.num_layers: int = options["num_layers"]
        self.batch_first: bool = options["batch_first"]
        self.merge: str | None = options["merge"]
        self.directions = 2 if options["bidirectional"] else 1
        self.cells = self.num_layers * self.directions
        self.reads_from_the_end: bool = options["bidirectional"] or options["reverse"]
        self.state_parts = core.state_parts(config)
        self.output_size = self.state_parts[0][1]
        sides = self.directions if self.merge in ("concat", None) else 1
        self.core_output_size = sides * self.output_size
        self.parameters = [
            {
                kind: Parameter(kind + self._suffix(k), tuple(shape), initial)
                for kind, (shape, initial) in cell.items()
            }
            for k, cell in enumerate(core.parameters(config))
        ]
        self.shapes = {p.name: p.shape for cell in self.parameters for p in cell.values()}

    def _suffix(self, k: int) -> str:
        layer, direction = divmod(k, self.directions)
        return f"_l{layer}" + ("_reverse" if direction == 1 else "")

    def cell_arrays(self, arrays: Mapping[str, FloatArray], k: int) -> dict[str, FloatArray]:
        """Those arrays that are parameters of cell k, or their gradients, by short names.

        With them are their scales, where there are such.
        """
        cell = self.parameters[k]
        return {
            kind + end: arrays[p.name + end]
            for kind, p in cell.items()
            for end in ("", SCALE)
            if p.name + end in arrays
        }

    def layout(self, x: FloatArray) -> Layout:
        """How a call's input is laid out.

        Raises
        ------
        ValueError
            It is not an input of this layer.
        """
        I, batch_first = self.input_size, self.batch_first
        if x.ndim not in (2, 3) or x.shape[-1] != I:
            check_shape("x", x, ("B", "T", I) if batch_first else ("T", "B", I), ("T", I))
        if x.ndim == 2:
            return Layout(x.shape[0], 1, batch_first, batched=False)
        first, second = x.shape[:2]
        T, B = (second, first) if batch_first else (first, second)
        return Layout(T, B, batch_first, batched=True)

    def output_shape(self, layout: Layout) -> tuple[int, ...]:
        """The caller's shape of an output."""
        if self.merge is None:
            return (2, *layout.shape(self.output_size))
        D = self.directions if self.merge == "concat" else 1
        return layout.shape(D * self.output_size)

    def state_shapes(self, layout: Layout) -> list[tuple[int, ...]]:
        """The caller's shapes of the parts of a state."""
        return [layout.state_shape(self.cells, width) for _, width in self.state_parts]

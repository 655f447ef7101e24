"""A layer and its source, and what both give for the same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._results import (
    Array,
    Inputs,
    Results,
    allowed,
    difference,
    forget_after_parting,
    run_layer,
    variations,
)
from ._sources import Source


@dataclass(frozen=True)
class Compared:
    """The results of both for the same inputs. The lists have the order of Results.arrays()."""

    inputs: Inputs
    ours: Results
    theirs: Results
    apart: list[Array]
    """Absolute differences; zero where values do not count, past a sequence's end."""
    bounds: list[Array]
    """What rounding explains."""

    @property
    def ok(self) -> bool:
        """Whether all that is apart is rounding."""
        return not any(wrong.any() for wrong in self.wrong)

    def counts(self) -> Array:
        """Which values of the output count: those within the sequences' lengths."""
        lengths = self.inputs.lengths
        if lengths is None:
            return np.ones(self.ours.output.shape, bool)
        within = np.arange(len(self.inputs.x))[:, None] < lengths
        return np.broadcast_to(within[:, None, :, None], self.ours.output.shape)

    @property
    def wrong(self) -> list[Array]:
        """Where it is not."""
        return [a > b for a, b in zip(self.apart, self.bounds, strict=True)]


@dataclass(frozen=True)
class Pair:
    """A layer and what it is compared with."""

    layer: Any
    source: Source
    fresh: Any
    """The layer that fastlstm's reader makes of the source now."""
    eps: float
    """An ULP of one in the less precise of both."""
    tolerance: float | None
    """The caller's, relative to the largest value; None: what rounding explains."""
    seed: int

    def compare(self, inputs: Inputs, grouped: tuple[int, int] | None = None) -> Compared:
        """Run both.

        Parameters
        ----------
        inputs : Inputs
        grouped : tuple of int, optional
            For a batch of single steps: the (T, B) of the sequences that they were taken from, so
            that what is called small or large is so among the steps at the same time.
        """
        return self.judge(inputs, self.source(inputs), grouped)

    def judge(
        self, inputs: Inputs, theirs: Results, grouped: tuple[int, int] | None = None
    ) -> Compared:
        """Run the layer, and compare with what the source gave."""
        ours = run_layer(self.layer, inputs)
        varied = variations(self.layer, inputs, self.eps, self.seed)
        # A cell that forgets nothing adds its roundings up: one more for each step.
        ulps = self.source.ulps + len(inputs.x)
        apart, bounds = [], []
        for n, (a, b) in enumerate(zip(ours.arrays(), theirs.arrays(), strict=True)):
            if a.shape != b.shape:
                raise ValueError(
                    f"source: expected results {a.shape} (axes as those of fastlstm's), as those "
                    f"of {self.layer!r}, got {b.shape}"
                )
            shape = a.shape if grouped is None else (*a.shape[:-2], *grouped, a.shape[-1])
            others = [v.arrays()[n].reshape(shape) for v in varied]
            bound = allowed(a.reshape(shape), others, ulps, self.eps, self.tolerance)
            apart.append(difference(a, b))
            bounds.append(bound.reshape(a.shape))
        if grouped is None and self.tolerance is None:
            forget_after_parting(ours.output, bounds, self.layer.bidirectional)
        compared = Compared(inputs, ours, theirs, apart, bounds)
        apart[0][~compared.counts()] = 0
        return compared

"""Lengths of sequences, and where their steps are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._engine import is_plain


class Places:
    """Takes sequences that are padded at their start to step 0, and back."""

    def __init__(self, steps: int, lengths: Tensor, batch_first: bool) -> None:
        self._axis = -2 if batch_first else -3
        self._count = steps
        self._steps = torch.arange(steps, device="cpu")[:, None]
        self._starts = steps - lengths
        self._batch_first = batch_first

    def to_start(self, x: Tensor) -> Tensor:
        """Move the steps of an input to the front."""
        return self._moved(x, self._steps + self._starts)

    def back(self, output: Tensor) -> Tensor:
        """Move the steps of an output to where those of the input were."""
        return self._moved(output, self._steps - self._starts)

    def _moved(self, tensor: Tensor, places: Tensor) -> Tensor:
        places = places % self._count
        index = (places.T if self._batch_first else places)[..., None].expand_as(tensor)
        return tensor.gather(self._axis, index)


def lengths_of(batch_sizes: Any, rows: int) -> Tensor | None:
    """(B,) the lengths of packed sequences, which do not increase; None: these are none."""
    if not is_plain(batch_sizes) or batch_sizes.dtype is not torch.int64 or batch_sizes.dim() != 1:
        return None
    sizes = batch_sizes.numpy()
    T = len(sizes)
    if T == 0 or sizes[-1] < 1 or (sizes[1:] > sizes[:-1]).any() or sizes.sum() != rows:
        return None
    # Sequence b lives while more than b do.
    return torch.from_numpy(T - sizes[::-1].searchsorted(np.arange(sizes[0]), side="right"))

"""What regularisation multiplies values with, whatever the cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array


class HiddenMasks(NamedTuple):
    """Regularisation of h in one step of a GRU or an RNN. None: it is not used."""

    h: Array | None = None
    """(B, H) on the h that R reads: 0, or 1 / (1 - p) where the unit is kept."""
    keep_h: Array | None = None
    """(B, H) zoneout: 1 where h keeps its value, else 0; in inference the mean of these."""

    def at(self, t: int, rows: npt.NDArray[np.intp]) -> HiddenMasks:
        """Those of one step, for some rows, from those of all: (B, H) and (T, B, H)."""
        return HiddenMasks(
            None if self.h is None else self.h[rows],
            None if self.keep_h is None else self.keep_h[t, rows],
        )


NO_MASKS = HiddenMasks()


def hidden_masks(
    h_masks: npt.ArrayLike | None, keep_h: npt.ArrayLike | None, cells: int, T: int, B: int, H: int
) -> list[HiddenMasks]:
    """Those of all steps of each layer and direction."""
    return [
        HiddenMasks(*masks)
        for masks in zip(
            broadcast("h_masks", h_masks, (cells, B, H)),
            broadcast("keep_h", keep_h, (cells, T, B, H)),
            strict=True,
        )
    ]


def dropped(mask: Array | None, values: Array) -> Array:
    """Values times their mask; also the gradient of them from that of the product."""
    return values if mask is None else values * mask


def zoned_out(keep: Array | None, old: Array, new: Array) -> Array:
    """The values of units, some of which keep the old ones."""
    return new if keep is None else keep * old + (1 - keep) * new


def zoned_out_backward(keep: Array | None, d: Array) -> tuple[Array, Array]:
    """Gradients of the old and of the new value."""
    return (np.zeros_like(d), d) if keep is None else (keep * d, (1 - keep) * d)


def broadcast(
    name: str, value: npt.ArrayLike | None, shape: tuple[int, ...]
) -> list[Array] | list[None]:
    """Masks by layer and direction; copied, as a caller may reuse its buffer."""
    if value is None:
        return [None] * shape[0]
    array = np.asarray(value, dtype=np.float64)
    try:
        return list(np.broadcast_to(array, shape).copy())
    except ValueError:
        message = f"{name}: expected {shape} or what broadcasts to it, got {array.shape}"
        raise ValueError(message) from None

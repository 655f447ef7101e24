"""What regularisation multiplies values with, whatever the cell."""

from __future__ import annotations

from collections.abc import Mapping
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


NO_MASKS = HiddenMasks()


def dropped(mask: Array | None, values: Array) -> Array:
    """Values times their mask; also the gradient of them from that of the product."""
    return values if mask is None else values * mask


def zoned_out(keep: Array | None, old: Array, new: Array) -> Array:
    """The values of units, some of which keep the old ones."""
    return new if keep is None else keep * old + (1 - keep) * new


def zoned_out_backward(keep: Array | None, d: Array) -> tuple[Array, Array]:
    """Gradients of the old and of the new value."""
    return (np.zeros_like(d), d) if keep is None else (keep * d, (1 - keep) * d)


def read_step_masks(
    given: Mapping[str, npt.ArrayLike | None], state: Mapping[str, Array], T: int
) -> dict[str, Array]:
    """Broadcast the masks of all steps to (L*D, T, B, size of the part that they act on).

    They are copied, as a caller may reuse its buffers.

    Parameters
    ----------
    given : mapping
        By the fields of the cell's masks: "h" for the same mask at all steps, "keep_h" for another
        one at each.
    state : mapping
        The parts of the initial state, each (L*D, B, .).
    """
    masks: dict[str, Array] = {}
    for field, value in given.items():
        if value is None:
            continue
        part = field.removeprefix("keep_")
        cells, B, size = state[part].shape
        if part == field:
            once = broadcast(f"{part}_masks", value, (cells, B, size))
            masks[field] = np.broadcast_to(once[:, np.newaxis], (cells, T, B, size))
        else:
            masks[field] = broadcast(field, value, (cells, T, B, size))
    return masks


def broadcast(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return a copy of a mask in a shape to which it broadcasts."""
    array = np.asarray(value, dtype=np.float64)
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError:
        message = f"{name}: expected {shape} or what broadcasts to it, got {array.shape}"
        raise ValueError(message) from None

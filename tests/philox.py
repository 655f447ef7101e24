"""Philox4x32-10 (Salmon et al. 2011) in NumPy, and the masks that layers draw from it."""

from __future__ import annotations

from typing import Any

import numpy as np

DROPOUT, RECURRENT_DROPOUT, WEIGHT_DROPOUT, ZONEOUT = range(4)


def uniform(seed: int, kind: int, k: int, rows: np.ndarray, columns: int) -> np.ndarray:
    """Numbers from 0 to 1 for each row and column, of layer or cell k: (*rows.shape, columns)."""
    low = np.uint64(0xFFFFFFFF)
    blocks = np.arange((columns + 3) // 4, dtype=np.uint64)
    row = rows.astype(np.uint64)[..., np.newaxis]
    x0, x1, x2 = np.broadcast_arrays(row & low, row >> np.uint64(32), blocks)
    x3 = np.full(x0.shape, kind << 30 | k, np.uint64)
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1 = b >> np.uint64(32) ^ x1 ^ np.uint64(keys[0]), b & low
        x2, x3 = a >> np.uint64(32) ^ x3 ^ np.uint64(keys[1]), a & low
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    numbers = np.stack([x0, x1, x2, x3], axis=-1).reshape(*rows.shape, 4 * len(blocks))
    return numbers[..., :columns] / 2.0**32


def dropout_mask(
    p: float, seed: int, kind: int, k: int, rows: np.ndarray, columns: int
) -> np.ndarray:
    """0 with probability p, else 1 / (1 - p)."""
    kept = uniform(seed, kind, k, rows, columns) < 1 - p
    return kept / (1 - p) if p < 1 else 0.0 * kept


def keep_mask(p: float, seed: int, k: int, T: int, B: int, columns: int) -> np.ndarray:
    """Zoneout: 1 with probability p, else 0; (T, B, columns)."""
    rows = np.arange(T)[:, np.newaxis] + T * np.arange(B)
    return (uniform(seed, ZONEOUT, k, rows, columns) < p).astype(np.float64)


def masks_of(layer: Any, seed: int, T: int, B: int) -> dict[str, Any]:
    """The masks of a training call, as the reference takes them."""
    H = layer.hidden_size
    P = getattr(layer, "proj_size", 0) or H
    D = 2 if layer.bidirectional else 1
    cells = range(layer.num_layers * D)
    has_c = isinstance(layer.zoneout, tuple)
    p_h, p_c = layer.zoneout if has_c else (layer.zoneout, 0.0)
    rows = np.arange(B)
    inverted = seed ^ 0xFFFFFFFFFFFFFFFF
    masks: dict[str, Any] = {
        "h_masks": np.stack(
            [
                dropout_mask(layer.recurrent_dropout, seed, RECURRENT_DROPOUT, k, rows, P)
                for k in cells
            ]
        ),
        "keep_h": np.stack([keep_mask(p_h, inverted, k, T, B, P) for k in cells]),
    }
    if has_c:
        masks["keep_c"] = np.stack([keep_mask(p_c, seed, k, T, B, H) for k in cells])
    if layer.dropout > 0:
        places = np.arange(T)[:, np.newaxis] + T * rows
        masks["masks"] = [
            dropout_mask(layer.dropout, seed, DROPOUT, k, places, D * P)
            for k in range(layer.num_layers - 1)
        ]
    return masks


def weight_masks(layer: Any, seed: int) -> dict[str, np.ndarray]:
    """Those of weight dropout, by parameter."""
    names = [name for name in layer.params if name.startswith("weight_hh")]
    return {
        name: dropout_mask(
            layer.weight_dropout, seed, WEIGHT_DROPOUT, k, np.arange(len(R)), R.shape[1]
        )
        for k, name in enumerate(names)
        for R in [layer.params[name]]
    }


def masked_parameters(layer: Any, seed: int) -> dict[str, np.ndarray]:
    """The parameters of a training call: R with weight dropout."""
    masks = weight_masks(layer, seed)
    return {**layer.params, **{name: mask * layer.params[name] for name, mask in masks.items()}}

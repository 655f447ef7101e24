"""Philox4x32-10 (Salmon et al. 2011) in NumPy, and the masks that layers draw from it."""

from __future__ import annotations

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
    numbers = np.stack([x0, x1, x2, x3], axis=-1).reshape(*rows.shape, -1)
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

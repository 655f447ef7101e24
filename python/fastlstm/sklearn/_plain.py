"""Values of fitted estimators as JSON has them, and back: what files hold instead of pickles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Of arrays' elements.
_KINDS = "fiubUO"


def to_plain(name: str, value: Any) -> Any:
    """Return what JSON can hold of a value.

    Numbers, text, lists, tuples, mappings with any such keys, and arrays of numbers or text.

    Raises
    ------
    TypeError
        It is something else.
    """
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, np.str_) else value
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{name}: a file has no arrays of {array.dtype}")
        values = to_plain(name, array.ravel().tolist())["list"]
        return {"array": [array.dtype.str, list(array.shape), values]}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [to_plain(name, item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[to_plain(name, k), to_plain(name, v)] for k, v in value.items()]}
    raise TypeError(f"{name}: a file has no {type(value).__name__}")


def from_plain(plain: Any) -> Any:
    """Return the value of which :func:`to_plain` made this.

    Raises
    ------
    ValueError
        It did not.
    """
    match plain:
        case None | bool() | int() | float() | str():
            return plain
        case {"list": list(items)}:
            return [from_plain(item) for item in items]
        case {"tuple": list(items)}:
            return tuple(from_plain(item) for item in items)
        case {"dict": list(items)}:
            return {from_plain(key): from_plain(value) for key, value in items}
        case {"float": ("inf" | "-inf" | "nan") as text}:
            return float(text)
        case {"array": [str(kind), list(shape), list(items)]}:
            dtype = np.dtype(kind)
            longest = max((len(item) for item in items if isinstance(item, str)), default=0)
            if dtype.kind not in _KINDS or dtype.itemsize > max(16, 4 * longest):
                raise ValueError(f"an array of {dtype}")
            flat = np.empty(len(items), dtype)
            flat[:] = [from_plain(item) for item in items]
            return flat.reshape(shape) if shape else flat[0]
    raise ValueError(f"no value: {plain!r:.60}")

"""HDF5 files, read so that a damaged one cannot ask for more memory than it has itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


class Hdf5:
    """An open file, and its bytes."""

    def __init__(self, file: Any, data: Any) -> None:
        self.file = file
        self._data = data
        self._checked: set[str] = set()

    def text(self, group: Any, name: str) -> str:
        """Return an attribute that is text, or "" where there is none."""
        values = self.texts(group, name)
        return values[0] if values else ""

    def texts(self, group: Any, name: str) -> list[str]:
        """Return an attribute that is one text or several."""
        if name not in group.attrs:
            return []
        attribute = group.attrs.get_id(name)
        if attribute.get_storage_size() > len(self._data):
            raise ValueError(f"attribute {name} is larger than the file")
        if name not in self._checked:
            for length in self._text_lengths(name):
                if length > len(self._data):
                    raise ValueError(f"attribute {name} has a text that is larger than the file")
            self._checked.add(name)
        values = np.atleast_1d(np.asarray(group.attrs[name])).ravel().tolist()
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def _text_lengths(self, name: str) -> Iterator[int]:
        """The lengths of texts of any length, in all attributes of a name.

        The HDF5 library makes room of the length that an attribute states, up to 4 GB, before it
        looks whether there is such a text. So we look first: at the attribute messages (IV.A.2.m of
        the format's specification), which are found by their name.
        """
        data, wanted = self._data, name.encode() + b"\0"
        at = data.find(wanted)
        while at >= 0:
            for start, versions, align in ((at - 8, (1,), 8), (at - 8, (2,), 1), (at - 9, (3,), 1)):
                if start < 0 or data[start] not in versions or self._int(start + 2) != len(wanted):
                    continue
                kind = at + -(-len(wanted) // align) * align
                space = kind + -(-self._int(start + 4) // align) * align
                values = space + -(-self._int(start + 6) // align) * align
                if values > len(data) or data[kind] & 15 != 9:  # the class of variable lengths
                    continue
                dims = space + (8 if data[space] == 1 else 4)
                count = math.prod(
                    self._int(dims + 8 * k, 8) for k in range(min(data[space + 1], 32))
                )
                if count > len(data):
                    raise ValueError(f"attribute {name} is larger than the file")
                yield from (self._int(values + 16 * k, 4) for k in range(count))
            at = data.find(wanted, at + 1)

    def _int(self, at: int, size: int = 2) -> int:
        return int.from_bytes(self._data[at : at + size], "little")

    def array(self, dataset: Any) -> npt.NDArray[Any]:
        """Return the values of a dataset. They must be in the file as they are."""
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{dataset.name}: its values are in another file")
        size = dataset.size * dataset.dtype.itemsize
        if dataset.id.get_storage_size() < size or size > len(self._data):
            raise ValueError(f"{dataset.name}: its values are missing or compressed")
        if dataset.dtype.kind != "f":
            raise ValueError(f"{dataset.name}: expected floats, got {dataset.dtype}")
        return np.asarray(dataset[...])

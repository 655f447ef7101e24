"""HDF5 files: groups, attributes and datasets, read without the HDF5 library.

That library follows links to other files, and damaged files make it run for ever or ask for more
memory than they have themselves. What Keras writes is little of what it can do.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping

import numpy as np

from fastlstm._checks import FloatArray
from fastlstm._stored import FLOATS, as_layers_float
from fastlstm.interchange._tensors import Tensor

from .hdf5_chunks import read_chunks
from .hdf5_format import (
    ATTRIBUTE,
    EXTERNAL,
    FILTERS,
    LAYOUT,
    NOWHERE,
    SIGNATURE,
    SPACE,
    TYPE,
    Bytes,
    Message,
    Target,
)
from .hdf5_heaps import dense_messages


def open_hdf5(data: bytes | mmap.mmap) -> Object | None:
    """Return the root group of a file; None where it is no HDF5 file."""
    start = 0
    while data[start : start + len(SIGNATURE)] != SIGNATURE:
        start = max(512, 2 * start)  # a file may begin with a block of the user's own
        if start >= len(data):
            return None
    file = File(data[start:] if start else data)
    return file.object(file.bytes.root(), "")


class File:
    """What has been read of a file: objects are read once, however many links lead to them."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.bytes = Bytes(data)
        self._read: dict[int, tuple[list[Message], Mapping[str, Target] | None]] = {}

    def object(self, address: int, path: str) -> Object:
        """Return an object, which is called by the path that led to it."""
        self.bytes.spend(64 + len(path))
        if address not in self._read:
            messages = self.bytes.messages(address)
            messages += dense_messages(self.bytes, messages)
            self._read[address] = messages, self.bytes.links(messages)
        return Object(self, path, *self._read[address])


class Object:
    """A group or a dataset.

    Attributes
    ----------
    path : str
        From the root; "" is the root itself.
    """

    def __init__(
        self,
        file: File,
        path: str,
        messages: list[Message],
        links: Mapping[str, Target] | None,
    ) -> None:
        self.path = path
        self._file, self._messages, self._links = file, messages, links

    @property
    def is_group(self) -> bool:
        """Whether it is no dataset."""
        return self._links is not None

    def __contains__(self, name: str) -> bool:
        return name in (self._links or {})

    def __iter__(self) -> Iterator[str]:
        """The names of what a group has."""
        return iter(self._links or {})

    def __len__(self) -> int:
        return len(self._links or {})

    def __getitem__(self, path: str) -> Object:
        """Return what is at a path below a group.

        Raises
        ------
        ValueError
            There is nothing; or a link leads there, within the file or to another.
        """
        found = self
        for name in path.split("/"):
            where = f"{found.path}/{name}"
            target = (found._links or {}).get(name)
            if target is None:
                raise ValueError(f"{where}: missing")
            if isinstance(target, str):
                raise ValueError(f"{where}: {target}, which is not followed")
            found = self._file.object(target, where)
        return found

    def get(self, name: str) -> Object | None:
        """Return what a group has of a name; None where there is no such."""
        if name not in self:
            return None
        return self[name]

    # --- attributes -----------------------------------------------------------------------------

    def text(self, name: str) -> str:
        """Return an attribute that is text, or "" where there is none."""
        values = self.texts(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is one text or several, or is divided because it was long."""
        found = self._texts(name)
        if found is None:
            parts: list[list[str]] = []
            while (part := self._texts(f"{name}{len(parts)}")) is not None:
                parts.append(part)
            found = [text for part in parts for text in part]
        return found

    def _texts(self, name: str) -> list[str] | None:
        file = self._file.bytes
        for message in self._messages:
            if message.kind == ATTRIBUTE and file.attribute_name(message) == name:
                try:
                    return file.attribute(message)
                except ValueError as error:
                    raise ValueError(f"{self.path or '/'}: attribute {name}: {error}") from error
        return None

    # --- values ---------------------------------------------------------------------------------

    def tensor(self) -> Tensor:
        """Return a dataset of floats."""
        found = {message.kind: message for message in self._messages}
        if self.is_group or not {SPACE, TYPE, LAYOUT} <= found.keys():
            raise ValueError(f"{self.path}: expected a dataset")
        file = self._file.bytes
        if EXTERNAL in found:
            raise ValueError(f"{self.path}: its values are in another file")
        if any(found[kind].shared for kind in (SPACE, TYPE, LAYOUT)):
            raise ValueError(f"{self.path}: its type is elsewhere, in a form Keras does not write")
        shape, kind = file.shape(found[SPACE].start), file.type(found[TYPE].start)
        name = kind.name
        if kind.size == 2 and name in ("bytes", "uint16"):  # HDF5 had no name for bfloat16
            said = self.text("dtype")
            name = "bfloat16" if said == "bfloat16" or (name == "bytes" and not said) else name
        if name not in FLOATS:
            raise ValueError(f"{self.path}: expected floats, got {name}")
        size = math.prod(shape) * kind.size
        layout, stored = found[LAYOUT], np.dtype(kind.order + FLOATS[name])
        in_chunks = file.integer(layout.start + 1, 1) == 2
        start = 0 if in_chunks else self._values(layout, size)

        def read() -> FloatArray:
            if in_chunks:
                try:
                    values = read_chunks(file, layout, found.get(FILTERS), shape, stored)
                except ValueError as error:
                    raise ValueError(f"{self.path}: {error}") from error
            else:
                file.spend(size)
                values = np.frombuffer(file.data, stored, math.prod(shape), start)
            # What is a layer's float already stays where it is.
            floats = values if stored in (np.float32, np.float64) else as_layers_float(values, name)
            return floats.reshape(shape)

        return Tensor(shape, read)

    def _values(self, layout: Message, size: int) -> int:
        """Where a dataset's values start."""
        file, start = self._file.bytes, layout.start
        version, kind = file.integer(start, 1), file.integer(start + 1, 1)
        if version not in (3, 4, 5):
            raise ValueError(f"{self.path}: a layout of version {version}, which Keras never wrote")
        if kind not in (0, 1):
            what = "in other files" if kind == 3 else "nowhere"
            raise ValueError(f"{self.path}: its values are {what}")
        if kind == 0:
            at, stored = start + 4, file.integer(start + 2, 2)
        else:
            at, stored = file.integer(start + 2), file.integer(start + 10)
        if at == NOWHERE or stored < size or at + size > len(file.data):
            raise ValueError(f"{self.path}: its values are missing")
        return at

"""The operations of a pickle, with their operands.

A text takes up to four times its bytes as a str, and twice more on the way there. So long operands
stay where they are in the file: nobody looks into them, but for the values of an array.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Iterator
from typing import Any

from fastlstm._stored import Room

_OPERATIONS = {ord(operation.code): operation for operation in pickletools.opcodes}
# How many bytes say how long an operand is.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LONG = 1 << 16  # bytes; longer than any name, number, or source of a class
_LINE = 256  # bytes that are searched for a line's end at once
_CHUNK = 1 << 20
# Of long texts: how they are encoded, and what stands before and behind them.
_TEXTS = {
    "BINUNICODE": ("utf-8", 0, 0),
    "BINUNICODE8": ("utf-8", 0, 0),
    "UNICODE": ("raw_unicode_escape", 0, 1),
    "STRING": ("unicode_escape", 1, 2),
}


class LongText:
    """A text that is too long for a name, as it stands in the file. Its length is in bytes."""

    __slots__ = ("_data", "_encoding")

    def __init__(self, data: memoryview, encoding: str) -> None:
        self._data = data
        self._encoding = encoding

    def __len__(self) -> int:
        return len(self._data)

    def encode(self, encoding: str) -> memoryview:
        """Return it in an encoding of one byte a character; takes as much memory as it is long."""
        encoded = bytearray(len(self._data))
        length = 0
        for text in codecs.iterdecode(self._chunks(), self._encoding):
            part = text.encode(encoding)
            encoded[length : length + len(part)] = part
            length += len(part)
        return memoryview(encoded)[:length]

    def _chunks(self) -> Iterator[bytes]:
        for begin in range(0, len(self._data), _CHUNK):
            yield bytes(self._data[begin : begin + _CHUNK])


class Operations:
    """The operations of one or more pickles, one after the other.

    Parameters
    ----------
    data : memoryview
        What the pickles are in.
    room : Room, optional
        For what is read of it, unless that is counted.

    Attributes
    ----------
    position : int
        Behind the last operation.
    """

    def __init__(self, data: memoryview, room: Room | None = None) -> None:
        self.data = data
        self.position = 0
        self._room = room

    def next(self) -> tuple[str, Any]:
        """Return the next operation's name and operand.

        A long operand is a LongText or a memoryview, which take no memory.

        Raises
        ------
        ValueError
            There is none, or its operand is cut or none.
        """
        if self.position >= len(self.data):
            raise ValueError("a pickle without an end")
        operation = _OPERATIONS.get(self.data[self.position])
        if operation is None:
            raise ValueError(f"byte {self.position} of a pickle is no operation")
        begin = self.position + 1
        if operation.arg is None:
            self._read_until(begin)
            return operation.name, None
        head, end = self._operand(operation.name, operation.arg.n, begin)
        if end > len(self.data):
            raise ValueError(f"a pickle that is cut in its operation {operation.name}")
        self._read_until(end)
        if end - head <= _LONG:
            return operation.name, operation.arg.reader(io.BytesIO(self.data[begin:end]))
        if operation.name in _TEXTS:
            encoding, before, behind = _TEXTS[operation.name]
            return operation.name, LongText(self.data[head + before : end - behind], encoding)
        if operation.arg.n == pickletools.UP_TO_NEWLINE:
            raise ValueError(f"a pickle with an operation {operation.name} of {end - head} bytes")
        return operation.name, self.data[head:end]

    def _operand(self, name: str, size: int, begin: int) -> tuple[int, int]:
        """Where an operand begins, behind its length, and ends."""
        if size == pickletools.UP_TO_NEWLINE:
            end = self._line_end(begin)
            return begin, self._line_end(end) if name in ("GLOBAL", "INST") else end
        if size >= 0:
            return begin, begin + size
        head = begin + _LENGTHS[size]
        return head, head + int.from_bytes(self.data[begin:head], "little")

    def _line_end(self, begin: int) -> int:
        for at in range(begin, len(self.data), _LINE):
            found = bytes(self.data[at : at + _LINE]).find(b"\n")
            if found >= 0:
                return at + found + 1
        return len(self.data) + 1

    def _read_until(self, position: int) -> None:
        if self._room is not None:
            self._room.take(position - self.position)
        self.position = position

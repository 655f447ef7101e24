"""Links and attributes of HDF5 files that are in a heap, as those of objects with more than eight.

A B-tree (version 2) has where each of them is in a fractal heap: blocks whose sizes double.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .hdf5_format import ATTRIBUTE, ATTRIBUTE_INFO, LINK, LINK_INFO, NOWHERE, Bytes, Message

_MOST_DEPTH = 16
# Types of trees: of huge objects, of links by name, of attributes by name.
_HUGE, _LINKS, _ATTRIBUTES = 1, 5, 8


def dense_messages(file: Bytes, messages: Sequence[Message]) -> list[Message]:
    """The messages of an object that are in heaps instead of its header."""
    found: list[Message] = []
    for message in messages:
        if message.kind not in (LINK_INFO, ATTRIBUTE_INFO):
            continue
        links = message.kind == LINK_INFO
        counted = file.integer(message.start + 1, 1) & 1
        at = message.start + 2 + (8 if links else 2) * counted
        heap = file.integer(at)
        if heap == NOWHERE:
            continue
        tree, kind = file.integer(at + 8), _LINKS if links else _ATTRIBUTES
        reader = _Heap(file, heap)
        for record in _records(file, tree, kind):
            if not links and file.integer(record + 8, 1) & 2:
                raise ValueError("an attribute that several objects share")
            start, end = reader.place(record + (4 if links else 0))
            file.spend(96)
            found.append(Message(LINK if links else ATTRIBUTE, start, end, False))
    return found


class _Heap:
    """A fractal heap."""

    def __init__(self, file: Bytes, address: int) -> None:
        file.expect(address, b"FRHP\0")
        self._file = file
        self._id_size = file.integer(address + 5, 2)
        if file.integer(address + 7, 2):
            raise ValueError("a heap that is compressed")
        self._huge_tree = file.integer(address + 22)
        self._huge: dict[int, int] | None = None
        self._width, self._first = file.integer(address + 110, 2), file.integer(address + 112)
        self._most_direct = file.integer(address + 120)
        self._offset_size = -(-file.integer(address + 128, 2) // 8)
        self._length_size = self._id_size - 1 - self._offset_size
        self._root, self._rows = file.integer(address + 132), file.integer(address + 140, 2)
        if self._length_size <= 0 or not self._width or not self._first:
            raise ValueError(f"damaged: no heap at {address}")

    def place(self, identifier: int) -> tuple[int, int]:
        """Where an object starts and ends, by the place of its identifier."""
        file = self._file
        kind = file.integer(identifier, 1) >> 4 & 3
        if kind == 0:
            offset = file.integer(identifier + 1, self._offset_size)
            length = file.integer(identifier + 1 + self._offset_size, self._length_size)
            start = self._address(offset)
        elif kind == 1:
            start, length = self._huge_object(file.integer(identifier + 1, self._id_size - 1))
        else:
            raise ValueError("damaged: an object of a heap is too small")
        file.check(start, length)
        return start, start + length

    def _address(self, offset: int) -> int:
        file, block = self._file, self._root
        if self._rows == 0:
            file.expect(block, b"FHDB\0")
            return block + offset
        while True:
            file.expect(block, b"FHIB\0")
            row = (offset // (self._first * self._width)).bit_length()
            size = self._first << max(row - 1, 0)
            offset -= size * self._width if row else 0
            entry = row * self._width + offset // size
            block = file.integer(block + 13 + self._offset_size + 8 * entry)
            offset %= size
            if size <= self._most_direct:
                file.expect(block, b"FHDB\0")
                return block + offset

    def _huge_object(self, key: int) -> tuple[int, int]:
        file = self._file
        if self._huge is None:
            self._huge = {}
            for record in _records(file, self._huge_tree, _HUGE):
                file.spend(128)
                self._huge[file.integer(record + 16)] = record
        if key not in self._huge:
            raise ValueError("damaged: an object of a heap is missing")
        record = self._huge[key]
        return file.integer(record), file.integer(record + 8)


def _records(file: Bytes, tree: int, kind: int) -> Iterator[int]:
    """Where the records of a tree are, in their order."""
    file.expect(tree, b"BTHD\0" + bytes([kind]))
    node_size, record_size = file.integer(tree + 6, 4), file.integer(tree + 10, 2)
    depth, root, count = (file.integer(tree + at, size) for at, size in ((12, 2), (16, 8), (24, 2)))
    if depth > _MOST_DEPTH or record_size < 11 or node_size <= record_size:
        raise ValueError(f"damaged: no tree at {tree}")
    if count == 0:
        return
    most = (node_size - 10) // record_size
    count_size = _bytes_of(most)
    # Of nodes of each height: how many bytes the number of all records below them takes.
    below, total_sizes = most, [0]
    for _ in range(depth):
        pointer = 8 + count_size + total_sizes[-1]
        most = max((node_size - 10 - pointer) // (record_size + pointer), 0)
        below = (most + 1) * below + most
        total_sizes.append(_bytes_of(below))
    waiting = [(root, count, depth)]
    while waiting:
        node, count, height = waiting.pop()
        file.expect(node, b"BTIN\0" if height else b"BTLF\0")
        file.check(node + 6, count * record_size)
        yield from range(node + 6, node + 6 + count * record_size, record_size)
        if height:
            at = node + 6 + count * record_size
            for _ in range(count + 1):
                child = file.integer(at), file.integer(at + 8, count_size), height - 1
                waiting.append(child)
                at += 8 + count_size + total_sizes[height - 1]


def _bytes_of(number: int) -> int:
    return max(number.bit_length() + 7, 8) // 8

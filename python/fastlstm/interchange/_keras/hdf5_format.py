"""The structures of HDF5 files, as its specification of the file format calls them.

Only those that Keras' files have, in the forms that the HDF5 library writes by default and with
``libver="latest"``. Whatever else a file has is refused by name. Nothing here follows what leads
out of the file, or trusts a length: each structure that is read is paid for from a budget of the
file's own size, so that parts which lead to each other in circles, or are shared by many, end.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = 2**64 - 1  # the address of what is not in the file

# Types of messages in object headers.
SPACE, LINK_INFO, TYPE, LINK, EXTERNAL, LAYOUT = 0x1, 0x2, 0x3, 0x6, 0x7, 0x8
FILTERS, ATTRIBUTE, CONTINUATION, GROUP, ATTRIBUTE_INFO = 0xB, 0xC, 0x10, 0x11, 0x15
# Classes of datatypes.
INTEGER, FLOAT, TEXT, VARIABLE = 0, 1, 3, 9
_CLASSES = {
    2: "times",
    TEXT: "text",
    4: "bits",
    5: "bytes",
    6: "compounds",
    7: "references",
    8: "an enumeration",
    10: "arrays",
}
# Of floats: bits, and the place and size of exponent and mantissa, and the exponent's bias.
_FLOATS = {
    (16, 10, 5, 0, 10, 15): "float16",
    (32, 23, 8, 0, 23, 127): "float32",
    (64, 52, 11, 0, 52, 1023): "float64",
    (16, 7, 8, 0, 7, 127): "bfloat16",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message of an object header."""

    kind: int
    start: int
    end: int
    shared: bool
    """Its content is elsewhere."""


@dataclass(frozen=True)
class Type:
    """The type of the values of an attribute or a dataset."""

    kind: int
    size: int
    name: str
    """What NumPy calls it, or bfloat16, bytes, text, or what else it is for errors."""
    order: str = "<"
    """Of the bytes of numbers."""


# Where the object of a link has its header, or what the link is instead.
Target: TypeAlias = "int | str"


class Bytes:
    """The bytes of a file, read within its bounds and within a budget.

    Parameters
    ----------
    data : bytes or mmap
        From the signature on; addresses count from there.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        # In bytes. Room for what the structures become in memory, and a floor for small files.
        self._left = 2 * len(data) + (1 << 24)
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def spend(self, cost: int) -> None:
        """Pay for something that is read or made."""
        self._left -= cost
        if self._left < 0:
            raise ValueError("damaged: its parts are read again and again, or far too many")

    def check(self, start: int, size: int) -> None:
        """Raise ValueError unless the file has a part, and pay for it."""
        if start < 0 or size < 0 or start + size > len(self.data):
            raise ValueError(f"damaged: {size} bytes at {start} are not all in the file")
        self.spend(size + 8)

    def take(self, start: int, size: int) -> bytes:
        """Return a part of the file."""
        self.check(start, size)
        return self.data[start : start + size]

    def integer(self, start: int, size: int = 8) -> int:
        """Return an unsigned integer."""
        return int.from_bytes(self.take(start, size), "little")

    def expect(self, start: int, signature: bytes) -> None:
        """Raise ValueError unless a structure begins as it must."""
        if self.take(start, len(signature)) != signature:
            raise ValueError(f"damaged: expected {signature!r} at {start}")

    def text(self, start: int, end: int) -> str:
        """Return a text that ends with a zero byte before end, or at end."""
        self.check(start, 0)
        end = min(end, len(self.data))
        zero = self.data.find(b"\0", start, end)
        length = (end if zero < 0 else zero) - start
        self.spend(3 * length)  # a character may take four bytes
        try:
            return self.take(start, length).decode()
        except UnicodeDecodeError:
            raise ValueError(f"damaged: what is at {start} is no text") from None

    # --- the file -------------------------------------------------------------------------------

    def root(self) -> int:
        """Return the address of the root group's object header."""
        self.expect(0, SIGNATURE)
        version = self.integer(8, 1)
        sizes = 13 if version < 2 else 9
        if version > 3 or self.integer(sizes, 2) != 0x0808:
            raise ValueError(
                f"an HDF5 file of version {version}, or with addresses that are not of 8 bytes"
            )
        return self.integer({0: 64, 1: 68}.get(version, 36))

    # --- objects --------------------------------------------------------------------------------

    def messages(self, address: int) -> list[Message]:
        """Return the messages of an object's header."""
        if self.take(address, 4) == b"OHDR":
            return self._messages_2(address)
        version, size = self.integer(address, 1), self.integer(address + 8, 4)
        if version != 1:
            raise ValueError(f"damaged: no object at {address}")
        found: list[Message] = []
        parts = [(address + 16, size)]
        for start, size in parts:  # which grows
            at, end = start, start + size
            while at + 8 <= end:
                kind, length = self.integer(at, 2), self.integer(at + 2, 2)
                shared = bool(self.integer(at + 4, 1) & 2)
                self._add(found, parts, Message(kind, at + 8, at + 8 + length, shared), end)
                at += 8 + length
        return found

    def _messages_2(self, address: int) -> list[Message]:
        flags = self.integer(address + 5, 1)
        start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        head = 6 if flags & 4 else 4
        found: list[Message] = []
        parts = [(start + width, self.integer(start, width))]
        for n, (start, size) in enumerate(parts):  # which grows
            at, end = start, start + size
            if n > 0:  # between a signature and a checksum
                self.expect(start, b"OCHK")
                at, end = at + 4, end - 4
            while at + head <= end:
                kind, length = self.integer(at, 1), self.integer(at + 1, 2)
                shared = bool(self.integer(at + 3, 1) & 2)
                self._add(found, parts, Message(kind, at + head, at + head + length, shared), end)
                at += head + length
        return found

    def _add(
        self,
        found: list[Message],
        parts: list[tuple[int, int]],
        message: Message,
        end: int,
    ) -> None:
        self.spend(96)
        if message.end > end:
            raise ValueError(
                f"damaged: a message at {message.start} ends after its object's header"
            )
        if message.kind == CONTINUATION:
            parts.append((self.integer(message.start), self.integer(message.start + 8)))
        else:
            found.append(message)

    # --- groups ---------------------------------------------------------------------------------

    def links(self, messages: Sequence[Message]) -> dict[str, Target] | None:
        """Return what a group has, by name; None where the object is no group."""
        found: dict[str, Target] = {}
        is_group = False
        for message in messages:
            start = message.start
            if message.kind == GROUP:
                is_group = True
                tree, heap = self.integer(start), self.integer(start + 8)
                for name, target in self._table(tree, heap):
                    self._link(found, name, target)
            elif message.kind == LINK:
                is_group = True
                self._link(found, *self._link_message(start))
            elif message.kind == LINK_INFO:
                is_group = True
        return found if is_group else None

    def _link(self, found: dict[str, Target], name: str, target: Target) -> None:
        self.spend(192)
        if name in found:
            raise ValueError(f"damaged: a group has {name!r} twice")
        found[name] = target

    def _link_message(self, start: int) -> tuple[str, Target]:
        flags = self.integer(start + 1, 1)
        at = start + 2
        kind = self.integer(at, 1) if flags & 8 else 0
        at += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        length = self.integer(at, width)
        name = self.text(at + width, at + width + length)
        if kind:
            kinds = {1: "a soft link", 64: "a link to another file"}
            return name, kinds.get(kind, "a link of a kind of its own")
        return name, self.integer(at + width + length)

    def _table(self, tree: int, heap: int) -> Iterator[tuple[str, Target]]:
        """The entries of a group in the older form: a B-tree of tables, names in a heap."""
        self.expect(heap, b"HEAP")
        size, names = self.integer(heap + 8), self.integer(heap + 24)
        nodes: list[tuple[int, int | None]] = [(tree, None)]
        while nodes:
            node, expected = nodes.pop()
            self.expect(node, b"TREE\0")
            level, count = self.integer(node + 5, 1), self.integer(node + 6, 2)
            if expected is not None and level != expected:
                raise ValueError(f"damaged: a tree at {node} is not as deep as it says")
            for child in reversed([self.integer(node + 32 + 16 * k) for k in range(count)]):
                if level:
                    nodes.append((child, level - 1))
                else:
                    yield from self._node(child, names, size)

    def _node(self, node: int, names: int, size: int) -> Iterator[tuple[str, Target]]:
        self.expect(node, b"SNOD\1")
        for k in range(self.integer(node + 6, 2)):
            entry = node + 8 + 40 * k
            name = self.text(names + self.integer(entry), names + size)
            soft = self.integer(entry + 16, 4) == 2
            yield name, "a soft link" if soft else self.integer(entry + 8)

    # --- types, shapes, texts -------------------------------------------------------------------

    def type(self, start: int) -> Type:
        """Return a datatype."""
        kind, bits = self.integer(start, 1) & 15, self.integer(start + 1, 3)
        size = self.integer(start + 4, 4)
        order: str = ">" if bits & 1 else "<"
        if kind == FLOAT:
            offset, precision = self.integer(start + 8, 2), self.integer(start + 10, 2)
            places = self.take(start + 12, 4)
            name = _FLOATS.get((precision, *places, self.integer(start + 16, 4)))
            # No bits of padding, no other order of bytes, a mantissa with its implied one.
            plain = offset == 0 and 8 * size == precision and bits & 0x7E == 0x20
            if name is None or not plain or bits >> 8 != precision - 1:
                return Type(kind, size, f"floats of {precision} bits in {size} bytes")
            return Type(kind, size, name, order)
        if kind == INTEGER:
            return Type(kind, size, f"{'int' if bits & 8 else 'uint'}{8 * size}", order)
        if kind == VARIABLE:
            return Type(kind, size, "text" if bits & 15 == 1 else "sequences")
        return Type(kind, size, _CLASSES.get(kind, f"type {kind}"))

    def shape(self, start: int) -> tuple[int, ...]:
        """Return the shape that a dataspace states."""
        version, rank = self.integer(start, 1), self.integer(start + 1, 1)
        if version == 2 and self.integer(start + 3, 1) == 2:  # without values
            return (0,)
        if version not in (1, 2) or rank > 32:
            raise ValueError(f"damaged: a shape at {start} of version {version}, rank {rank}")
        at = start + (8 if version == 1 else 4)
        return tuple(self.integer(at + 8 * k) for k in range(rank))

    def attribute_name(self, message: Message) -> str:
        """Return the name of an attribute."""
        start = message.start
        name = start + (9 if self.integer(start, 1) == 3 else 8)
        return self.text(name, name + self.integer(start + 2, 2))

    def attribute(self, message: Message) -> list[str]:
        """Return an attribute that is one text or several."""
        start = message.start
        version, flags = self.integer(start, 1), self.integer(start + 1, 1)
        if version not in (1, 2, 3) or message.shared or (version > 1 and flags & 3):
            raise ValueError(f"an attribute of version {version}, or one whose type is elsewhere")
        lengths = [self.integer(start + 2 + 2 * k, 2) for k in range(3)]
        padded = [-(-n // 8) * 8 if version == 1 else n for n in lengths]
        kind = start + (9 if version == 3 else 8) + padded[0]
        space = kind + padded[1]
        return self._texts(self.type(kind), self.shape(space), space + padded[2], message.end)

    def _texts(self, kind: Type, shape: tuple[int, ...], start: int, end: int) -> list[str]:
        count = math.prod(shape)
        if count == 0:  # of any type: NumPy makes floats of an empty list
            return []
        if kind.name != "text":
            raise ValueError(f"expected text, got {kind.name}")
        if kind.size == 0 or count > (end - start) // kind.size:
            raise ValueError(f"damaged: {count} texts in {end - start} bytes")
        self.spend(64 * count)
        places = [start + kind.size * k for k in range(count)]
        if kind.kind == TEXT:
            return [self.text(at, at + kind.size) for at in places]
        return [self._heap_text(at) for at in places]

    def _heap_text(self, at: int) -> str:
        """A text of any length: it lies in a global heap."""
        length, heap, index = self.integer(at, 4), self.integer(at + 4), self.integer(at + 12, 4)
        if length == 0:
            return ""
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        start, size = self._heaps[heap].get(index, (0, 0))
        if size < length:
            raise ValueError(f"damaged: a text of {length} bytes is not in the heap at {heap}")
        return self.text(start, start + length)

    def _heap(self, heap: int) -> dict[int, tuple[int, int]]:
        self.expect(heap, b"GCOL\1")
        end = heap + self.integer(heap + 8)
        at, found = heap + 16, {}
        while at + 16 <= end:
            index, size = self.integer(at, 2), self.integer(at + 8)
            if index == 0:  # the free rest
                break
            if at + 16 + size > end:
                raise ValueError(f"damaged: an object of the heap at {heap} ends after it")
            self.spend(256)
            found[index] = (at + 16, size)
            at += 16 + -(-size // 8) * 8
        return found

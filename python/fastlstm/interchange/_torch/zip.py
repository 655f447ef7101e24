"""Zip archives of large uncompressed files, as torch.save writes them.

The zipfile module makes an object of a kilobyte for each entry of the directory, reads twice what
two entries share, and hands out bytes; this hands out places in the file. What is read must stand
in the file once, as it is there.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from fastlstm._files import HeldFile
from fastlstm._stored import Room

# A member of the directory, in memory.
_ENTRY = 500
_STORED, _DEFLATED = 0, 8
_IN_ZIP64 = 0xFFFFFFFF


class Member(NamedTuple):
    """A file of an archive."""

    header: int  # where its local header is
    size: int  # in bytes, in the archive
    full_size: int  # decompressed
    method: int
    flags: int
    crc: int


class Archive:
    """What is in a zip archive.

    Parameters
    ----------
    file : HeldFile
    room : Room
        For its directory, and what is read.

    Raises
    ------
    ValueError
        It is none, or damaged.
    """

    def __init__(self, file: HeldFile, room: Room) -> None:
        self._file = file
        self._room = room
        self.members = self._read_directory()

    def read(self, name: str, *, compressed: bool = False) -> bytes:
        """Return a member's bytes. Whether they may be compressed is for the caller to know."""
        member = self._member(name)
        offset = self.offset(name, compressed=compressed)
        self._room.take(member.size)
        data = self._bytes(offset, member.size)
        if member.method == _DEFLATED:
            self._room.take(member.full_size)
            data = zlib.decompressobj(-15).decompress(data, member.full_size + 1)
        if len(data) != member.full_size or (member.crc and zlib.crc32(data) != member.crc):
            raise ValueError(f"{name} is damaged")
        return data

    def offset(self, name: str, *, compressed: bool = False) -> int:
        """Return where a member's bytes begin in the file."""
        member = self._member(name)
        if member.flags & 1:
            raise ValueError(f"{name} is encrypted")
        if member.method != _STORED and not (compressed and member.method == _DEFLATED):
            raise ValueError(f"{name} is compressed")
        header = self._bytes(member.header, 30)
        name_length, extra_length = (int(n) for n in struct.unpack("<HH", header[26:30]))
        if header[:4] != b"PK\3\4" or self._bytes(member.header + 30, name_length) != name.encode():
            raise ValueError(f"{name} is not where the directory says")
        return member.header + 30 + name_length + extra_length

    def _member(self, name: str) -> Member:
        if name not in self.members:
            raise ValueError(f"{name} is missing")
        return self.members[name]

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self._file.size:
            raise ValueError("the file is cut, or lengths in it are damaged")
        return self._file.read(offset, size)

    def _read_directory(self) -> dict[str, Member]:
        count, size, offset = self._find_directory()
        self._room.take(2 * size + count * _ENTRY)
        directory = self._bytes(offset, size)
        members: dict[str, Member] = {}
        place = 0
        for _ in range(count):
            if directory[place : place + 4] != b"PK\1\2" or place + 46 > size:
                raise ValueError("its directory is damaged")
            flags, method = struct.unpack_from("<HH", directory, place + 8)
            crc, stored, full, *lengths = struct.unpack_from("<IIIHHH", directory, place + 16)
            (header,) = struct.unpack_from("<I", directory, place + 42)
            start = place + 46
            extra_start = start + lengths[0]
            place = start + sum(lengths)
            name = directory[start:extra_start].decode()
            extra = directory[extra_start : extra_start + lengths[1]]
            full, stored, header = _from_zip64(extra, [full, stored, header])
            if name in members:
                raise ValueError(f"{name} is there twice")
            members[name] = Member(header, stored, full, method, flags, crc)
        self._check_places(members)
        return members

    def _find_directory(self) -> tuple[int, int, int]:
        """The number of members, and the directory's size and place."""
        tail_start = max(0, self._file.size - 22 - 65535)
        tail = self._bytes(tail_start, self._file.size - tail_start)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(tail):
            raise ValueError("a zip archive without a directory: the file is cut")
        count, size, offset = struct.unpack_from("<HII", tail, at + 10)
        locator = tail_start + at - 20
        if locator >= 0 and (found := self._bytes(locator, 20))[:4] == b"PK\6\7":
            (end,) = struct.unpack_from("<Q", found, 8)
            record = self._bytes(end, 56)
            if record[:4] != b"PK\6\6":
                raise ValueError("its directory is damaged")
            count, size, offset = struct.unpack_from("<QQQ", record, 32)
        if 46 * count > size:
            raise ValueError("its directory is damaged")
        return count, size, offset

    def _check_places(self, members: dict[str, Member]) -> None:
        """Refuse members that share bytes: a file of some size would have many times as many."""
        end = 0
        for name, member in sorted(members.items(), key=lambda item: item[1].header):
            if member.header < end:
                raise ValueError(f"{name} shares bytes with another")
            end = member.header + 30 + len(name.encode()) + member.size
        if end > self._file.size:
            raise ValueError("the file is cut, or lengths in it are damaged")


def _from_zip64(extra: bytes, values: list[int]) -> list[int]:
    """Sizes and places, of which those that need more than 32 bits stand in the extra field."""
    wanted = [n for n, value in enumerate(values) if value == _IN_ZIP64]
    place = 0
    while wanted and place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            for n, (value,) in zip(
                wanted,
                struct.iter_unpack("<Q", extra[place + 4 :][: length // 8 * 8]),
                strict=False,
            ):
                values[n] = value
            break
        place += 4 + length
    return values

"""How much memory protobuf will take for a file.

A message without fields has two bytes in a file, and a hundred or more in memory. So the messages
are counted before protobuf makes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_OF_A_MESSAGE = 200  # protobuf's, and what we and Python keep of a node
_OF_A_TEXT = 16
_OF_A_NUMBER = 16  # and of an array that is made of it


def check_memory(data: bytes, descriptor: Any, most: int) -> None:
    """Raise ValueError where the messages in a file take more than that.

    Parameters
    ----------
    data : bytes
        A message.
    descriptor : Descriptor
        Its type.
    most : int
        Bytes.
    """
    kinds: dict[str, dict[int, Any]] = {}
    taken = 0
    todo = [(0, len(data), descriptor)]
    while todo:
        at, end, descriptor = todo.pop()
        if descriptor.full_name not in kinds:
            kinds[descriptor.full_name] = {f.number: f for f in descriptor.fields}
        fields = kinds[descriptor.full_name]
        while at < end:
            tag, at = _number(data, at)
            wire, field = tag & 7, fields.get(tag >> 3)
            if wire == 2:
                length, at = _number(data, at)
                last = min(at + length, end)
                if field is None:
                    taken += length
                elif field.message_type is not None:
                    taken += _OF_A_MESSAGE
                    todo.append((at, last, field.message_type))
                elif field.cpp_type == field.CPPTYPE_STRING:
                    taken += _OF_A_TEXT + length
                elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
                    taken += 2 * length
                else:  # whole numbers, of which each ends with a byte below 128
                    packed = np.frombuffer(data, np.uint8, last - at, at)
                    taken += _OF_A_NUMBER * int(np.count_nonzero(packed < 128))
                at = last
            elif wire == 0:
                _, at = _number(data, at)
                taken += _OF_A_NUMBER
            else:  # of 8 or 4 bytes; others are an error, which protobuf finds
                at += {1: 8, 5: 4}.get(wire, end)
                taken += _OF_A_NUMBER
            if taken > most:
                raise ValueError("it would take more memory than its size explains")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number at a place, and the place behind it."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:
            break
        shift += 7
    return value, at

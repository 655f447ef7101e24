"""Where users find what this package has."""

from __future__ import annotations

from typing import TypeVar

ClassT = TypeVar("ClassT", bound=type)


def public(cls: ClassT) -> ClassT:
    """Say that a class is ``fastlstm``'s: pickles and messages do not name the file it is in."""
    cls.__module__ = "fastlstm"
    return cls

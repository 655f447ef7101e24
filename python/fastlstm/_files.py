"""Files: written so that they are complete or as they were before, and told for what they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from ._checks import as_path


def write_whole(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write parts to a file, which is complete or as it was before.

    Raises
    ------
    TypeError
        The path is none.
    OSError
        The file cannot be written.
    """
    path = as_path("path", path)
    # A device or a pipe is written to, not replaced.
    write = _replace if os.path.isfile(path) or not os.path.exists(path) else _write
    try:
        write(path, parts)
    except OSError as error:  # of the temporary file, or without a name
        raise OSError(error.errno, error.strerror, path) from None


def _write(path: str, parts: Iterable[bytes | memoryview], mode: str = "wb") -> None:
    with open(path, mode) as file:
        file.writelines(parts)


def _replace(path: str, parts: Iterable[bytes | memoryview]) -> None:
    temporary = os.path.join(os.path.dirname(path), f".fastlstm-{os.urandom(8).hex()}")
    try:
        _write(temporary, parts, "xb")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def what_it_is_instead(head: bytes) -> str | None:
    """Say what often stands in the place of a file of weights; None where it is neither.

    Parameters
    ----------
    head : bytes
        The file's first bytes, 64 or more where it has them.
    """
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file that it stands for: fetch that with `git lfs pull`"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGE):
        return "a web page, not the file that it should lead to: download the file itself"
    if not head:
        return "an empty file"
    return None

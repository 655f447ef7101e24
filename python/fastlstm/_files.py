"""What a file is, told by its first bytes."""

from __future__ import annotations

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

"""Packages that come with extras, for what is of no use to everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Say what needs a package that is not installed, and how to install it.

    For a ``with`` block around the imports, or as a decorator of what makes them. The outermost one
    has the last word.

    Raises
    ------
    ModuleNotFoundError
        Instead of the one from the block, with its ``name``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise ModuleNotFoundError(
            f"{what} needs the package {package}: pip install 'fastlstm[{extra}]'", name=error.name
        ) from error

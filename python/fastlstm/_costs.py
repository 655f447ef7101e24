"""Costs that ``fastlstm tune`` has measured on this machine: the file that it leaves for others.

They are constants of the model by which calls are divided among threads (docs/threads.md). No bit
of a result depends on them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from . import _core
from ._saving import write_whole

_FORMAT = "fastlstm costs 1"
_MOST_BYTES = 1 << 16
_MOST_SHOWN = 300  # characters of what is wrong with a file, which may quote it
_VARIABLE = "FASTLSTM_COSTS"

# What has become of the file, for show_config; empty where there is none.
note = ""


def default_path() -> str | None:
    """Return where the file is: what ``FASTLSTM_COSTS`` names, or in the user's cache directory.

    None where the variable is ``none``, or there is no such directory.
    """
    named = os.environ.get(_VARIABLE, "")
    if named:
        return None if named == "none" else named
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        folder = os.path.expanduser("~/Library/Caches")
    else:
        folder = os.environ.get("XDG_CACHE_HOME", "") or os.path.expanduser("~/.cache")
    # Without a home "~" stays, and a relative folder would be anywhere.
    return os.path.join(folder, "fastlstm", "costs.txt") if os.path.isabs(folder) else None


def machine() -> str:
    """Return what costs are of: measured elsewhere, they mean nothing here."""
    isa = _core.available_isas()[0]
    return f"{_core.cpu_name() or 'a CPU'}, {isa}, {_core.usable_cpus()} CPUs"


def write(path: str, costs: Mapping[str, float]) -> None:
    """Write a file of costs, with the folders it needs: complete, or it is as it was before.

    Raises
    ------
    OSError
        It cannot be written.
    """
    make_folder(path)
    lines = [_FORMAT, machine(), *(f"{name} {value!r}" for name, value in costs.items())]
    write_whole(path, ("\n".join(lines) + "\n").encode())


def make_folder(path: str) -> None:
    """Make the folders that a file needs."""
    os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)


def read(path: str) -> list[tuple[str, float]]:
    """Return the costs of a file.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is no file of costs, or of another machine's.
    """
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too long")
    format, of_machine, *lines = [*data.decode("utf-8").splitlines(), "", ""][: 2 + _MOST_BYTES]
    if format != _FORMAT:
        raise ValueError(f"expected {_FORMAT!r} in its first line")
    if of_machine != machine():
        raise ValueError(f"it is of another machine ({of_machine}; this is {machine()})")
    pairs = [line.split() for line in lines if line]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("expected a name and a value in each line")
    return [(name, float(value)) for name, value in pairs]


def use_file() -> None:
    """Use the file, if there is one, and say in `note` what came of it. Never raises."""
    global note
    path = default_path()
    if path is None or not os.path.isfile(path):
        return
    try:
        _core.set_costs(read(path))
        note = f"costs measured here, from {_printable(path)}"
    except (OSError, ValueError) as error:
        note = f"{_printable(path)} is not used: {_printable(_first_of(str(error)))}"


def _first_of(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _printable(text: str) -> str:
    """A text that may be a stranger's, with nothing in it that a terminal obeys or cannot show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

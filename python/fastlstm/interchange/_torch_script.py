"""What the code in an archive of torch.jit.save says of its modules: constants, which are in no
pickle.

It is read as text. Code that was traced does not say what its modules were made with.
"""

from __future__ import annotations

import re
from typing import Any

from ._pickle import Global

_CLASS = re.compile(r"class (\w+)\(Module\):\n((?:  (?!def )[^\n]*\n)*)")
_CONSTANT = re.compile(r"  (\w+) : Final\[\w+\] = (True|False|-?\d+|-?\d+\.\d*|\"\w*\")\n")
_MANGLED = re.compile(r"\.___torch_mangle_\d+")


def constants(code: str) -> dict[str, dict[str, Any]]:
    """Return the constants of a file's classes, by the names of these."""
    return {
        name: {key: _value(text) for key, text in _CONSTANT.findall(body)}
        for name, body in _CLASS.findall(code)
    }


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if text.startswith('"'):
        return text[1:-1]
    return float(text) if "." in text else int(text[:20])


def python_class(kind: Global) -> Global:
    """Return the class that a class of TorchScript was made of."""
    module = _MANGLED.sub("", kind.module.removeprefix("__torch__").removeprefix("."))
    return Global(module, kind.name)


def code_file(kind: Global) -> str:
    """Return the name of the file, in the archive's folder "code", that has a class."""
    return kind.module.replace(".", "/") + ".py"

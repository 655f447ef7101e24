"""What the code in an archive of torch.jit.save says of its modules, which is in no pickle.

It is read as text. What was scripted has constants. What was traced has only the call that it made.
"""

from __future__ import annotations

import re
from typing import Any

from .pickle import Global

_CLASS = re.compile(r"^class (\w+)\(Module\):\n", re.MULTILINE)
_CONSTANT = re.compile(r"^  (\w+) : Final\[\w+\] = (True|False|-?[\d.]+|\"\w*\")$", re.MULTILINE)
# torch.lstm(x, states, weights, bias, num_layers, dropout, training, bidirectional, batch_first)
_CALL = re.compile(
    r"torch\.(lstm|gru|rnn_tanh|rnn_relu)\(\w+, \w+, \w+, (?:True|False), \d+, ([\d.]+), "
    r"(?:True|False), (?:True|False), (True|False)\)"
)
_MANGLED = re.compile(r"\.___torch_mangle_\d+")


def attributes(code: str) -> dict[str, dict[str, Any]]:
    """Return what a file's classes say of their modules, by the names of the classes."""
    _, *parts = _CLASS.split(code)
    return {name: _attributes(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _attributes(body: str) -> dict[str, Any]:
    said = {name: _value(text) for name, text in _CONSTANT.findall(body)}
    if not said and (call := _CALL.search(body)):
        mode, dropout, batch_first = call.groups()
        said = {
            "mode": mode.upper(),
            "dropout": _value(dropout),
            "batch_first": _value(batch_first),
        }
    return said


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if text.startswith('"'):
        return text[1:-1]
    return float(text) if "." in text else int(text)


def python_class(kind: Global) -> Global:
    """Return the class that a class of TorchScript was made of."""
    module = _MANGLED.sub("", kind.module.removeprefix("__torch__").removeprefix("."))
    return Global(module, kind.name)


def code_file(kind: Global) -> str:
    """Return the name of the file, in the archive's folder "code", that has a class."""
    return kind.module.replace(".", "/") + ".py"

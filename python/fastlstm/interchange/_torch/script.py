"""What the code in an archive of torch.jit.save says of its modules, which is in no pickle.

It is read as text. What was scripted has constants. What was traced has only the calls that
it made, and they must be those of PyTorch's layers and cells: it may have been patched before.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from .parameters import in_order, is_parameter
from .pickle import Global

# What a module has whose traced code is not that of PyTorch's layers.
CHANGED_CODE = "traced code that is not its call with its parameters and unpacked input"

_CLASS = re.compile(r"^class (\w+)\(Module\):\n", re.MULTILINE)
_CONSTANT = re.compile(r"^  (\w+) : Final\[\w+\] = (True|False|-?[\d.]+|\"\w*\")$", re.MULTILINE)
_TENSOR = re.compile(r"^  (\w+) : Tensor$", re.MULTILINE)
_METHOD = re.compile(r"^  def \w+\(([^()]*)\) -> .*:\n", re.MULTILINE)
_ARGUMENT = re.compile(r"^ *(\w+): ", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^    ([\w, ]+?),? = (.*)$", re.MULTILINE)
_RETURN = re.compile(r"^    return (.*)$", re.MULTILINE)
_NAME = re.compile(r"[^\W\d]\w*")
_FUNCTION = re.compile(r"\b(?:torch|ops\.\w+)\.(\w+)\(")
# torch.lstm(x, states, weights, bias, num_layers, dropout, training, bidirectional, batch_first)
_CALL = re.compile(
    r"torch\.(lstm|gru|rnn_tanh|rnn_relu)\((\w+), \w+, (\w+), (True|False), (\d{1,9}), ([\d.]+), "
    r"(?:True|False), (True|False), (True|False)\)"
)
# What is around a layer's call; and what a cell calls, how many times.
_AROUND = ("NumToTensor", "size", "zeros", "device", "unsqueeze", "squeeze")
_CELLS = (
    {"linear": 2, "add": 2, "unsafe_chunk": 1, "sigmoid": 3, "tanh": 2, "mul": 3},
    {"linear": 2, "add": 4, "unsafe_chunk": 2, "sigmoid": 2, "tanh": 1, "mul": 2, "sub": 1},
    *({"linear": 2, "add": 1, function: 1} for function in ("tanh", "relu")),
    *({f"{cell}_cell": 1} for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
)
_LONGEST_CODE = 1 << 20  # of a class that was traced, in characters
_MANGLED = re.compile(r"\.___torch_mangle_\d+")


def attributes(code: str) -> dict[str, dict[str, Any]]:
    """Return what a file's classes say of their modules, by the names of the classes."""
    _, *parts = _CLASS.split(code)
    return {name: _attributes(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _attributes(body: str) -> dict[str, Any]:
    said = {name: _value(text) for name, text in _CONSTANT.findall(body)}
    if said:
        return said
    calls: list[dict[str, Any] | None] = [None]
    if len(body) < _LONGEST_CODE:
        _, *methods = _METHOD.split(body)  # one for each call in the model
        parameters = _TENSOR.findall(body)
        pairs = zip(methods[::2], methods[1::2], strict=True)
        calls = [_traced(_ARGUMENT.findall(head), code, parameters) for head, code in pairs]
    if not calls or calls[0] is None or any(call != calls[0] for call in calls):
        return {CHANGED_CODE: True}
    return calls[0]


def _traced(arguments: list[str], code: str, parameters: list[str]) -> dict[str, Any] | None:
    """What the code of one call says; None if it is not that of a layer or cell of PyTorch."""
    assignments = _ASSIGNMENT.findall(code)
    values = dict(assignments)
    functions = Counter(name.rstrip("_") for name in _FUNCTION.findall(code))
    for name in _AROUND:
        functions.pop(name, None)
    if (
        not all(map(is_parameter, parameters))
        or any(values.get(name) != f"self.{name}" for name in parameters)
        or code.count("self.") != len(parameters)
        or "CONSTANTS" in code
        or "__torch__" in code
    ):
        return None
    if dict(functions) in _CELLS:
        return {}
    call = _CALL.search(code)
    if call is None or functions != {call[1]: 1}:
        return None
    mode, x, weights, bias, num_layers, dropout, bidirectional, batch_first = call.groups()
    # Of a sequence without a batch, one is made, and it is taken away from the results.
    inputs, results = {*arguments, "torch", "unsqueeze"}, {"torch", "squeeze"}
    for names, value in assignments:
        if value == call[0]:
            results.update(_NAME.findall(names))
        for known in (inputs, results):
            if known.issuperset(_NAME.findall(value)):
                known.update(_NAME.findall(names))
    is_its = (
        x in inputs
        and values.get(weights) == f"[{', '.join(in_order(parameters))}]"
        and all(results.issuperset(_NAME.findall(value)) for value in _RETURN.findall(code))
    )
    if not is_its:
        return None
    return {
        "mode": mode.upper(),
        "bias": bias == "True",
        "num_layers": int(num_layers),
        "dropout": _value(dropout),
        "bidirectional": bidirectional == "True",
        "batch_first": batch_first == "True",
    }


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

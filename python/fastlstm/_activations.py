"""The activation functions of recurrent layers: ONNX's list, and how users name them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ._checks import as_real

# "Tanh", or with its parameters: ("HardSigmoid", 0.2, 0.5).
ActivationName: TypeAlias = "str | tuple[str, float] | tuple[str, float, float]"


class Activation(NamedTuple):
    """A function of one number, with as many parameters as ONNX gives it."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


# ONNX's name -> the defaults of its parameters; None: ONNX has none, so that they must be given.
PARAMETERS: dict[str, tuple[float | None, ...]] = {
    "Affine": (None, None),
    "Relu": (),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "Tanh": (),
    "ScaledTanh": (None, None),
    "Sigmoid": (),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "Softsign": (),
    "Softplus": (),
}
NAMES = tuple(PARAMETERS)
_BY_LOWER_CASE = {name.lower(): name for name in NAMES}
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal numbers of float32


def as_activation(argument: str, value: Any) -> Activation:
    """Return what value names, in any case, with its parameters filled in."""
    name, *given = [value] if isinstance(value, str) else list(_sequence(argument, value))
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected the name of a function, got {name!r}")
    if name.lower() not in _BY_LOWER_CASE:
        raise ValueError(f"{argument}: expected one of {', '.join(NAMES)}, got {name!r}")
    name = _BY_LOWER_CASE[name.lower()]
    defaults = PARAMETERS[name]
    if len(given) > len(defaults):
        raise ValueError(
            f"{argument}: expected at most {len(defaults)} parameters of {name}, got {len(given)}"
        )
    parameters = []
    filled = [*given, *defaults[len(given) :]]
    for letter, parameter in zip(("alpha", "beta"), filled, strict=False):
        if parameter is None:
            raise ValueError(f"{argument}: expected ({name!r}, alpha, beta), got {value!r}")
        parameters.append(as_real(f"{argument}: {letter}", parameter, -_LARGEST, _LARGEST))
    return Activation(name, *parameters)


def as_activations(argument: str, value: Any, count: int) -> tuple[ActivationName, ...]:
    """Return this many functions, each as briefly as a user can write it."""
    values = tuple(_sequence(argument, value))
    if len(values) != count:
        raise ValueError(f"{argument}: expected {count} functions, got {len(values)}")
    return tuple(_shortest(as_activation(f"{argument}[{k}]", v)) for k, v in enumerate(values))


def _shortest(activation: Activation) -> ActivationName:
    """A name alone where the function has no parameters."""
    count = len(PARAMETERS[activation.name])
    if count == 0:
        return activation.name
    name, alpha, beta = activation
    return (name, alpha) if count == 1 else (name, alpha, beta)


def core_functions(names: Sequence[ActivationName], clip: float | None) -> dict[str, Any]:
    """The functions of gates, candidate and cell state, and their bound, as the core takes them."""
    return {
        "activations": [as_activation("", name) for name in names],
        "clip": math.inf if clip is None else clip,
    }


def as_clip(value: Any) -> float | None:
    """Return the bound of the sums; None: they have none."""
    return None if value is None else as_real("clip", value, _SMALLEST, _LARGEST)


def _sequence(argument: str, value: Any) -> tuple[Any, ...] | list[Any]:
    if not isinstance(value, (tuple, list)) or not value:
        raise TypeError(f"{argument}: expected a tuple, got {value!r}")
    return value

"""What PyTorch's modules are: whether they compute as torch.nn's recurrent layers do.

Of a class that is not PyTorch's own a file says the name only; in memory it can be seen whether it
changes anything that a call runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .file import Module
from .objects import Strided
from .packed import PACKED, is_packed_class, is_quantised_class
from .parameters import in_order, is_parameter
from .pickle import Global, Opaque
from .script import CHANGED_CODE

_RECURRENT = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
_TORCHS, _OURS = "torch.nn.modules.rnn", "fastlstm.torch"
# Where those classes are made that derive from a user's and from one of ours.
_MAKER = "fastlstm.torch._accelerate"
# Methods of modules that a call runs.
CALLED = (
    *("__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward", "forward"),
    *("__getattr__", "__getattribute__", "_init_flat_weights", "_update_flat_weights"),
    *("_weights_have_changed", "check_forward_args", "check_input", "check_hidden_size"),
    *("get_expected_hidden_size", "get_expected_cell_size", "permute_hidden"),
)
# And of those that are quantised.
_CALLED = (*CALLED, "forward_impl", "forward_tensor", "forward_packed")
# Attributes that a call reads, besides parameters.
_READ = (
    *("_flat_weights", "_flat_weights_names", "_all_weight_values", "mode", "nonlinearity", "bias"),
    *("input_size", "hidden_size", "num_layers", "batch_first", "dropout", "bidirectional"),
    *("proj_size", "training", "_parameters", "_buffers", "_modules"),
)
# Hooks of PyTorch that compute a parameter before each call, what of them does, and the attribute
# that has the parameter's name.
_WEIGHT_NORM = Global("torch.nn.utils.weight_norm", "WeightNorm")
_SPECTRAL_NORM = Global("torch.nn.utils.spectral_norm", "SpectralNorm")
_PRUNING = Global("torch.nn.utils.prune", "BasePruningMethod")
_HOOKS = {_WEIGHT_NORM: "name", _SPECTRAL_NORM: "name", _PRUNING: "_tensor_name"}
_CALLED_OF_HOOKS = ("__call__", "compute_weight", "apply_mask")


@dataclass
class ModuleFacts:
    """What matters of a module."""

    cell: str
    """Which of torch.nn's recurrent classes it is or derives from; empty: of none."""
    ours: bool
    """Whether it derives from the class of that name in fastlstm.torch, and has its options."""
    attributes: Mapping[str, Any]
    changes: list[str]
    """What it has of its own that a call runs."""
    computed: set[str]
    """Names of parameters that PyTorch's hooks compute before each call."""


def is_module(thing: Any) -> bool:
    """Whether something in memory is a module."""
    return hasattr(type(thing), "named_modules")


def title_of(module: Any) -> str:
    """Return the name of the class of a module, in memory or in a file; short for torch.nn's."""
    package, name = module.type if isinstance(module, Module) else _global_of(type(module))
    short = not package or package.startswith("torch.nn.modules.")
    return name if short else f"{package}.{name}"


def facts_of(module: Any) -> ModuleFacts:
    """Look at a module, in memory or in a file."""
    if isinstance(module, Module):
        cell = module.type.name if _is_recurrent(module.type) else ""
        facts = ModuleFacts(cell, module.type.module == _OURS, module.attributes, [], set())
    else:
        cls = type(module)
        facts = ModuleFacts("", False, vars(module), [], set())
        base = next((c for c in cls.__mro__ if _is_recurrent(_global_of(c))), None)
        if base is not None:
            made = any(c.__module__ == _MAKER for c in cls.__mro__)
            facts.cell, facts.ours = base.__name__, base.__module__ == _OURS and not made
            changed = [*_overridden(cls, base, _CALLED), *_computed_attributes(module, base)]
            facts.changes += [f"{cls.__qualname__}.{name}" for name in changed]
            facts.changes += _hooks_of_all_modules()
    _look_at_attributes(facts)
    return facts


def _is_recurrent(type: Global) -> bool:
    known = type.module in (_TORCHS, _OURS) and type.name in _RECURRENT
    return known or is_quantised_class(*type)


def _global_of(cls: type) -> Global:
    return Global(cls.__module__, cls.__qualname__)


def _overridden(cls: type, base: type, methods: tuple[str, ...]) -> list[str]:
    known = [name for name in methods if hasattr(base, name)]
    return [name for name in known if getattr(cls, name) is not getattr(base, name)]


def _computed_attributes(module: Any, base: type) -> list[str]:
    """Properties of a module's class, and their like, that stand before what the module holds.

    Those of its parametrisations are read as they compute.
    """
    cls = type(module)
    names = {name for c in cls.__mro__ if c not in base.__mro__ for name in vars(c)}
    parts = vars(module).get("_modules", {})
    computed = parts.get("parametrizations", ())
    return sorted(
        name
        for name in names
        if (name in _READ or (is_parameter(name) and name not in computed))
        and hasattr(type(getattr(cls, name)), "__set__")
    )


def _look_at_attributes(facts: ModuleFacts) -> None:
    """Find hooks and methods that were replaced in the object."""
    facts.changes += [name for name in (*_CALLED, CHANGED_CODE) if name in facts.attributes]
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = facts.attributes.get(kind)
        for hook in hooks.values() if isinstance(hooks, dict) else ():
            computed = _computed_by(hook) if kind == "_forward_pre_hooks" else None
            if computed is None:
                facts.changes.append(f"the hook {_title_of(hook)}")
            else:
                facts.computed.add(computed)

    if not facts.ours:  # which compute with the parameters themselves
        facts.changes += _other_weights(facts)


def _hooks_of_all_modules() -> list[str]:
    shared = sys.modules.get("torch.nn.modules.module")
    kinds = ("_global_forward_pre_hooks", "_global_forward_hooks")
    hooks = [hook for kind in kinds for hook in getattr(shared, kind, {}).values()]
    return [f"the hook {_title_of(hook)} of all modules" for hook in hooks]


def _other_weights(facts: ModuleFacts) -> list[str]:
    """The list that a layer of PyTorch computes with, where it is not of its parameters."""
    attributes = facts.attributes
    weights, names = attributes.get("_flat_weights"), attributes.get("_flat_weights_names")
    own = attributes.get("_parameters")
    parts = attributes.get("_modules")
    if weights is None or not isinstance(own, dict) or (parts and "parametrizations" in parts):
        return []  # a cell; or PyTorch renews the list, as what is computed is always another
    if not (isinstance(weights, list) and isinstance(names, list) and len(weights) == len(names)):
        return ["_flat_weights"]
    expected = [own.get(n, attributes.get(n)) if isinstance(n, str) else None for n in names]
    references = attributes.get("_flat_weight_refs")
    if isinstance(references, list) and any(
        weight is not None and reference is not None and reference() is not weight
        for reference, weight in zip(references, expected, strict=False)
    ):
        return []  # as above
    known = [name for name in names if isinstance(name, str) and is_parameter(name)]
    changed = known != in_order(known) or any(
        name not in facts.computed and not _is_same(weight, mine)
        for name, weight, mine in zip(names, weights, expected, strict=True)
    )
    return ["_flat_weights"] if changed else []


def _is_same(tensor: Any, other: Any) -> bool:
    if isinstance(tensor, Strided) and isinstance(other, Strided):
        # Memory in the pickle itself is not compared byte by byte.
        one, two = (t._replace(storage=t.storage._replace(data=None)) for t in (tensor, other))
        return one == two and tensor.storage.data is other.storage.data
    return tensor is other


def _computed_by(hook: Any) -> str | None:
    """The name of the parameter that a hook of PyTorch's utilities computes."""
    if isinstance(hook, Opaque):
        attributes = hook.state if isinstance(hook.state, dict) else {}
        if not isinstance(hook.type, Global):
            return None
        # Of pruning the base, whichever of PyTorch's methods it is.
        kind = _PRUNING if hook.type.module == _PRUNING.module else hook.type
    else:
        attributes = getattr(hook, "__dict__", {})
        base = next((c for c in type(hook).__mro__ if _global_of(c) in _HOOKS), None)
        if base is None or _overridden(type(hook), base, _CALLED_OF_HOOKS):
            return None
        kind = _global_of(base)
    name = attributes.get(_HOOKS.get(kind, ""))
    return name if isinstance(name, str) else None


def _title_of(hook: Any) -> str:
    named = hook.type if isinstance(hook, Opaque) else hook
    if isinstance(named, Global):
        return ".".join(named)
    return str(getattr(named, "__qualname__", type(named).__qualname__))


# --- what a module in memory holds ----------------------------------------------------------------


@dataclass(frozen=True)
class Parametrised:
    """A parameter that a module computes whenever it is asked for."""

    module: Any
    name: str

    def value(self) -> Any:
        """Return it as it is in evaluation, whatever the module's mode."""
        parts = list(self.module.parametrizations[self.name].modules())
        modes = [part.training for part in parts]
        try:
            for part in parts:
                part.training = False
            return getattr(self.module, self.name)
        finally:
            for part, mode in zip(parts, modes, strict=True):
                part.training = mode


def held_by(module: Any) -> Iterator[tuple[str, Any]]:
    """Parameters, buffers and modules of a module, by name.

    Of a recurrent layer, a parameter with parametrisations stands in their place, and attributes
    that are called as a parameter count as one, but for those that a hook computes: they are as
    the last call left them.
    """
    parts = [vars(module).get(kind) for kind in ("_parameters", "_buffers", "_modules")]
    held = [item for part in parts if hasattr(part, "items") for item in part.items()]
    if is_packed_class(*_global_of(type(module))):
        held.append((PACKED, vars(module).get(PACKED)))
    facts = facts_of(module)
    if not facts.cell:
        yield from held
        return
    for name, thing in held:
        if name == "parametrizations":
            yield from ((inner, Parametrised(module, inner)) for inner in thing)
        else:
            yield name, thing
    for name, thing in vars(module).items():
        if is_parameter(name) and name not in facts.computed:
            yield name, thing

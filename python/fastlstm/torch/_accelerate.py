"""Existing models: their recurrent modules become ours, and torch's again.

A module stays the object that it is: only its class changes, to ours for one of torch's own, and
for a class that derives from torch's to one that derives from both: ours takes the place of torch's
below the user's, whose ``super().forward`` leads to it.
"""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from fastlstm.interchange._torch.modules import CALLED

from ._base import (
    Computed,
    names_of_options,
    own_options,
    remove_options,
    set_frozen,
    without_options,
)
from ._cells import GRUCell, LSTMCell, RNNCell
from ._modules import GRU, LSTM, RNN

ModelT = TypeVar("ModelT", bound=nn.Module)

_OURS: dict[type[nn.Module], type[Computed]] = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
}
_TORCHS = {ours: theirs for theirs, ours in _OURS.items()}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class Row(NamedTuple):
    """What a report says of one recurrent module."""

    name: str
    """As ``model.named_modules()`` calls it; empty for the model itself."""
    kind: str
    """The name of its class."""
    replaced: bool
    """Whether it is ours."""
    reason: str
    """Why it is not, or why torch computes it all the same; empty for what fastlstm computes."""


class Report:
    """Which recurrent modules of a model are ours: a table to read, and its rows.

    Attributes
    ----------
    rows : tuple of Row
        One for each recurrent module, shared ones once.
    """

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        if not self.rows:
            return "no recurrent modules"
        cells = [
            (row.name or "(the model)", row.kind, "replaced" if row.replaced else "not replaced")
            for row in self.rows
        ]
        first, second = (max(len(cell[k]) for cell in cells) for k in (0, 1))
        return "\n".join(
            f"{name:<{first}}  {kind:<{second}}  {said}" + (f": {row.reason}" if row.reason else "")
            for (name, kind, said), row in zip(cells, self.rows, strict=True)
        )


def accelerate(model: ModelT, verbose: bool = False) -> ModelT:
    """Make every recurrent module of a model that can be one of ours, in place.

    The modules stay the same objects with the same Parameters, hooks and names: an optimiser made
    before goes on working. So do those in DistributedDataParallel, FullyShardedDataParallel and
    what ``torch.compile`` returns. Of classes that derive from torch's, those are replaced that
    change no more than ``forward``, and call ``super().forward`` there.

    Parameters
    ----------
    model : torch.nn.Module
        Also a recurrent module itself.
    verbose : bool
        Print the :func:`report`.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        `model` is no module.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LSTM(8, 16))
    >>> fastlstm.torch.accelerate(model, verbose=True) is model
    1  LSTM  replaced
    True
    """
    for _, module in _recurrent(model):
        if not isinstance(module, Computed) and not _obstacle(module):
            _become(module, _ours)
    if verbose:
        print(report(model))
    return model


def restore(model: ModelT) -> ModelT:
    """Undo :func:`accelerate`: modules of ours become torch's again, in place.

    That includes modules made as ours, but for those with options that torch does not have, and
    those of classes that derive from ours: they stay as they are, and a warning names them.

    Parameters
    ----------
    model : torch.nn.Module
        Also a recurrent module itself.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        `model` is no module.
    """
    left = []
    for name, module in _recurrent(model):
        if not isinstance(module, Computed):
            continue
        own = own_options(module)
        if own or _torchs(type(module)) is None:
            options = ", ".join(f"{option}={value!r}" for option, value in own.items())
            left.append(f"{name or 'the model'} ({options or _kind(module)})")
        else:
            remove_options(module)
            _become(module, _torchs)
    if left:
        warnings.warn(f"restore: torch has no such modules: {', '.join(left)}", stacklevel=2)
    return model


def report(model: nn.Module) -> Report:
    """Say of each recurrent module of a model whether it is ours, and if not, why.

    Parameters
    ----------
    model : torch.nn.Module
        Also a recurrent module itself.

    Returns
    -------
    Report
        Its text is a table; its :attr:`rows` are for programs.

    Raises
    ------
    TypeError
        `model` is no module.

    Examples
    --------
    >>> class Reversed(torch.nn.GRU):
    ...     def permute_hidden(self, hx, permutation):
    ...         return hx.flip(0)
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(8, 16), "decoder": Reversed(8, 16)})
    >>> fastlstm.torch.report(fastlstm.torch.accelerate(model))
    encoder  LSTM      replaced
    decoder  Reversed  not replaced: Reversed.permute_hidden is not torch's
    """
    rows = []
    for name, module in _recurrent(model):
        ours = isinstance(module, Computed)
        changed = _replaced_in(module) if ours else ""
        replaced = ours and not changed
        if ours:
            reason = changed or _left_to_torch(module)
        else:
            reason = _obstacle(module) or "it can be, by accelerate(model)"
        rows.append(Row(name, _kind(module), replaced, reason))
    return Report(tuple(rows))


def freeze(model: ModelT, frozen: bool = True) -> ModelT:
    """Say that a model's weights do not change any more, or that they may again.

    Calls without gradients then trust that weights are what they were while their addresses are the
    same and PyTorch has counted no write to them. What nobody counts is not seen: writes through
    ``p.data``, through a NumPy array that shares the memory, or of another process. Without this,
    each call compares a hash of the values.

    Modules remember it, and so do their copies. ``model.train()`` undoes it.

    Parameters
    ----------
    model : torch.nn.Module
        Also a recurrent module itself. What is not ours in it stays as it is.
    frozen : bool
        False undoes it.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        `model` is no module, or `frozen` no bool.
    """
    if not isinstance(frozen, bool):
        raise TypeError(f"frozen: expected a bool, got {type(frozen).__name__}")
    for _, module in _recurrent(model):
        if isinstance(module, Computed):
            set_frozen(module, frozen)
    return model


# --- which modules --------------------------------------------------------------------------------


def _recurrent(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All recurrent modules, as a list: classes change while it is gone through."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return iter([item for item in model.named_modules() if _is_recurrent(item[1])])


def _is_recurrent(module: nn.Module) -> bool:
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return True
    foreign = isinstance(module, torch.jit.ScriptModule) or _is_quantised(module)
    return foreign and _kind(module) in {cls.__name__ for cls in _OURS}


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.")


def _kind(module: nn.Module) -> str:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return str(module.original_name) if scripted else type(module).__name__


def _obstacle(module: nn.Module) -> str:
    """Why a module cannot become ours; empty if it can."""
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted or traced: its code is compiled"
    if _is_quantised(module):
        return "quantised"
    base = next((c for c in cls.__mro__ if c in _OURS), None)
    if base is None:
        return f"{cls.__name__} derives from none of torch's recurrent classes"
    if isinstance(module, LazyModuleMixin):
        return "lazy: its parameters have no values before the first call"
    changed = _replaced_in(module)
    if changed:
        return changed
    for user in cls.__mro__[: cls.__mro__.index(base)]:
        for name in CALLED:
            if name not in vars(user):
                continue
            if name != "forward":
                return f"{user.__name__}.{name} is not torch's"
            if not _calls_super(vars(user)[name]):
                return f"{user.__name__}.forward does not call super().forward"
    try:
        ours = _ours(cls)
    except Exception as error:  # of a metaclass of the user's
        return f"no class can derive from {cls.__name__} and from ours: {error}"
    taken = [name for name in names_of_options(ours) if name in vars(module)]
    return f"its attribute {taken[0]} would be an option of ours" if taken else ""


def _replaced_in(module: nn.Module) -> str:
    """Which method that a call runs is an attribute of the object; empty if none is."""
    changed = [name for name in CALLED if name in vars(module)]
    return f"{changed[0]} was replaced in the object" if changed else ""


def _calls_super(forward: Any) -> bool:
    """Whether a forward has torch's called, which may be ours then."""
    code = getattr(inspect.unwrap(forward), "__code__", None)
    return code is not None and {"super", "forward"} <= set(code.co_names)


def _left_to_torch(module: nn.Module) -> str:
    """Why torch computes a module of ours; empty if the core does."""
    for weight in module.parameters(recurse=False):
        if weight.device.type != "cpu":
            return f"on the device {weight.device} torch computes"
        if weight.dtype not in _DTYPES:
            return f"{str(weight.dtype).removeprefix('torch.')} is computed by torch"
    return ""


# --- their classes --------------------------------------------------------------------------------


def _become(module: nn.Module, counterpart: Callable[[type], type | None]) -> None:
    module.__class__ = counterpart(type(module))


def _ours(cls: type) -> type[Computed]:
    """The class of ours that takes the place of one of torch's, or of one that derives from it.

    Raises
    ------
    TypeError
        Python cannot make one.
    """
    if cls in _OURS:
        return _OURS[cls]
    if _is_parametrised(cls):
        return _with_base(cls, _ours(cls.__bases__[0]))
    return _derived(cls)


def _torchs(cls: type) -> type | None:
    """The class that ours took the place of; None: it did not."""
    if cls in _TORCHS:
        return _TORCHS[cls]
    if _is_parametrised(cls):
        base = _torchs(cls.__bases__[0])
        return None if base is None else _with_base(cls, base)
    return vars(cls).get("_of")


def _is_parametrised(cls: type) -> bool:
    """Whether torch made a class for one parametrised module: it has the parameters' properties."""
    return cls.__module__ == parametrize.__name__ and len(cls.__bases__) == 1


def _with_base(cls: type, base: type) -> type:
    """The same class with another base, as if parametrised there: torch looks for its bases."""
    own = {n: value for n, value in vars(cls).items() if n not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, (base,), own)


class _Derived:
    """What a class derived from a user's and ours has of its own: copies and pickles.

    They name the user's class, as nothing else can be imported.
    """

    _of: type

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Users' hooks are not told of ours: they keep classes by name, or ask for arguments.
        if "_of" not in vars(cls):
            super().__init_subclass__(**kwargs)

    @classmethod
    def _core_replaced(cls) -> type:
        return cls._of

    def __reduce_ex__(self, protocol: Any) -> Any:
        cls = type(self)
        reduced = super().__reduce_ex__(protocol)
        if isinstance(reduced, str) or "_of" not in vars(cls) or reduced[1][:1] != (cls,):
            return reduced
        make, arguments, *rest = reduced
        return (_make_derived, (cls._of, make, *arguments[1:]), *rest)


# By the user's class. While objects or classes need one, it lives.
_classes: WeakValueDictionary[type, type] = WeakValueDictionary()


def _derived(cls: type) -> type:
    """A class that derives from a user's, and has ours in the place of torch's below it."""
    derived = _classes.get(cls)
    if derived is None:
        base = next(_OURS[c] for c in cls.__mro__ if c in _OURS)
        names = {"_of": cls, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        names.update(without_options(), __doc__=cls.__doc__)
        derived = types.new_class(
            cls.__name__, (_Derived, cls, base), {}, lambda n: n.update(names)
        )
        _classes[cls] = derived
    return derived


def _make_derived(cls: type, make: Any, *arguments: Any) -> Any:
    """Begin a copy of an object of a derived class."""
    return make(_derived(cls), *arguments)

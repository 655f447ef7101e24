"""What modules and cells share: options that only we have, their parameters, and the engine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self  # torch needs the package, too

from fastlstm import layers
from fastlstm._checks import as_real
from fastlstm.layers.spec import Spec

from ._engine import Call, Engine, Shape, are_tensors, is_plain, no_transform
from ._internals import dispatch_modes, something_is_unusual, transforms_are_active
from ._traced import Layer

# Drawn for each training call; of a cell that would be for each step.
_OF_SEQUENCES = frozenset({"recurrent_dropout", "weight_dropout", "reverse", "merge"})
# Of the attributes of torch's modules, those that say what is computed: of all, and of layers.
# (Cells of users' may have attributes of the latter names.)
_DESCRIBING = ("input_size", "hidden_size", "nonlinearity", "bias")
_DESCRIBING_LAYERS = ("num_layers", "dropout", "bidirectional", "proj_size")
_TORCHS = frozenset({*_DESCRIBING, *_DESCRIBING_LAYERS, "batch_first", "dtype"})


class Computed(nn.Module):
    """Before a class of torch's: the options of a layer that computes the same.

    Options that torch's class does not know are keyword arguments and attributes, checked by the
    layer's table. What they add to the parameters is called as the layer calls it.

    All that is not for users begins with ``_core_``: their classes and objects, which become ours,
    have attributes of any other name, ``_state`` for instance.
    """

    _core_layer: ClassVar[type[layers.RecurrentLayer[Any, Any]]]
    _core_of_sequences: ClassVar[bool] = True
    # Options of ours and their defaults, which are attributes of the class. None in a class that is
    # made of a user's, whose attributes mean what they meant.
    _core_own: ClassVar[dict[str, Any]] = {}
    _core_described: ClassVar[Sequence[str]] = ()  # attributes of torch's that say what is computed
    _core_engine: Engine | None = None
    _core_frozen = False
    forget_bias: float | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_core_layer" not in vars(cls):
            return  # a class of a user's
        table = layers.table_of(cls._core_layer)
        cls._core_own = {
            name: default
            for name, default in table.defaults.items()
            if name not in _TORCHS and (cls._core_of_sequences or name not in _OF_SEQUENCES)
        }
        described = (*_DESCRIBING, *(_DESCRIBING_LAYERS if cls._core_of_sequences else ()))
        cls._core_described = [name for name in described if name in table.options]
        for name, default in cls._core_own.items():
            setattr(cls, name, default)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own = {name: kwargs.pop(name) for name in self._core_own if name in kwargs}
        forget_bias = kwargs.pop("forget_bias", None) if self._core_layer is layers.LSTM else None
        super().__init__(*args, **kwargs)
        for name, value in own.items():
            setattr(self, name, value)
        if forget_bias is not None:
            if not self.bias:
                raise ValueError("forget_bias: expected None for a layer without biases")
            self.forget_bias = as_real("forget_bias", forget_bias, -math.inf, math.inf)
        if self._core_own_options() and self._core_add_parameters():
            self.reset_parameters()
        else:
            self._core_set_forget_bias()

    # --- options ------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; options may change between calls, as a schedule of zoneout does."""
        if name in self._core_own:
            value = layers.table_of(self._core_layer).options[name].check(name, value)
        if name in self._core_own or name == "nonlinearity":
            self.__dict__.pop("_core_engine", None)
        super().__setattr__(name, value)

    def _core_own_options(self) -> dict[str, Any]:
        """The options of ours that are not at their defaults."""
        return {n: getattr(self, n) for n, d in self._core_own.items() if getattr(self, n) != d}

    def _core_spec(self, dtype: str = "float32") -> Spec:
        """What the layer is that computes the same.

        Raises
        ------
        ValueError
            Options do not go together.
        """
        options = {n: getattr(self, n) for n in (*self._core_described, *self._core_own)}
        return layers.make_spec(self._core_layer, {**options, "dtype": dtype})

    def extra_repr(self) -> str:
        own = dict(self._core_own_options())
        if self._core_forget_bias() is not None:
            own["forget_bias"] = self.forget_bias
        return ", ".join([super().extra_repr(), *(f"{n}={value!r}" for n, value in own.items())])

    # --- parameters ---------------------------------------------------------------------------

    def _core_names(self, spec: Spec) -> list[str]:
        """Those of the parameters, in the core's order."""
        return list(spec.shapes)

    def _core_add_parameters(self) -> bool:
        """Add those that options bring; whether there are any."""
        spec = self._core_spec()
        like = next(self.parameters())
        added = False
        for name, shape in zip(self._core_names(spec), spec.shapes.values(), strict=True):
            if name not in self._parameters:
                empty = torch.empty(shape, dtype=like.dtype, device=like.device)
                self.register_parameter(name, nn.Parameter(empty))
                added = True
        return added

    def reset_parameters(self) -> None:
        """Draw the parameters anew: as torch does, those of options as their layer does."""
        super().reset_parameters()
        if self._core_own_options():
            spec = self._core_spec()
            parameters = [p for cell in spec.parameters for p in cell.values()]
            for name, parameter in zip(self._core_names(spec), parameters, strict=True):
                if parameter.initial != "uniform":
                    nn.init.constant_(getattr(self, name), float(parameter.initial == "one"))
        self._core_set_forget_bias()

    def _core_forget_bias(self) -> float | None:
        return self.forget_bias if self._core_own else None

    def _core_set_forget_bias(self) -> None:
        value = self._core_forget_bias()
        if value is None:
            return
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        with torch.no_grad():
            for name, bias in self.named_parameters(recurse=False):
                if name.startswith(("bias_ih", "bias_hh")):
                    bias[forget] = value if name.startswith("bias_ih") else 0.0

    # --- calls --------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Do as torch does; in training, weights are no longer frozen."""
        super().train(mode)
        if mode:
            set_frozen(self, False)
        return self

    def _core_key(self, x: Tensor) -> Any:
        """What calls without noise have in common: :attr:`Engine.calls`."""
        return x.shape

    def _core_usual(self, x: Any, hx: Any) -> tuple[Call, Sequence[Tensor], tuple[Any, ...]] | None:
        """The call, the states and the weights, where all is as it is in most calls.

        The core finds out what tensors are; if it cannot read one, the call is not done. None: it
        has to be looked at more closely.
        """
        engine = self._core_engine
        if (
            engine is None
            or type(x) is not Tensor
            or x.dtype is not engine.dtype
            or (engine.noisy and self.training)
            or something_is_unusual()
        ):
            return None
        call = engine.calls.get(self._core_key(x))
        if call is None:
            return None
        states: Sequence[Any] = () if hx is None else hx
        if hx is not None and len(call.shapes) == 1:
            states = (hx,)
        elif not isinstance(states, (tuple, list)) or len(states) not in (0, len(call.shapes)):
            return None
        try:
            weights = engine.pick(self._parameters)
        except KeyError:  # see _core_weights
            return None
        if torch.is_grad_enabled() and not are_tensors((*states, *weights)):
            return None
        return call, states, weights

    def _core_ready(self, x: Any) -> Ready | None:
        """What a call with this input needs; None: it cannot be ours.

        Raises
        ------
        RuntimeError
            A transformation of functions is active, which could not see what the core does.
        """
        if transforms_are_active():
            raise no_transform("vmap, jvp and the other transforms of torch.func")
        if dispatch_modes() or not is_plain(x):
            return None
        dtype = x.dtype
        if dtype is torch.bfloat16 or torch.is_autocast_enabled("cpu"):
            return self._core_ready_raised(x)
        if dtype is not torch.float32 and dtype is not torch.float64:
            return None
        return self._core_ready_with(dtype, self._core_weights(dtype), raised=False)

    def _core_ready_raised(self, x: Tensor) -> Ready | None:
        """The same where float32 stands in for bfloat16: weights in it, or autocast."""
        narrow: tuple[torch.dtype, ...] = (torch.bfloat16,)
        if torch.is_autocast_enabled("cpu"):
            if x.dtype is torch.float64:  # which autocast leaves alone
                return self._core_ready_with(x.dtype, self._core_weights(x.dtype), raised=False)
            if torch.get_autocast_dtype("cpu") is not torch.bfloat16:
                return None
            narrow = (torch.bfloat16, torch.float32)
        weights = self._core_weights(torch.float32)
        if x.dtype not in narrow or not all(is_plain(w) and w.dtype in narrow for w in weights):
            return None
        raised = tuple([weight.float() for weight in weights])
        return self._core_ready_with(torch.float32, raised, raised=True)

    def _core_ready_with(
        self, dtype: torch.dtype, weights: tuple[Any, ...], *, raised: bool
    ) -> Ready | None:
        engine = self._core_engine_of(dtype)
        readable = engine.readable(weights)
        return None if readable is None else Ready(engine, readable, raised)

    def _core_weights(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The weights as attributes give them, in the core's order."""
        engine = self._core_engine_of(dtype)
        try:
            return engine.pick(self._parameters)
        except KeyError:  # of a parametrisation, or computed before each call
            return engine.pick(self._core_attributes(engine.names))

    def _core_attributes(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The weights as attributes, read as often as torch's module does: some count it."""
        return {name: getattr(self, name) for name in names}

    def _core_engine_of(self, dtype: torch.dtype) -> Engine:
        engine = self._core_engine
        if engine is None or engine.dtype is not dtype:
            spec = self._core_spec(str(dtype).removeprefix("torch."))
            engine = Engine(spec, self._core_names(spec))
            engine.frozen = self._core_frozen
            self.__dict__["_core_engine"] = engine  # Module.__setattr__ would look for a parameter
        return engine

    def _core_state(self, parts: Sequence[Tensor]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _core_regularisation(self, engine: Engine, dropout: float) -> dict[str, Any] | None:
        """What the core is told of a training call, with a seed of torch's generator's."""
        if not self.training or not (dropout or engine.noisy):
            return None
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
        return {**engine.spec.training, "dropout": dropout, "seed": seed, "zoneout": True}

    def _core_traced_as(self) -> Layer:
        """What becomes part of a graph."""
        torchs = {name: getattr(self, name) for name in self._core_described}
        names = self._flat_weights_names if isinstance(self, nn.RNNBase) else None
        return Layer(self._core_layer.__name__, {**torchs, **self._core_own_options()}, names)

    def _core_others(self, input: Any, hx: Any, **options: Any) -> Any:
        """What torch's own implementation gives, or a node of a graph whose values are unknown."""
        if isinstance(input, torch.fx.Proxy) and self._core_has_our_forward():
            # as torch.fx treats the modules of torch.nn
            tracer, states = input.tracer, () if hx is None else (hx,)
            path = tracer.path_of_module(self)
            return tracer.create_proxy("call_module", path, (input, *states), options)
        self._core_must_be_ours(input, hx, tuple(options))
        return super().forward(input, hx)

    def _core_has_our_forward(self) -> bool:
        """Whether no class of a user's has one of its own."""
        return bool(type(self).forward.__module__.rpartition(".")[0] == __package__)

    @classmethod
    def _core_replaced(cls) -> type:
        """The class that computes this without us."""
        return next(base for base in cls.__mro__ if base.__module__.startswith("torch.nn"))

    def __prepare_scriptable__(self) -> nn.Module:
        """torch's own module of the same parameters, for ``torch.jit.script``, which compiles text.

        Raises
        ------
        RuntimeError
            torch's module could not compute this.
        """
        self._core_must_be_ours(None, None)
        theirs: Any = self._core_replaced()
        if theirs.__module__.startswith("torch.nn") and not self._core_has_our_forward():
            raise RuntimeError(
                f"torch.jit.script: {type(self).__name__} has a forward of its own, which torch's "
                "module lacks; torch.export and torch.jit.trace keep it"
            )
        warnings.warn(
            "torch.jit.script: the recurrent modules of this model are torch's own from now on; "
            "fastlstm.torch.accelerate(model) makes the model's ours again, torch.export and "
            "torch.jit.trace keep them",
            stacklevel=5,
        )
        module: nn.Module = theirs.__new__(theirs)
        module.__setstate__(self.__getstate__())
        return module

    def _core_must_be_ours(self, input: Any, hx: Any, also: Sequence[str] = ()) -> None:
        """Raise RuntimeError for what torch's own implementation cannot compute instead of ours."""
        own = [*self._core_own_options(), *also]
        if own:
            raise RuntimeError(
                f"{type(self).__name__}: {', '.join(own)}: torch's module does not have these; "
                "expected tensors on the CPU of float32, float64 or bfloat16, of one type and of "
                f"the shapes that torch's module takes, got {_described(input)}, {_described(hx)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_core_engine", None)
        return state


def own_options(module: Computed) -> dict[str, Any]:
    """Return those options that only our modules have and that are not at their defaults."""
    return module._core_own_options()


def set_frozen(module: Computed, frozen: bool) -> None:
    """Say whether a module's weights are taken to be as they were, see :func:`.freeze`."""
    if frozen != module._core_frozen:
        module._core_frozen = frozen
        if module._core_engine is not None:
            module._core_engine.frozen = frozen


def remove_options(module: Computed) -> None:
    """Take from a module all attributes that torch's does not have: they are at their defaults."""
    for name in ("_core_engine", "_core_frozen", *names_of_options(type(module))):
        module.__dict__.pop(name, None)


def names_of_options(cls: type[Computed]) -> list[str]:
    """Return the attributes of a class's objects that are options of ours."""
    return [*cls._core_own, "forget_bias"] if cls._core_own else []


def without_options() -> dict[str, Any]:
    """Return what a class of a user's is given when it is made ours."""
    return {"_core_own": {}}


class Ready(NamedTuple):
    """What a call needs."""

    engine: Engine
    weights: tuple[Tensor, ...]
    """Readable for the engine."""
    raised: bool
    """Whether float32 stands in for bfloat16."""


def initial_state(hx: Any, x: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor] | None:
    """The parts of an initial state: none, or all; None if they do not fit the input."""
    if hx is None:
        return ()
    if len(shapes) == 1:
        return (hx,) if _fits(hx, x, shapes[0]) else None
    if not isinstance(hx, (tuple, list)) or len(hx) != len(shapes):
        return None
    return hx if all(map(_fits, hx, (x,) * len(shapes), shapes)) else None


def _fits(part: Any, x: Tensor, shape: Shape) -> bool:
    return is_plain(part) and part.shape == shape and part.dtype is x.dtype


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type(value).__name__}{tuple(value.shape)} of {value.dtype} on {value.device}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_described, value))})"
    return str(value)

"""Several layers and blocks under one name: parameters, a step of training, one file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from fastlstm._checks import (
    FloatArray,
    as_float_array,
    as_real,
    check_mapping,
    check_shape,
    readable_path,
)
from fastlstm._pieces import copied
from fastlstm._safetensors import StoredTensor
from fastlstm._saving import write_safetensors
from fastlstm._sparse import SparseRows
from fastlstm.layers import LAYERS, RecurrentLayer, make_layer, spec_of
from fastlstm.layers.files import FORMAT, KEY, read_layer
from fastlstm.layers.load import read_values
from fastlstm.optim import Optimizer, clip_by_global_norm

from ._attention import Attention
from ._block import Block, check_all_names, make_block, options_of
from ._crf import CRF
from ._dropout import Dropout
from ._embedding import Embedding
from ._linear import Linear
from ._pool import Pool

ModuleT = TypeVar("ModuleT", bound="Module")

# What a module's file may have, by the names of the classes.
BLOCKS: dict[str, type[Block]] = {
    cls.__name__: cls for cls in (CRF, Attention, Dropout, Embedding, Linear, Pool)
}
MODULES: dict[str, type[Module]] = {}


class Module:
    """Named parts: layers, blocks, and other modules.

    It does not know in what order they are called: that is yours to write, forward and backward.
    What it does is everything that there is to do with all parts at once. A class of yours may
    derive from it and have methods for the passes.

    Parameters
    ----------
    **parts
        Layers, blocks and modules by name, which are attributes then.

    Attributes
    ----------
    meta : dict
        Whatever belongs to the model and JSON can hold: a vocabulary, labels, how texts become
        tokens. It is saved with the model.
    training : bool
        True at first; see :meth:`train` and :meth:`eval`.

    Raises
    ------
    TypeError
        A part is none.
    ValueError
        A name is one of the module's own, or begins with an underscore.

    Examples
    --------
    >>> model = fastlstm.nn.Module(
    ...     lstm=fastlstm.LSTM(8, 16, seed=0), out=fastlstm.nn.Linear(16, 3, seed=1)
    ... )
    >>> list(model.params)[-2:], model.num_parameters
    (['out.weight', 'out.bias'], 1715)
    >>> optimizer = fastlstm.optim.Adam(lr=1e-2)
    >>> x, y = np.ones((5, 4, 8), dtype=np.float32), [0, 1, 2, 1]
    >>> output, _, lstm_tape = model.lstm.forward(x)
    >>> logits, out_tape = model.out.forward(output[-1])
    >>> loss, d_logits = fastlstm.nn.cross_entropy(logits, y)
    >>> out = out_tape.backward(d_logits)
    >>> d_output = np.zeros_like(output)
    >>> d_output[-1] = out.x
    >>> norm = model.step(optimizer, {"lstm": lstm_tape.backward(d_output), "out": out}, clip=1.0)
    """

    def __init__(self, **parts: Any) -> None:
        for name, part in parts.items():
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"{name}: expected a name without an underscore before it")
            if hasattr(type(self), name) or name in ("meta", "training"):
                raise ValueError(f"{name}: expected a name that modules do not have themselves")
            if not isinstance(part, (RecurrentLayer, Block, Module)):
                raise TypeError(
                    f"{name}: expected a layer, a block or a module, got {type(part).__name__}"
                )
        self._parts = parts
        self.meta: dict[str, Any] = {}
        self.training = True

    def __getattr__(self, name: str) -> Any:
        # Of an object without its attributes yet, as copies are at first, there are no parts.
        parts = self.__dict__.get("_parts", {})
        if name not in parts:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return parts[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parts]

    def __repr__(self) -> str:
        parts = (f"{name}={part!r}" for name, part in self._parts.items())
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts by name, in their order."""
        return MappingProxyType(self._parts)

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """All parameters, by ``part.name``: a read-only mapping to read-only arrays."""
        return MappingProxyType(
            {
                f"{part}.{name}": value
                for part, of_part in self._parts.items()
                for name, value in of_part.params.items()
            }
        )

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(part.num_parameters for part in self._parts.values())

    # --- training -----------------------------------------------------------------------------

    def train(self) -> None:
        """Have :class:`Dropout` drop values in ``forward``, in this module and those in it.

        Layers are told by their own argument: ``layer.forward`` has dropout, a call has none.
        """
        self._set_training(True)

    def eval(self) -> None:
        """Have :class:`Dropout` let all values through in ``forward``: gradients of inference."""
        self._set_training(False)

    def _set_training(self, training: bool) -> None:
        for part in self._parts.values():
            if isinstance(part, Module):
                part._set_training(training)
            elif isinstance(part, Dropout):
                part.training = training
        self.training = training

    def step(
        self, optimizer: Optimizer, grads: Mapping[str, Any], *, clip: float | None = None
    ) -> float | None:
        """Make one step of an optimiser on all parts that have gradients.

        Parameters
        ----------
        optimizer : Optimizer
            Of :mod:`fastlstm.optim`. It knows parameters as ``part.name``: use it with this module
            alone.
        grads : mapping
            By part what its backward pass returned, or a mapping of its parameters' names to
            gradients; of a module in it, such a mapping. Or gradients by ``part.name``. Parameters
            that are not in it stay as they are.
        clip : float, optional
            The largest norm of all gradients together
            (:func:`~fastlstm.optim.clip_by_global_norm`).

        Returns
        -------
        float or None
            With `clip` the norm before clipping. Where it is infinite or NaN no step is made.

        Raises
        ------
        ValueError, TypeError
            A name or a shape is not the module's, or `clip` is no number of at least 0. The module
            and the optimiser are as they were.

        Notes
        -----
        A step that is interrupted may have changed some of the parts and moments, as
        :meth:`Optimizer.step <fastlstm.optim.Optimizer.step>` says.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        check_mapping("grads", grads)
        flat = dict(self._flat(grads))
        params = self.params
        _check_known("grads", flat, params)
        norm = None
        if clip is not None:
            flat, norm = clip_by_global_norm(flat, as_real("clip", clip, 0.0, math.inf))
            if not math.isfinite(norm):
                return norm
        self.update(optimizer.step_rows({name: params[name] for name in flat}, flat))
        return norm

    def _flat(self, grads: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Gradients by ``part.name``."""
        for name, value in grads.items():
            part = self._parts.get(name)
            if part is None:
                yield name, value
                continue
            of_part = getattr(value, "params", value)
            check_mapping(f"grads[{name!r}]", of_part)
            pairs = part._flat(of_part) if isinstance(part, Module) else of_part.items()
            for inner, gradient in pairs:
                yield f"{name}.{inner}", gradient

    def update(self, values: Mapping[str, Any]) -> None:
        """Give some parameters new values.

        Parameters
        ----------
        values : mapping of str to array_like or SparseRows
            By ``part.name``, with the shapes of :attr:`params`. The values are copied.

        Raises
        ------
        ValueError, TypeError
            A name or a shape is not the module's, or a value is not an array of numbers. The module
            is as it was.
        """
        check_mapping("values", values)
        params = self.params
        _check_known("values", values, params)
        by_part: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            array = value
            if not isinstance(value, SparseRows):
                array = as_float_array(name, value, params[name].dtype)
            check_shape(name, array, params[name].shape)
            part, _, inner = name.partition(".")
            by_part.setdefault(part, {})[inner] = array
        for part, of_part in by_part.items():
            self._parts[part].update(of_part)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all parameters by ``part.name``, as ``torch.nn.Module`` names them."""
        return {name: copied(value) for name, value in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take all parameters from a mapping of arrays or tensors by ``part.name``.

        Raises
        ------
        ValueError
            Names are missing or unexpected, or a shape differs.
        TypeError
            A value is not an array of numbers. After an error the module is as it was.
        """
        check_mapping("state_dict", state_dict)
        check_all_names("state_dict", state_dict, self.params, "the module")
        self.update(state_dict)

    # --- files --------------------------------------------------------------------------------

    def _check_parts(self) -> None:
        """Raise ValueError where a file has other parts than such a module has."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save all parts and :attr:`meta` as one safetensors file, which :meth:`load` reads.

        The tensors have the names of :attr:`params`; the rest is in the metadata. How files are
        written stands in docs/files.md.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        OSError
            It cannot be written; the one that was there is as it was.
        TypeError, ValueError
            The path is no path, `meta` has what JSON has not, or a part is of another class than
            the library's.
        """
        config = {"format": FORMAT, "module": _described(self, "")}
        try:
            text = json.dumps(config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"meta: expected what JSON can hold: {error}") from None
        write_safetensors(path, dict(sorted(self.params.items())), {KEY: text})

    @classmethod
    def load(cls: type[ModuleT], path: str | os.PathLike[str]) -> ModuleT:
        """Load a module that :meth:`save` wrote: an object of this class, with new parts.

        Parameters
        ----------
        path : path-like
            A safetensors file.

        Raises
        ------
        ValueError
            The file is no safetensors file, is damaged, or has no module of fastlstm.
        OSError
            It cannot be read.
        TypeError
            The path is neither text nor path-like.

        Notes
        -----
        Modules in the module are of the library's classes, a user's of :class:`Module`, and a
        derived class's ``__init__`` is not called.
        """
        path = readable_path("path", path)
        text, tensors = read_layer(path)
        try:
            config = json.loads(text)
            if config["format"] != FORMAT:
                raise ValueError(f"format {config['format']} instead of {FORMAT}")
            if "module" not in config:
                raise ValueError("it has a single layer, which fastlstm.load reads")
            module = _made(cls, config["module"], tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: damaged, or of another version of fastlstm: {error}"
            ) from error
        return module


def in_files(cls: type[ModuleT]) -> type[ModuleT]:
    """Have files remember the class of such modules in a module, which the library must have."""
    MODULES[cls.__name__] = cls
    return cls


def _check_known(argument: str, names: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    for name in names:
        if name not in params:
            raise ValueError(
                f"{argument}: expected names of parameters ({', '.join(params) or 'none'}), "
                f"got {name!r}"
            )


def _described(module: Module, prefix: str) -> dict[str, Any]:
    """What a file says of a module: its parts without their values."""
    parts: dict[str, Any] = {}
    for name, part in module.parts.items():
        kind = type(part).__name__
        if isinstance(part, Module):
            parts[name] = {"module": _described(part, f"{prefix}{name}.")}
            if MODULES.get(kind) is type(part):
                parts[name]["kind"] = kind
        elif {**LAYERS, **BLOCKS}.get(kind) is not type(part):
            raise TypeError(f"{prefix}{name}: expected a class of the library, got {kind}")
        elif isinstance(part, Block):
            parts[name] = {"kind": kind, "options": options_of(part)}
        elif part.quantization is not None:
            raise TypeError(f"{prefix}{name}: expected a layer that is not quantized, got {part!r}")
        else:
            parts[name] = {"kind": kind, "options": spec_of(part).options}
    return {"parts": parts, "meta": module.meta}


def _made(
    cls: type[ModuleT], described: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> ModuleT:
    """A module of what a file says of it."""
    by_part: dict[str, dict[str, StoredTensor]] = {name: {} for name in described["parts"]}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        by_part[part][inner] = tensor  # a part that is there, or a KeyError
    parts: dict[str, Any] = {}
    for name, part in described["parts"].items():
        if "module" in part:
            of_class = MODULES[part["kind"]] if "kind" in part else Module
            parts[name] = _made(of_class, part["module"], by_part[name])
            continue
        kind, options = part["kind"], part["options"]
        values = read_values(by_part[name], options)
        if kind in LAYERS:
            parts[name] = make_layer(LAYERS[kind], options, values)
        else:
            parts[name] = make_block(BLOCKS[kind], options, values)
    module = cls.__new__(cls)
    Module.__init__(module, **parts)
    module.meta = dict(described["meta"])
    module._check_parts()
    return module

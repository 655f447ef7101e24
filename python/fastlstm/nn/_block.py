"""What blocks share: options, parameters by name, copies, and what a backward pass is asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from fastlstm import _core
from fastlstm._checks import (
    FloatArray,
    as_float_array,
    as_int,
    check_mapping,
    check_shape,
    to_numpy,
)
from fastlstm._pieces import copied
from fastlstm.layers.options import HasOptions, Option, as_dtype_name, table_of

BlockT = TypeVar("BlockT", bound="Block")
Shapes = dict[str, tuple[int, ...]]
# Of blocks with parameters. Others take float32 and float64 as they come.
DTYPE = Option[np.dtype[Any]](
    as_dtype_name,
    "The type of parameters, inputs and results: float32 or float64.",
    read=lambda options: np.dtype(options["dtype"]),
)


@dataclass(eq=False)
class Gradients:
    """What a block's backward pass returns: gradients of the loss.

    Attributes
    ----------
    x : ndarray
        Like the input of the call. None where ``needs`` did not ask for it, and of an
        :class:`Embedding`, whose input is integers.
    params : dict
        By the names of the block's parameters: those asked for. Arrays, or
        :class:`~fastlstm.optim.SparseRows` of an :class:`Embedding`.
    """

    x: FloatArray
    params: dict[str, Any]


class Block(HasOptions):
    """A block: its options, and its parameters, which are read-only arrays by name; or none.

    One thread at a time may update a block. Calls go on with the values that they began with.
    """

    _random: np.random.Generator  # of blocks that draw numbers

    def __init__(self, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._options = table_of(type(self)).checked(arguments)
        self._params: Mapping[str, FloatArray] = {}
        self._replace(self._checked(values))

    @classmethod
    def _shapes(cls, options: Mapping[str, Any]) -> Shapes:
        """Return the shapes of all parameters, in order."""
        return {}

    def _replace(self, values: Mapping[str, FloatArray]) -> None:
        """Take checked arrays, which nobody else holds, as new values of some parameters."""
        frozen = {name: _core.read_only(value) for name, value in values.items()}
        params = {**self._params, **frozen}
        # At once: an exception of a signal's handler comes before both or after both.
        self.__dict__.update(self._derived(values, params), _params=params)

    def _derived(
        self, values: Mapping[str, FloatArray], params: Mapping[str, FloatArray]
    ) -> dict[str, Any]:
        """Return the attributes that follow from new values, or from all parameters."""
        return {}

    def _checked(self, values: Mapping[str, Any]) -> dict[str, FloatArray]:
        check_mapping("values", values)
        shapes = self._shapes(self._options)
        new = {}
        for name, value in values.items():
            if name not in shapes:
                known = ", ".join(shapes) or "none"
                raise ValueError(f"values: expected names of parameters ({known}), got {name!r}")
            array = as_float_array(name, value, np.dtype(self._options["dtype"]))
            check_shape(name, array, shapes[name])
            new[name] = copied(array)
        return new

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """The parameters: a read-only mapping from PyTorch's names to read-only arrays."""
        return MappingProxyType(self._params)

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(math.prod(shape) for shape in self._shapes(self._options).values())

    def update(self, values: Mapping[str, Any]) -> None:
        """Give some parameters new values.

        Parameters
        ----------
        values : mapping of str to array_like
            Names and shapes as in :attr:`params`. The values are copied.

        Raises
        ------
        ValueError
            A name or a shape is not the block's.
        TypeError
            A value is not an array of numbers. After an error the block is as it was.
        """
        self._replace(self._checked(values))

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all parameters by PyTorch's names, which ``torch.nn`` can load."""
        return {name: copied(value) for name, value in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take all parameters from a mapping with PyTorch's names, of arrays or tensors.

        Raises
        ------
        ValueError
            Names are missing or unexpected, or a shape differs.
        TypeError
            A value is not an array of numbers. After an error the block is as it was.
        """
        check_mapping("state_dict", state_dict)
        check_all_names("state_dict", state_dict, self.params, repr(self))
        self.update(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_params"] = dict(self.params)
        if "_random" in state:  # a shallow copy draws random numbers of its own, too
            state["_random"] = copy.deepcopy(self._random)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = state.pop("_params")
        self.__dict__.update(state, _params={})
        # Arrays may be views of a buffer that is not ours (pickle's protocol 5).
        self._replace({name: copied(value) for name, value in values.items()})


def make_block(cls: type[BlockT], options: Mapping[str, Any], values: Mapping[str, Any]) -> BlockT:
    """Make a block of given values, as a file has them: nothing is drawn.

    Raises
    ------
    ValueError, TypeError
        There is no such option, or names and shapes are not those of such a block.
    """
    table = table_of(cls)
    all_options = table.completed(cls.__name__, options)
    block = cls.__new__(cls)
    shapes = cls._shapes(table.checked(all_options))
    check_all_names("values", values, shapes, cls.__name__)
    Block.__init__(block, all_options, {name: values[name] for name in shapes})
    block._random = np.random.default_rng()
    return block


def options_of(block: Block) -> dict[str, Any]:
    """Return the values of a block's options, as files have them."""
    return dict(block._options)


def check_all_names(argument: str, given: Iterable[str], names: Iterable[str], of: str) -> None:
    """Raise ValueError unless the names are all that there are."""
    given, names = list(given), list(names)
    missing = [name for name in names if name not in given]
    unexpected = [str(name) for name in given if name not in names]
    if missing or unexpected:
        raise ValueError(
            f"{argument}: expected the parameters of {of}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )


def random_of(seed: int | None) -> np.random.Generator:
    """Return the random numbers of a seed, or of none."""
    return np.random.default_rng(None if seed is None else as_int("seed", seed, 0, 2**64 - 1))


def draw_seed(random: np.random.Generator, seed: int | None) -> int:
    """Return the seed of one training call: the caller's, or the next of a block's own."""
    if seed is None:
        return int(random.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
    return as_int("seed", seed, 0, 2**64 - 1)


def as_floats(name: str, value: Any) -> FloatArray:
    """Return an array of float32, or of float64 where it is of anything else."""
    array = to_numpy(name, value)
    return as_float_array(
        name, array, np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
    )


def as_needs(needs: str | Iterable[str], params: Iterable[str]) -> tuple[bool, list[str]]:
    """Return whether gradients of x are asked for, and of which parameters."""
    names = list(params)
    if not isinstance(needs, Iterable):
        raise TypeError(f"needs: expected names, got {type(needs).__name__}")
    asked = [needs] if isinstance(needs, str) else list(needs)
    known = ("x", "params", *names)
    for name in asked:
        if name not in known:
            raise ValueError(f"needs: expected names of {', '.join(known)}, got {name!r}")
    return "x" in asked, [name for name in names if "params" in asked or name in asked]


def as_accumulated(accumulate: Any, asked: list[str]) -> dict[str, Any]:
    """Return the gradients of parameters that are added to; empty without."""
    if accumulate is None:
        return {}
    if not isinstance(accumulate, Gradients):
        raise TypeError(f"accumulate: expected Gradients, got {type(accumulate).__name__}")
    if list(accumulate.params) != asked:
        raise ValueError(
            "accumulate: expected gradients of the parameters that are asked for "
            f"({', '.join(asked) or 'none'}), got {', '.join(accumulate.params) or 'none'}"
        )
    return accumulate.params

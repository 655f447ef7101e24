"""What all recurrent layers share: parameters, their values, saving and copying."""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ._checks import FloatArray, as_bool, as_dtype, as_float_array, as_int, as_real, check_shape

# The core counts in 32-bit integers where BLAS does.
MOST_SIZE = (2**31 - 1) // 8


# The layers that files can hold, by name; each module of a layer adds its own.
LAYERS: dict[str, type[Any]] = {}


class RecurrentLayer(ABC):
    """A stack of recurrent layers: its configuration, its parameters and their values.

    The values are immutable: :meth:`update` replaces arrays, it never writes into them. So an array
    taken from :attr:`params` keeps its values, calls in other threads go on with the values they
    started with, and a tape holds those of its own call.
    """

    # Rows of the stacked weights for each hidden unit: the number of gates.
    _gates: ClassVar[int]
    # Options that the repr shows where they differ from these defaults; the first two always.
    _defaults: ClassVar[dict[str, Any]] = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "reverse": False,
        "dtype": "float32",
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        reverse: bool,
        dtype: npt.DTypeLike,
        seed: int | None,
    ) -> None:
        self._options: dict[str, Any] = {
            "input_size": as_int("input_size", input_size, 1, MOST_SIZE),
            "hidden_size": as_int("hidden_size", hidden_size, 1, MOST_SIZE),
            "num_layers": as_int("num_layers", num_layers, 1, MOST_SIZE),
            "bias": as_bool("bias", bias),
            "batch_first": as_bool("batch_first", batch_first),
            "dropout": as_real("dropout", dropout, 0.0, 1.0),
            "bidirectional": as_bool("bidirectional", bidirectional),
            "proj_size": as_int("proj_size", proj_size, 0, MOST_SIZE),
            "reverse": as_bool("reverse", reverse),
            "dtype": as_dtype(dtype).name,
        }
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size ({self.hidden_size}), "
                f"got {self.proj_size}"
            )
        if self.bidirectional and self.reverse:
            raise ValueError("reverse: expected False for a bidirectional layer, got True")
        if seed is not None:
            as_int("seed", seed, 0, 2**64 - 1)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._set_values(self._initial_values())

    # --- configuration ------------------------------------------------------------------------

    @property
    def input_size(self) -> int:
        """I, the number of features of an input."""
        return int(self._options["input_size"])

    @property
    def hidden_size(self) -> int:
        """H, the number of hidden units."""
        return int(self._options["hidden_size"])

    @property
    def num_layers(self) -> int:
        """L, the number of stacked layers."""
        return int(self._options["num_layers"])

    @property
    def bias(self) -> bool:
        """Whether the layers have biases."""
        return bool(self._options["bias"])

    @property
    def batch_first(self) -> bool:
        """Whether sequences are (B, T, I) instead of (T, B, I)."""
        return bool(self._options["batch_first"])

    @property
    def dropout(self) -> float:
        """The part of the values between layers that becomes zero in training."""
        return float(self._options["dropout"])

    @property
    def bidirectional(self) -> bool:
        """Whether a second direction reads each sequence from its end."""
        return bool(self._options["bidirectional"])

    @property
    def proj_size(self) -> int:
        """The width that h is projected to; 0 without a projection."""
        return int(self._options["proj_size"])

    @property
    def reverse(self) -> bool:
        """Whether the only direction reads each sequence from its end."""
        return bool(self._options["reverse"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters, inputs and results: float32 or float64."""
        dtype: np.dtype[Any] = np.dtype(self._options["dtype"])
        return dtype

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _cells(self) -> int:
        """Pairs of layer and direction; cell k is layer k // D, direction k % D."""
        return self.num_layers * self._directions

    @property
    def _output_size(self) -> int:
        """P, the width of h."""
        return self.proj_size or self.hidden_size

    def __repr__(self) -> str:
        options = [
            f"{name}={self._options[name]!r}"
            for name, default in self._defaults.items()
            if self._options[name] != default
        ]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return f"{type(self).__name__}({', '.join(sizes + options)})"

    # --- parameters ---------------------------------------------------------------------------

    def _cell_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """The parameters of cell k in PyTorch's order: name -> shape."""
        layer, direction = divmod(k, self._directions)
        rows = self._gates * self.hidden_size
        P = self._output_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, self.input_size if layer == 0 else self._directions * P),
            "weight_hh": (rows, P),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (P, self.hidden_size)
        suffix = f"_l{layer}" + ("_reverse" if direction == 1 else "")
        return {name + suffix: shape for name, shape in shapes.items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """All parameters in PyTorch's order: name -> shape."""
        return {
            name: shape for k in range(self._cells) for name, shape in self._cell_shapes(k).items()
        }

    def _initial_values(self) -> dict[str, FloatArray]:
        """PyTorch's initialisation: uniform in +-1/sqrt(H)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        return {
            name: self._random.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in self._shapes().items()
        }

    def _cell_arrays(self, values: Mapping[str, FloatArray], k: int) -> list[FloatArray | None]:
        """The parameters of cell k as the core takes them: absent ones are None."""
        by_kind = {name.partition("_l")[0]: values[name] for name in self._cell_shapes(k)}
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [by_kind.get(kind) for kind in kinds]

    @abstractmethod
    def _make_core(self, values: Mapping[str, FloatArray]) -> Any:
        """The core's layers with these values."""

    def _set_values(self, values: dict[str, FloatArray], core: Any = None) -> None:
        """Make these arrays the parameters. Nobody else may hold a writable view of them."""
        for name, array in values.items():
            if array.flags.writeable:
                array.flags.writeable = False
                values[name] = array.view()  # unlike the owner, it cannot be made writable again
        # One assignment, so that a call in another thread sees both old or both new.
        self._snapshot = (values, self._make_core(values) if core is None else core)

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """The parameters: a read-only mapping from PyTorch's names to read-only arrays."""
        return MappingProxyType(self._snapshot[0])

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(math.prod(shape) for shape in self._shapes().values())

    def update(self, values: Mapping[str, Any]) -> None:
        """Give some parameters new values.

        Parameters
        ----------
        values : mapping of str to array_like
            Names and shapes as in :attr:`params`. The values are copied.

        Raises
        ------
        ValueError
            A name or a shape is not the layer's.
        TypeError
            A value is not an array of numbers. After an error the layer is as it was.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values: expected a mapping, got {type(values).__name__}")
        shapes = self._shapes()
        new: dict[str, FloatArray] = {}
        for name, value in values.items():
            if name not in shapes:
                raise ValueError(
                    f"values: expected names of parameters ({', '.join(shapes)}), got {name!r}"
                )
            array = as_float_array(name, value, self.dtype)
            check_shape(name, array, shapes[name])
            new[name] = array.copy()
        with self._lock:
            old, core = self._snapshot
            merged = {**old, **new}
            for k in range(self._cells):
                if any(name in new for name in self._cell_shapes(k)):
                    core = core.with_params(k, self._cell_arrays(merged, k))
            self._set_values(merged, core)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all parameters by PyTorch's names."""
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take all parameters from a mapping with PyTorch's names, of arrays or tensors.

        Raises
        ------
        ValueError
            Names are missing or unexpected, or a shape differs. The layer is then as it was.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        names = self._shapes()
        missing = [name for name in names if name not in state_dict]
        unexpected = [str(name) for name in state_dict if name not in names]
        if missing or unexpected:
            raise ValueError(
                f"state_dict: expected the parameters of {self!r}; "
                f"missing: {', '.join(missing) or 'none'}; "
                f"unexpected: {', '.join(unexpected) or 'none'}"
            )
        self.update(state_dict)

    # --- copies -------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_snapshot"], state["_lock"]
        state["_values"] = dict(self.params)
        # A shallow copy draws random numbers of its own, too.
        state["_random"] = copy.deepcopy(self._random)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays may be views of a buffer that is not ours (pickle's protocol 5).
        values = {
            name: array if array.flags.owndata else array.copy()
            for name, array in state.pop("_values").items()
        }
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._set_values(values)

    # --- arguments of calls -------------------------------------------------------------------

    def _draw_seed(self, seed: int | None) -> int:
        """The seed of one training call: the caller's, or the next of the layer's own."""
        if seed is None:
            return int(self._random.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
        return as_int("seed", seed, 0, 2**64 - 1)

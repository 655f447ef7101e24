# What src/register_*.cpp adds to the module. Arrays must be C-contiguous and of exactly these
# types; csrc/include/fastlstm/stack.hpp says their shapes, config.hpp beside it what options mean.
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Never

_Float32: TypeAlias = npt.NDArray[np.float32]
_Float64: TypeAlias = npt.NDArray[np.float64]
_Int64: TypeAlias = npt.NDArray[np.int64]
_T = TypeVar("_T", np.float32, np.float64)
_S = TypeVar("_S", bound=np.generic)

# config: cell, input_size, hidden_size, num_layers, bias, proj_size, bidirectional, reverse, merge,
# activations (three of name, alpha, beta), clip, input_forget, peepholes, layer_norm, zoneout_h,
# zoneout_c, arithmetic (names of the types of weights and of inputs). regularisation: dropout,
# seed, recurrent_dropout, weight_dropout, zoneout. What is left out has its default, what is
# unknown is a ValueError.
#
# parameters: by cell, name -> (shape, "uniform", "zero" or "one").
def parameters(config: dict[str, Any]) -> list[dict[str, tuple[tuple[int, ...], str]]]: ...
def state_parts(config: dict[str, Any]) -> list[tuple[str, int]]: ...

class StackFloat32:
    # cells: [L * D] of name -> array: all parameters of each.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(config: dict[str, Any], cells: Sequence[Mapping[str, _Float32]]) -> StackFloat32: ...
    # The same of small weights: uint16, or int8 and, of name + "_scale", float32.
    @staticmethod
    def make_small(
        config: dict[str, Any], cells: Sequence[Mapping[str, npt.NDArray[Any]]]
    ) -> StackFloat32: ...
    def with_params(self, cells: Mapping[int, Mapping[str, _Float32]]) -> StackFloat32: ...
    def forward(
        self,
        x: _Float32,
        initial: Sequence[_Float32 | None] | None,
        lengths: _Int64 | None,
        output: _Float32,
        final: Sequence[_Float32],
        batch_first: bool,
    ) -> None: ...
    def forward_train(
        self,
        x: _Float32,
        initial: Sequence[_Float32 | None] | None,
        lengths: _Int64 | None,
        output: _Float32,
        final: Sequence[_Float32],
        batch_first: bool,
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> TapeFloat32: ...
    def training_memory(
        self,
        steps: int,
        batch_size: int,
        lengths: _Int64 | None,
        batch_first: bool,
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> tuple[int, float]: ...
    # Addresses, 0 for none. order: 0: (T, B, .), 1: (B, T, .), 2: packed; [B] lengths.
    def forward_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
    ) -> None: ...
    def forward_train_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> TapeFloat32: ...

class BorrowedFloat32:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(config: dict[str, Any]) -> BorrowedFloat32: ...
    # addresses: of all parameters, cell by cell, in the order of `parameters`.
    def stack(self, addresses: Sequence[int], version: int) -> StackFloat32: ...
    # Of tensors. None: one of them could not be read; True, or the tape of a training call.
    def run(
        self,
        x: object,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: tuple[Any, ...],
        weights: tuple[Any, ...],
        output: object,
        final: tuple[Any, ...],
        regularisation: object,
    ) -> object: ...
    @property
    def frozen(self) -> bool: ...
    @frozen.setter
    def frozen(self, frozen: bool) -> None: ...

class CollectedFloat32:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    # d_params: addresses of a cell's gradients, in the order of `parameters`; 0: not computed.
    @staticmethod
    def make(config: dict[str, Any], d_params: Sequence[int]) -> CollectedFloat32: ...
    def finish(self) -> None: ...

class TapeFloat32:
    # Only forward_train makes tapes.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    def backward(
        self,
        d_output: _Float32 | None,
        d_final: Sequence[_Float32 | None] | None,
        d_x: _Float32 | None,
        d_initial: Sequence[_Float32] | None,
        d_params: Sequence[Mapping[str, _Float32]],
        d_steps: Sequence[_Float32] | None = None,
    ) -> None: ...
    # Gradients of parameters are written, not added to, or go to `collected`.
    def backward_at(
        self,
        d_output: int,
        d_final: Sequence[int] | None,
        d_x: int,
        d_initial: Sequence[int] | None,
        d_params: Sequence[int],
        collected: CollectedFloat32 | None = None,
    ) -> None: ...
    # The same of tensors. False: a gradient could not be read.
    def backward_of(
        self,
        d_output: object,
        d_final: tuple[Any, ...],
        d_x: object,
        d_initial: tuple[Any, ...],
        d_params: tuple[Any, ...],
        collected: CollectedFloat32 | None,
    ) -> bool: ...
    def gates(self, cell: int) -> _Float32: ...
    def state(self, cell: int, part: int) -> _Float32: ...

class StreamFloat32:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(stack: StackFloat32, batch_size: int) -> StreamFloat32: ...
    def step(self, x: _Float32, out: _Float32) -> None: ...
    def quick_calls(
        self,
    ) -> tuple[
        Callable[[object, object], _Float32 | None], Callable[[object, bool], _Float32 | None]
    ]: ...
    def run(self, x: _Float32, output: _Float32, batch_first: bool) -> None: ...
    def state(self) -> list[_Float32]: ...
    def set_state(self, state: Sequence[_Float32]) -> None: ...
    def reset(self, rows: npt.NDArray[np.bool_]) -> None: ...
    def reorder(self, rows: _Int64) -> None: ...

class StackFloat64:
    # cells: [L * D] of name -> array: all parameters of each.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(config: dict[str, Any], cells: Sequence[Mapping[str, _Float64]]) -> StackFloat64: ...
    def with_params(self, cells: Mapping[int, Mapping[str, _Float64]]) -> StackFloat64: ...
    def forward(
        self,
        x: _Float64,
        initial: Sequence[_Float64 | None] | None,
        lengths: _Int64 | None,
        output: _Float64,
        final: Sequence[_Float64],
        batch_first: bool,
    ) -> None: ...
    def forward_train(
        self,
        x: _Float64,
        initial: Sequence[_Float64 | None] | None,
        lengths: _Int64 | None,
        output: _Float64,
        final: Sequence[_Float64],
        batch_first: bool,
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> TapeFloat64: ...
    def training_memory(
        self,
        steps: int,
        batch_size: int,
        lengths: _Int64 | None,
        batch_first: bool,
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> tuple[int, float]: ...
    # Addresses, 0 for none. order: 0: (T, B, .), 1: (B, T, .), 2: packed; [B] lengths.
    def forward_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
    ) -> None: ...
    def forward_train_at(
        self,
        x: int,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: Sequence[int] | None,
        output: int,
        final: Sequence[int],
        regularisation: dict[str, Any],
        memory_limit: int,
    ) -> TapeFloat64: ...

class BorrowedFloat64:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(config: dict[str, Any]) -> BorrowedFloat64: ...
    # addresses: of all parameters, cell by cell, in the order of `parameters`.
    def stack(self, addresses: Sequence[int], version: int) -> StackFloat64: ...
    # Of tensors. None: one of them could not be read; True, or the tape of a training call.
    def run(
        self,
        x: object,
        steps: int,
        batch_size: int,
        order: int,
        lengths: int,
        initial: tuple[Any, ...],
        weights: tuple[Any, ...],
        output: object,
        final: tuple[Any, ...],
        regularisation: object,
    ) -> object: ...
    @property
    def frozen(self) -> bool: ...
    @frozen.setter
    def frozen(self, frozen: bool) -> None: ...

class CollectedFloat64:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    # d_params: addresses of a cell's gradients, in the order of `parameters`; 0: not computed.
    @staticmethod
    def make(config: dict[str, Any], d_params: Sequence[int]) -> CollectedFloat64: ...
    def finish(self) -> None: ...

class TapeFloat64:
    # Only forward_train makes tapes.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    def backward(
        self,
        d_output: _Float64 | None,
        d_final: Sequence[_Float64 | None] | None,
        d_x: _Float64 | None,
        d_initial: Sequence[_Float64] | None,
        d_params: Sequence[Mapping[str, _Float64]],
        d_steps: Sequence[_Float64] | None = None,
    ) -> None: ...
    # Gradients of parameters are written, not added to, or go to `collected`.
    def backward_at(
        self,
        d_output: int,
        d_final: Sequence[int] | None,
        d_x: int,
        d_initial: Sequence[int] | None,
        d_params: Sequence[int],
        collected: CollectedFloat64 | None = None,
    ) -> None: ...
    # The same of tensors. False: a gradient could not be read.
    def backward_of(
        self,
        d_output: object,
        d_final: tuple[Any, ...],
        d_x: object,
        d_initial: tuple[Any, ...],
        d_params: tuple[Any, ...],
        collected: CollectedFloat64 | None,
    ) -> bool: ...
    def gates(self, cell: int) -> _Float64: ...
    def state(self, cell: int, part: int) -> _Float64: ...

class StreamFloat64:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(stack: StackFloat64, batch_size: int) -> StreamFloat64: ...
    def step(self, x: _Float64, out: _Float64) -> None: ...
    def quick_calls(
        self,
    ) -> tuple[
        Callable[[object, object], _Float64 | None], Callable[[object, bool], _Float64 | None]
    ]: ...
    def run(self, x: _Float64, output: _Float64, batch_first: bool) -> None: ...
    def state(self) -> list[_Float64]: ...
    def set_state(self, state: Sequence[_Float64]) -> None: ...
    def reset(self, rows: npt.NDArray[np.bool_]) -> None: ...
    def reorder(self, rows: _Int64) -> None: ...

class PackedMatrixFloat32:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(W: _Float32) -> PackedMatrixFloat32: ...
    def transposed(self) -> PackedMatrixFloat32: ...
    def multiply(self, x: _Float32, bias: _Float32 | None, y: _Float32) -> None: ...

class PackedMatrixFloat64:
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def make(W: _Float64) -> PackedMatrixFloat64: ...
    def transposed(self) -> PackedMatrixFloat64: ...
    def multiply(self, x: _Float64, bias: _Float64 | None, y: _Float64) -> None: ...

def available_isas() -> list[str]: ...
def isa() -> str: ...
def usable_cpus() -> int: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def read_only(array: npt.NDArray[_S]) -> npt.NDArray[_S]: ...
def set_threads_variable(variable: ContextVar[tuple[list[int], ...]]) -> None: ...
def set_tensor_classes(tensor: type, parameter: type) -> None: ...
def has_blas() -> bool: ...
def set_blas(sgemm: int, dgemm: int, get_num_threads: int, set_num_threads: int) -> None: ...
def set_openmp(parallel: int, thread_num: int, num_threads: int, in_parallel: int) -> None: ...
def compiler() -> str: ...
def machine() -> str: ...
def tuning() -> list[tuple[str, float, str]]: ...
def plan(
    config: dict[str, Any],
    value_bytes: int,
    steps: int,
    batch_size: int,
    lengths: _Int64 | None,
    training: bool,
    dropout: float,
) -> list[tuple[tuple[int, int, int, int, int], float, str, list[tuple[str, float]]]]: ...

# Costs that were measured here. ValueError: a name or value that is none.
def set_costs(costs: Sequence[tuple[str, float]]) -> None: ...
def cpu_name() -> str: ...

# Bytes of the L2 and the L3 cache, and the CPUs, that plans reckon with.
def hardware() -> tuple[float, float, int]: ...

# For tests and benchmarks. Has all calls divided so; zeros end that.
def force_plan(rows: int, directions: int, layers: int, units: int) -> None: ...

# Has plans made as for so many CPUs; 0: for those there are. Returns the old value.
def plan_for_cpus(n: int) -> int: ...
def sum_of_squares(x: npt.NDArray[_T]) -> float: ...
def scale(x: npt.NDArray[_T], factor: float, y: npt.NDArray[_T]) -> None: ...
def adam(
    p: npt.NDArray[_T],
    g: npt.NDArray[_T],
    m: npt.NDArray[_T],
    v: npt.NDArray[_T],
    p_new: npt.NDArray[_T],
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    shrink: float,
    root: float,
    step: float,
) -> None: ...
def crf_loss(
    emissions: npt.NDArray[_T],
    batch_first: bool,
    lengths: _Int64 | None,
    start: npt.NDArray[_T],
    end: npt.NDArray[_T],
    transitions: npt.NDArray[_T],
    tags: _Int64,
    scale: float,
    d_emissions: npt.NDArray[_T],
    d_start: npt.NDArray[_T],
    d_end: npt.NDArray[_T],
    d_transitions: npt.NDArray[_T],
    losses: _Float64,
) -> None: ...
def crf_marginals(
    emissions: npt.NDArray[_T],
    batch_first: bool,
    lengths: _Int64 | None,
    start: npt.NDArray[_T],
    end: npt.NDArray[_T],
    transitions: npt.NDArray[_T],
    p: npt.NDArray[_T],
) -> None: ...
def crf_decode(
    emissions: npt.NDArray[_T],
    batch_first: bool,
    lengths: _Int64 | None,
    start: npt.NDArray[_T],
    end: npt.NDArray[_T],
    transitions: npt.NDArray[_T],
    tags: _Int64,
) -> None: ...
def ctc(
    logits: npt.NDArray[_T],
    batch_first: bool,
    lengths: _Int64 | None,
    targets: _Int64,
    target_lengths: _Int64,
    blank: int,
    scales: _Float64,
    d_logits: npt.NDArray[_T],
    losses: _Float64,
) -> None: ...

# Shapes: csrc/include/fastlstm/matrix.hpp and blocks.hpp.
def add_products(d_y: npt.NDArray[_T], x: npt.NDArray[_T], d_W: npt.NDArray[_T]) -> None: ...
def add_sums(values: npt.NDArray[_T], sums: npt.NDArray[_T]) -> None: ...
def cross_entropy(
    logits: npt.NDArray[_T],
    classes: _Int64,
    class_weights: _Float64 | None,
    smoothing: float,
    factor: float,
    losses: _Float64,
    d_logits: npt.NDArray[_T],
) -> None: ...
def sum_rows(
    values: npt.NDArray[_T], first: _Int64, order: _Int64, sums: npt.NDArray[_T]
) -> None: ...
def drop(x: npt.NDArray[_T], seed: int, p: float, y: npt.NDArray[_T]) -> None: ...
def max_over_time(
    x: npt.NDArray[_T],
    lengths: _Int64,
    batch_first: bool,
    largest: npt.NDArray[_T],
    at: _Int64,
) -> None: ...
def sum_over_time(
    x: npt.NDArray[_T], lengths: _Int64, batch_first: bool, sums: npt.NDArray[_T]
) -> None: ...

class _Kernels(Protocol):
    @staticmethod
    def exp(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...
    @staticmethod
    def log(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...
    @staticmethod
    def sigmoid(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...
    @staticmethod
    def tanh(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...

kernels: _Kernels  # a module: element-wise kernels by target, for tests

# What src/register_*.cpp adds to the module. Arrays must be C-contiguous and of exactly these
# types; csrc/include/fastlstm/stack.hpp says their shapes.
from collections.abc import Callable
from typing import Never, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

_Float32: TypeAlias = npt.NDArray[np.float32]
_Float64: TypeAlias = npt.NDArray[np.float64]
_Int64: TypeAlias = npt.NDArray[np.int64]
_T = TypeVar("_T", np.float32, np.float64)

class StackFloat32:
    # cells: [L * D] of weight_ih, weight_hh, bias_ih, bias_hh, weight_hr,
    # weight_peephole, weight_ln_ih, weight_ln_hh, weight_ln_c, bias_ln_c, absent ones None.
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        proj_size: int,
        bidirectional: bool,
        reverse: bool,
        activations: list[tuple[str, float, float]],
        clip: float,
        input_forget: bool,
        peepholes: bool,
        layer_norm: bool,
        zoneout_h: float,
        zoneout_c: float,
        merge: str,
        cells: list[list[_Float32 | None]],
    ) -> None: ...
    def with_params(self, cell: int, arrays: list[_Float32 | None]) -> StackFloat32: ...
    def forward(
        self,
        x: _Float32,
        h_0: _Float32 | None,
        c_0: _Float32 | None,
        lengths: _Int64 | None,
        output: _Float32,
        h_n: _Float32,
        c_n: _Float32 | None,
        batch_first: bool,
    ) -> None: ...
    def forward_train(
        self,
        x: _Float32,
        h_0: _Float32 | None,
        c_0: _Float32 | None,
        lengths: _Int64 | None,
        output: _Float32,
        h_n: _Float32,
        c_n: _Float32 | None,
        batch_first: bool,
        dropout: float,
        seed: int,
        recurrent_dropout: float,
        weight_dropout: float,
        zoneout: bool,
        memory_limit: int,
    ) -> TapeFloat32: ...
    def training_memory(
        self,
        steps: int,
        batch_size: int,
        lengths: _Int64 | None,
        batch_first: bool,
        dropout: float,
        weight_dropout: float,
        memory_limit: int,
    ) -> tuple[int, float]: ...

class TapeFloat32:
    # Only forward_train makes tapes.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    def backward(
        self,
        d_output: _Float32 | None,
        d_h_n: _Float32 | None,
        d_c_n: _Float32 | None,
        d_x: _Float32 | None,
        d_h_0: _Float32 | None,
        d_c_0: _Float32 | None,
        d_params: list[list[_Float32 | None]],
        d_h_steps: _Float32 | None = None,
        d_c_steps: _Float32 | None = None,
    ) -> None: ...
    def gates(self, cell: int) -> _Float32: ...
    def cells(self, cell: int) -> _Float32: ...
    def hidden(self, cell: int) -> _Float32: ...

class StreamFloat32:
    def __init__(self, stack: StackFloat32, batch_size: int) -> None: ...
    def step(self, x: _Float32, out: _Float32) -> None: ...
    def stepper(self) -> Callable[[object, object], bool]: ...
    def run(self, x: _Float32, output: _Float32, batch_first: bool) -> None: ...
    def state(self) -> list[_Float32]: ...
    def set_state(self, h: _Float32, c: _Float32 | None = None) -> None: ...

class StackFloat64:
    # cells: [L * D] of weight_ih, weight_hh, bias_ih, bias_hh, weight_hr,
    # weight_peephole, weight_ln_ih, weight_ln_hh, weight_ln_c, bias_ln_c, absent ones None.
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        proj_size: int,
        bidirectional: bool,
        reverse: bool,
        activations: list[tuple[str, float, float]],
        clip: float,
        input_forget: bool,
        peepholes: bool,
        layer_norm: bool,
        zoneout_h: float,
        zoneout_c: float,
        merge: str,
        cells: list[list[_Float64 | None]],
    ) -> None: ...
    def with_params(self, cell: int, arrays: list[_Float64 | None]) -> StackFloat64: ...
    def forward(
        self,
        x: _Float64,
        h_0: _Float64 | None,
        c_0: _Float64 | None,
        lengths: _Int64 | None,
        output: _Float64,
        h_n: _Float64,
        c_n: _Float64 | None,
        batch_first: bool,
    ) -> None: ...
    def forward_train(
        self,
        x: _Float64,
        h_0: _Float64 | None,
        c_0: _Float64 | None,
        lengths: _Int64 | None,
        output: _Float64,
        h_n: _Float64,
        c_n: _Float64 | None,
        batch_first: bool,
        dropout: float,
        seed: int,
        recurrent_dropout: float,
        weight_dropout: float,
        zoneout: bool,
        memory_limit: int,
    ) -> TapeFloat64: ...
    def training_memory(
        self,
        steps: int,
        batch_size: int,
        lengths: _Int64 | None,
        batch_first: bool,
        dropout: float,
        weight_dropout: float,
        memory_limit: int,
    ) -> tuple[int, float]: ...

class TapeFloat64:
    # Only forward_train makes tapes.
    def __init__(self, /, *args: Never, **kwargs: Never) -> None: ...
    def backward(
        self,
        d_output: _Float64 | None,
        d_h_n: _Float64 | None,
        d_c_n: _Float64 | None,
        d_x: _Float64 | None,
        d_h_0: _Float64 | None,
        d_c_0: _Float64 | None,
        d_params: list[list[_Float64 | None]],
        d_h_steps: _Float64 | None = None,
        d_c_steps: _Float64 | None = None,
    ) -> None: ...
    def gates(self, cell: int) -> _Float64: ...
    def cells(self, cell: int) -> _Float64: ...
    def hidden(self, cell: int) -> _Float64: ...

class StreamFloat64:
    def __init__(self, stack: StackFloat64, batch_size: int) -> None: ...
    def step(self, x: _Float64, out: _Float64) -> None: ...
    def stepper(self) -> Callable[[object, object], bool]: ...
    def run(self, x: _Float64, output: _Float64, batch_first: bool) -> None: ...
    def state(self) -> list[_Float64]: ...
    def set_state(self, h: _Float64, c: _Float64 | None = None) -> None: ...

def available_isas() -> list[str]: ...
def isa() -> str: ...
def usable_cpus() -> int: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_thread_local_num_threads(n: int) -> int: ...
def has_blas() -> bool: ...
def forward_needs_blas() -> bool: ...
def set_blas(sgemm: int, dgemm: int, get_num_threads: int, set_num_threads: int) -> None: ...
def compiler() -> str: ...
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

class _Kernels(Protocol):
    @staticmethod
    def exp(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...
    @staticmethod
    def sigmoid(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...
    @staticmethod
    def tanh(isa: str, x: npt.NDArray[_T]) -> npt.NDArray[_T]: ...

kernels: _Kernels  # a module: element-wise kernels by target, for tests

"""What is traced, and what tracers must not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch._C._dynamo import eval_frame

F = TypeVar("F", bound=Callable[..., object])

_SKIP = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)


def untraced(function: F) -> F:
    """Keep Dynamo out of a function that works on memory, and of all that it calls.

    As ``torch.compiler.disable``, which would import Dynamo with this package (2 s) and costs each
    call a wrapper. Where a graph has broken, Dynamo tries every function that is called on its own.
    """
    eval_frame.set_code_exec_strategy(function.__code__, _SKIP)
    return function


@untraced  # as a frame of its own it would be compiled, and from then on say that it is
def is_traced() -> bool:
    """Whether a call is looked at as operators.

    By torch.compile, torch.export, torch.jit.trace, or a mode in Python: FakeTensorMode, make_fx.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
    )

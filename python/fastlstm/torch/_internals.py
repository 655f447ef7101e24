"""All that we ask of PyTorch which it keeps to itself: nothing public tells it, or as cheaply."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType

import torch
from torch.autograd import forward_ad

# dispatch_keys(tensor).raw_repr(): a number, the same for tensors that operators see as one kind.
dispatch_keys = torch._C._dispatch_keys
# Whether a transformation of torch.func is active: vmap, grad, jvp, ...
transforms_are_active = torch._C._are_functorch_transforms_active
# Whether a tensor is one of vmap's, or one of is_grads_batched's.
_is_batched = torch._C._functorch.is_batchedtensor
_is_batched_gradient = torch._C._functorch.is_legacy_batchedtensor
# How many modes watch or replace operators, as FakeTensorMode and FlopCounterMode do.
dispatch_modes = torch._C._len_torch_dispatch_stack
# Whether autocast is on for any kind of device.
autocast_is_on = torch._C._is_any_autocast_enabled
# The innermost pair of hooks that tensors are saved with, or None.
saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks
# Whether the backward pass that runs was told to retain its graph.
graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph
# A number of the backward pass that runs, which no other has, and whether it will run a node.
backward_pass = torch._C._current_graph_task_id
will_run = torch._C._will_engine_execute_node
# Whether torch.jit.trace is at work.
jit_is_tracing = torch._C._is_tracing
# A context in which operators go to what is below autograd.
below_autograd = torch._C._AutoDispatchBelowAutograd

_frames = torch._C._dynamo.eval_frame
_SKIP = _frames._FrameExecStrategy(_frames._FrameAction.SKIP, _frames._FrameAction.SKIP)


def skip_frames(code: CodeType) -> None:
    """Keep Dynamo out of the frames of a code, and of all that they call."""
    _frames.set_code_exec_strategy(code, _SKIP)


def dynamo_patcher(**changes: object) -> Callable[[], Callable[[], None]]:
    """A function that changes settings of Dynamo's, and gives one that changes them back.

    ``torch._dynamo.config.patch`` does the same in 40 us: more than a small layer takes.
    """
    patcher: Callable[[], Callable[[], None]] = torch._dynamo.config._make_closure_patcher(
        **changes
    )
    return patcher


def something_is_unusual() -> bool:
    """Whether calls are transformed, watched or cast, or forward mode is on."""
    return bool(
        transforms_are_active() or dispatch_modes() or autocast_is_on() or tangents_are_possible()
    )


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether it stands for many tensors, each of which the caller takes it for."""
    return bool(_is_batched(tensor) or _is_batched_gradient(tensor))


def tangents_are_possible() -> bool:
    """Whether there may be dual tensors: forward-mode differentiation is on."""
    return bool(forward_ad._current_level >= 0)

"""All that we ask of PyTorch which it keeps to itself: nothing public tells it, or as cheaply."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

# dispatch_keys(tensor).raw_repr(): a number, the same for tensors that operators see as one kind.
dispatch_keys = torch._C._dispatch_keys
# Whether a transformation of torch.func is active: vmap, grad, jvp, ...
transforms_are_active = torch._C._are_functorch_transforms_active
# How many modes watch or replace operators, as FakeTensorMode and FlopCounterMode do.
dispatch_modes = torch._C._len_torch_dispatch_stack
# The innermost pair of hooks that tensors are saved with, or None.
saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks
# Whether the backward pass that runs was told to retain its graph.
graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph


def tangents_are_possible() -> bool:
    """Whether there may be dual tensors: forward-mode differentiation is on."""
    return bool(forward_ad._current_level >= 0)

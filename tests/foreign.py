"""What the tests of converted layers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastlstm.interchange import _description
from tolerances import FOREIGN, assert_close


def build(description: Any) -> Any:
    """Make the layer, or skip where fastlstm does not have its class or an option yet."""
    try:
        return _description.build(description)
    except ValueError as error:
        if "has no such" in str(error):
            pytest.skip(str(error))
        raise


def assert_computes_as(layer: Any, module: Any) -> None:
    """Compare a layer with a module of PyTorch, or a cell of it, in evaluation."""
    import torch

    module.eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, module.input_size)).astype(layer.dtype)
    with torch.no_grad():
        if isinstance(module, torch.nn.RNNCellBase):
            state, steps = None, []
            for x_t in torch.tensor(x):
                state = module(x_t, state)
                steps.append(state[0] if isinstance(state, tuple) else state)
            expected = torch.stack(steps)
        else:
            expected = module(torch.tensor(x))[0]
    output = layer(x)[0]
    assert_close(output, expected.numpy(), FOREIGN[layer.dtype.name], "output")

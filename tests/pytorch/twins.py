"""The same module twice, torch's and ours, and the same inputs through both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import fastlstm.torch
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

SEQUENCES = ("LSTM", "GRU", "RNN")
CELLS = ("LSTMCell", "GRUCell", "RNNCell")
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.03}


def twins(kind: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Ours and torch's with the same parameters; float64 unless said otherwise."""
    kwargs.setdefault("dtype", torch.float64)
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(*args, **kwargs)
    torch.manual_seed(0)
    ours = getattr(fastlstm.torch, kind)(*args, **kwargs)
    return ours, theirs


def state_of(kind: str, *shape: int, dtype: torch.dtype = torch.float64) -> Any:
    """A random state whose parts have this shape."""
    parts = tuple(torch.randn(shape, dtype=dtype) for _ in range(1 + kind.startswith("LSTM")))
    return parts if len(parts) > 1 else parts[0]


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a result, or of arguments, in order."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in tensors(part)]
    return []


def leaves(value: Any) -> Any:
    """Copies of arguments whose tensors are leaves that require gradients."""
    if isinstance(value, PackedSequence):
        return value._replace(data=leaves(value.data))
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_() if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(map(leaves, value))
    return value


def assert_alike(ours: Any, theirs: Any, what: str = "") -> None:
    """The same structure, types, shapes, and nearly the same values."""
    if isinstance(theirs, PackedSequence):
        assert isinstance(ours, PackedSequence), what
        assert_alike(ours.data, theirs.data, what)
        for mine, its in zip(ours[1:], theirs[1:], strict=True):
            assert (mine is None) == (its is None), what
            assert mine is None or torch.equal(mine, its), what
    elif isinstance(theirs, (tuple, list)):
        assert type(ours) is type(theirs), what
        assert len(ours) == len(theirs), what
        for mine, its in zip(ours, theirs, strict=True):
            assert_alike(mine, its, what)
    elif isinstance(theirs, Tensor):
        assert type(ours) is type(theirs), what
        assert ours.dtype == theirs.dtype, what
        assert ours.shape == theirs.shape, what
        assert ours.device == theirs.device, what
        assert ours.requires_grad == theirs.requires_grad, what
        if theirs.numel() and theirs.device.type == "cpu":
            bound = CLOSE.get(theirs.dtype, 1e-2)
            ours, theirs = ours.detach(), theirs.detach()
            scale = max(1.0, float(theirs.abs().max()))
            assert float((ours - theirs).abs().max()) <= bound * scale, what
    else:
        assert ours == theirs, what


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call gives: a value, or the type and the text of an error."""
    try:
        return "value", call()
    except Exception as error:
        return type(error).__name__, str(error)


def assert_same_outcome(ours: Any, theirs: Any, *args: Any, **kwargs: Any) -> None:
    """The same results, or the same error, with and without gradients."""
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            expected = outcome(lambda: theirs(*args, **kwargs))
            got = outcome(lambda: ours(*args, **kwargs))
        assert got[0] == expected[0], (got, expected)
        assert_alike(got[1], expected[1])


def gradients(module: Any, args: Iterable[Any], seed: int = 1) -> tuple[Any, list[Tensor | None]]:
    """The results, and gradients of a random sum of them, of the arguments and the parameters."""
    args = [leaves(arg) for arg in args]
    module.zero_grad()
    result = module(*args)
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum()
        for t in tensors(result)
    )
    loss.backward()
    grads = [t.grad for t in (*tensors(args), *module.parameters())]
    return result, [None if grad is None else grad.clone() for grad in grads]


def assert_same_gradients(ours: Any, theirs: Any, *args: Any) -> None:
    """The same results and gradients."""
    expected, expected_grads = gradients(theirs, args)
    got, grads = gradients(ours, args)
    assert_alike(got, expected)
    for i, (mine, its) in enumerate(zip(grads, expected_grads, strict=True)):
        assert (mine is None) == (its is None), i
        if its is not None:
            assert_alike(mine, its, str(i))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by a name with each call that torch's own implementation computes."""
    calls: list[str] = []
    for kind in (*SEQUENCES, *CELLS):
        cls = getattr(nn, kind)
        forward = cls.forward

        def counted(self: Any, *args: Any, _forward: Any = forward, **kwargs: Any) -> Any:
            calls.append(type(self).__name__)
            return _forward(self, *args, **kwargs)

        monkeypatch.setattr(cls, "forward", counted)
    return calls

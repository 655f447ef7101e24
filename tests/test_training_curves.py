"""Training goes as PyTorch's does: the same losses step by step, from the same weights and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.demo.data import Climate, load_elnino, split_in_time, windows
from fastlstm.demo.model import Forecaster, Linear
from fastlstm.demo.train import RECIPE, Batch, train_step
from fastlstm.optim import Adam, clip_by_global_norm
from support import torch_module
from tolerances import CURVE

torch = pytest.importorskip("torch")

STEPS = 100


def torch_head(linear: Linear) -> Any:
    head = torch.nn.Linear(*linear.W.shape[::-1])
    head.load_state_dict({"weight": torch.from_numpy(linear.W), "bias": torch.from_numpy(linear.b)})
    return head


def torch_curve(
    lstm: Any, head: Any, lr: float, batches: Iterator[Any], loss: Callable[[Any, Any], Any]
) -> list[float]:
    """The losses of a loop like `demo.train`'s, in PyTorch. loss: of the output and a target."""
    params = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr)
    curve = []
    for x, target in batches:
        optimizer.zero_grad()
        output, _ = lstm(torch.from_numpy(x))
        value = loss(head(output), torch.from_numpy(target))
        value.backward()
        torch.nn.utils.clip_grad_norm_(params, RECIPE.max_norm)
        optimizer.step()
        curve.append(value.item())
    return curve


def assert_same_curve(curve: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(curve, expected, rtol=CURVE.bound, err_msg=CURVE.reason)
    # A curve that does not move would follow any other.
    assert expected[-1] < 0.97 * expected[0]


def test_the_demos_task() -> None:
    series = load_elnino()
    split = split_in_time(len(series.temperature))
    climate = Climate.of(series, split.fit)
    x, y = windows(series, climate, split.fit[RECIPE.window :], RECIPE.window)
    model = Forecaster.new(RECIPE.hidden_size, climate, seed=0)
    lstm, head = torch_module(model.lstm), torch_head(model.head)

    def batches() -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        for _ in range(STEPS):
            rows = rng.integers(len(y), size=RECIPE.batch_size)
            yield Batch(x[:, rows], y[rows])

    optimizer = Adam(lr=RECIPE.lr)
    curve = [train_step(model, optimizer, batch, RECIPE.max_norm) for batch in batches()]

    def loss(forecast: Any, target: Any) -> Any:
        return torch.mean((forecast[-1, :, 0] - target) ** 2)

    assert_same_curve(curve, torch_curve(lstm, head, RECIPE.lr, batches(), loss))


# The copy task (Hochreiter and Schmidhuber 1997): symbols, a long silence, a sign, and then the
# symbols again. Gradients of the answer go back through all of the silence.
SYMBOLS, COPIED, SILENCE, SIGN = 8, 10, 8, 9


def copy_batch(rng: np.random.Generator, T: int, B: int) -> tuple[np.ndarray, np.ndarray]:
    """One-hot inputs (T, B, 10) and the classes to be told at every step (T, B)."""
    symbols = rng.integers(SYMBOLS, size=(COPIED, B))
    given, wanted = np.full((2, T, B), SILENCE)
    given[:COPIED] = symbols
    given[-COPIED - 1] = SIGN
    wanted[-COPIED:] = symbols
    return np.eye(SIGN + 1, dtype=np.float32)[given], wanted


def cross_entropy(logits: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over all steps and rows, and its gradient."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    hit = np.eye(logits.shape[-1], dtype=logits.dtype)[wanted]
    return float(-np.mean(np.log((p * hit).sum(axis=-1)))), (p - hit) / wanted.size


def test_a_copy_task_over_500_steps() -> None:
    T, B, H, lr = 500, 8, 24, 3e-3
    lstm = fastlstm.LSTM(SIGN + 1, H, seed=0)
    rng = np.random.default_rng(0)
    W = rng.uniform(-(H**-0.5), H**-0.5, (SIGN + 1, H)).astype(np.float32)
    head = Linear(W, np.zeros(SIGN + 1, np.float32))
    module, module_head = torch_module(lstm), torch_head(head)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        data = np.random.default_rng(1)
        return (copy_batch(data, T, B) for _ in range(STEPS))

    optimizer = Adam(lr)
    curve = []
    for x, wanted in batches():
        output, _, tape = lstm.forward(x)
        h = output.reshape(T * B, H)
        value, d_logits = cross_entropy(head(h), wanted.reshape(-1))
        d_h, d_W, d_b = head.backward(h, d_logits)
        grads = tape.backward(d_h.reshape(T, B, H)).params | {"head.W": d_W, "head.b": d_b}
        grads, _ = clip_by_global_norm(grads, RECIPE.max_norm)
        params = optimizer.step({**lstm.params, "head.W": head.W, "head.b": head.b}, grads)
        head = Linear(params.pop("head.W"), params.pop("head.b"))
        lstm.update(params)
        curve.append(value)

    def loss(logits: Any, wanted: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    assert_same_curve(curve, torch_curve(module, module_head, lr, batches(), loss))

"""The operators that graphs are made of."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from fastlstm.torch import _ops, _tapes
from torch import Tensor, library
from torch.autograd import forward_ad
from twins import SEQUENCES, assert_alike, state_of, twins

TIME_FIRST, BATCH_FIRST, PACKED = range(3)
# What opcheck compiles, and PyTorch's own of what it compiles for forward mode.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def problem(
    kind: str, order: int = TIME_FIRST, states: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[Any, dict[str, Any]]:
    """Torch's module, and the arguments of the operator that computes the same."""
    options = {"input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
    _, theirs = twins(kind, **options, dtype=dtype)
    layer, numbers = _ops.describe(kind, options)
    shape = {TIME_FIRST: (5, 3, 3), BATCH_FIRST: (3, 5, 3), PACKED: (7, 3)}[order]
    state = state_of(kind, 4, 3, 4, dtype=dtype) if states else ()
    return theirs, {
        "x": torch.randn(shape, dtype=dtype).requires_grad_(),
        "states": [part.requires_grad_() for part in ([state] if kind != "LSTM" else state)]
        if states
        else [],
        "weights": list(theirs.parameters()),
        "lengths": torch.tensor([3, 2, 1, 1]) if order == PACKED else None,
        "seed": None,
        "layer": layer,
        "numbers": numbers,
        "order": order,
        "taped": True,
    }


def forward(arguments: dict[str, Any]) -> Any:
    return torch.ops.fastlstm.forward(*arguments.values())


def detached(arguments: dict[str, Any]) -> dict[str, Any]:
    plain = dict(arguments)
    plain["x"] = plain["x"].detach()
    for name in ("states", "weights"):
        plain[name] = [tensor.detach() for tensor in plain[name]]
    return plain


def inputs_of(arguments: dict[str, Any]) -> list[Tensor]:
    return [arguments["x"], *arguments["states"], *arguments["weights"]]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [TIME_FIRST, BATCH_FIRST, PACKED])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_forward_passes_opcheck(kind: str, order: int, dtype: torch.dtype) -> None:
    _, arguments = problem(kind, order, dtype=dtype)
    library.opcheck(torch.ops.fastlstm.forward.default, tuple(arguments.values()))


@pytest.mark.slow
@pytest.mark.parametrize("given", ["states", "lengths", "seed", "tape", "nothing"])
def test_forward_passes_opcheck_with_and_without(given: str) -> None:
    _, arguments = problem("LSTM", states=given == "states")
    arguments["lengths"] = torch.tensor([5, 0, 2]) if given == "lengths" else None
    arguments["seed"] = torch.tensor(7) if given == "seed" else None
    arguments["taped"] = given == "tape"
    library.opcheck(torch.ops.fastlstm.forward.default, tuple(arguments.values()))


@pytest.mark.slow
@pytest.mark.parametrize("order", [TIME_FIRST, PACKED])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_backward_passes_opcheck(kind: str, order: int) -> None:
    plain = detached(problem(kind, order)[1])
    output, final, token = forward(plain)
    plain.pop("taped")
    d_final = [None, *final[1:]]
    for needed in (
        [True] * len(inputs_of(plain)),
        [i % 2 == 0 for i in range(len(inputs_of(plain)))],
    ):
        arguments = (token, *plain.values(), output, d_final, needed)
        library.opcheck(torch.ops.fastlstm.backward.default, arguments)


@pytest.mark.parametrize("taped", [True, False])
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_values_and_gradients_are_torchs(kind: str, states: bool, taped: bool) -> None:
    theirs, arguments = problem(kind, states=states)
    arguments["taped"] = taped  # without a tape the backward pass computes forward again
    output, final, _ = forward(arguments)
    hx = (
        tuple(arguments["states"]) if kind == "LSTM" else arguments["states"][0] if states else None
    )
    expected, state = theirs(arguments["x"], hx if states else None)
    state = state if kind == "LSTM" else (state,)
    assert_alike((output, *final), (expected, *state))
    inputs = inputs_of(arguments)
    weight = torch.randn_like(output)
    got = torch.autograd.grad((output * weight).sum() + final[0].sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum() + state[0].sum(), inputs)
    assert_alike(got, wanted)


def test_a_copied_token_computes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    find = _tapes.find
    monkeypatch.setattr(
        _tapes, "find", lambda token: (found.append(find(token) is not None), find(token))[1]
    )
    plain = detached(problem("GRU")[1])
    output, final, token = forward(plain)
    plain.pop("taped")
    rest = (*plain.values(), output, final, [True] * len(inputs_of(plain)))
    first = torch.ops.fastlstm.backward(token, *rest)
    again = torch.ops.fastlstm.backward(token.clone(), *rest)
    assert found == [True, False]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_a_tape_goes_with_its_token() -> None:
    gc.collect()
    before = len(_tapes._owners)
    _, arguments = problem("LSTM")
    result = forward(arguments)
    assert len(_tapes._owners) == before + 1
    alias = result[2][:1]
    del result
    gc.collect()
    assert len(_tapes._owners) == before + 1
    del alias
    gc.collect()
    assert len(_tapes._owners) == before


def test_a_seed_is_the_dropout() -> None:
    options = {"input_size": 3, "hidden_size": 4, "num_layers": 2, "dropout": 0.5}
    ours, _ = twins("LSTM", **options)
    layer, numbers = _ops.describe("LSTM", options)
    assert numbers == [0.5]
    x, weights = torch.randn(5, 3, 3, dtype=torch.float64), list(ours.parameters())

    def output(seed: int | None) -> Tensor:
        drawn = None if seed is None else torch.tensor(seed)
        result = torch.ops.fastlstm.forward(x, [], weights, None, drawn, layer, numbers, 0, False)
        return result[0].detach()

    assert torch.equal(output(1), output(1))
    assert not torch.equal(output(1), output(2))
    assert torch.equal(output(None), ours.eval()(x)[0].detach())


def test_weights_are_never_stale() -> None:
    _, arguments = problem("RNN")
    before = forward(arguments)[0].detach()
    arguments["weights"][0].data.mul_(2)
    after = forward(arguments)[0].detach()
    assert not torch.equal(before, after)
    arguments["weights"] = [weight.detach().clone() for weight in arguments["weights"]]
    assert torch.equal(forward(arguments)[0], after)


def test_engines_go_with_their_weights() -> None:
    _ops._engines.clear()
    for _ in range(3):
        forward(problem("GRU")[1])
        gc.collect()
    assert len(_ops._engines) == 1
    kept = [problem("GRU")[1] for _ in range(_ops._MOST_ENGINES + 3)]
    for arguments in kept:
        forward(arguments)
    assert len(_ops._engines) == _ops._MOST_ENGINES


def test_threads() -> None:
    problems = [problem("LSTM")[1] for _ in range(2)]
    expected = [forward(arguments)[0].detach() for arguments in problems]
    wrong: list[int] = []

    def run(k: int) -> None:
        for _ in range(50):
            output = forward(problems[k % 2])[0].detach()
            wrong.extend([] if torch.equal(output, expected[k % 2]) else [k])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


WRONG = {
    "width": ({"x": torch.zeros(5, 3, 2, dtype=torch.float64)}, ValueError, "x: expected"),
    "axes": ({"x": torch.zeros(5, 3, dtype=torch.float64)}, ValueError, "x: expected"),
    "dtype": ({"x": torch.zeros(5, 3, 3)}, TypeError, "x: expected a CPU tensor"),
    "no steps": ({"x": torch.zeros(0, 3, 3, dtype=torch.float64)}, RuntimeError, "larger than 0"),
    "long": ({"lengths": torch.tensor([6, 1, 1])}, ValueError, "lengths: expected values"),
    "few lengths": ({"lengths": torch.tensor([1, 1])}, ValueError, "lengths: expected"),
    "state": (
        {"states": [torch.zeros(4, 2, 4, dtype=torch.float64)] * 2},
        ValueError,
        "h: expected",
    ),
    "one state": (
        {"states": [torch.zeros(4, 3, 4, dtype=torch.float64)]},
        ValueError,
        "states: expected",
    ),
    "weights": ({"weights": [torch.zeros(3, dtype=torch.float64)]}, ValueError, "weights: exp"),
    "rows": (
        {
            "x": torch.zeros(7, 3, dtype=torch.float64),
            "order": PACKED,
            "lengths": torch.tensor([3, 2, 1]),
        },
        ValueError,
        "lengths: expected batch sizes of 7 rows",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_whatever_graphs_are_given_is_checked(case: str) -> None:
    other, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        forward({**detached(problem("LSTM")[1]), **other})


def test_what_is_not_computed() -> None:
    _, arguments = problem("LSTM")
    x = arguments["x"]

    def output(x: Tensor) -> Tensor:
        return forward({**arguments, "x": x})[0]

    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(output)(torch.stack([x, x]))
    for transform in (
        lambda: torch.func.grad(lambda x: output(x).sum())(x),
        lambda: torch.func.jvp(output, (x,), (x,)),
    ):
        with pytest.raises(RuntimeError, match=r"transforms of torch\.func"):
            transform()
    with (
        forward_ad.dual_level(),
        pytest.raises(RuntimeError, match="forward-mode"),
    ):
        output(forward_ad.make_dual(x.detach(), x.detach()))
    (d_x,) = torch.autograd.grad(output(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        torch.autograd.grad(d_x.sum(), x)
    several = torch.eye(4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="several gradients at once"):
        torch.autograd.grad(output(x).flatten()[:4], x, several, is_grads_batched=True)

"""Autograd's rules: what is saved, when it goes, what is found to have changed, what is refused."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from fastlstm._runtime import divided
from fastlstm.torch import _engine
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint
from twins import CELLS, SEQUENCES, assert_alike, leaves, outcome, state_of, tensors, twins

KINDS = (*SEQUENCES, *CELLS)
# PyTorch's own, of what it compiles for forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
of_kinds = pytest.mark.parametrize("kind", KINDS)


def example(kind: str, **options: Any) -> tuple[Any, Any, Any]:
    """Ours, an input and a state, which require gradients."""
    ours, _ = twins(kind, 3, 5, **options)
    shape = (4, 3) if kind in CELLS else (6, 4, 3)
    x = torch.randn(shape, dtype=torch.float64)
    state = state_of(kind, *((4, 5) if kind in CELLS else (ours.num_layers, 4, 5)))
    return ours, leaves(x), leaves(state)


def loss_of(result: Any) -> torch.Tensor:
    return sum((t.sin() * t).sum() for t in tensors(result))  # type: ignore[return-value]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Weak references to what keeps each tape that is made."""
    kept: list[weakref.ref[Any]] = []
    forward = _engine.Call.forward

    class Kept:
        def __init__(self, tape: Any) -> None:
            self.backward_of = tape.backward_of

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        output, final, tape = forward(self, *args, **kwargs)
        if tape is None:
            return output, final, None
        tape = Kept(tape)
        kept.append(weakref.ref(tape))
        return output, final, tape

    monkeypatch.setattr(_engine.Call, "forward", counted)
    return kept


def alive(tapes: list[weakref.ref[Any]]) -> int:
    return sum(tape() is not None for tape in tapes)


# --- values ---------------------------------------------------------------------------------------


@of_kinds
def test_gradcheck(kind: str) -> None:
    ours, x, state = example(kind)
    parameters = list(ours.parameters())

    def call(x: Any, *rest: Any) -> tuple[torch.Tensor, ...]:
        parts = rest[: len(tensors(state))]
        return tuple(tensors(ours(x, parts if len(parts) > 1 else parts[0])))

    assert torch.autograd.gradcheck(call, (x, *tensors(state), *parameters))


@pytest.mark.parametrize("kind", SEQUENCES)
def test_gradcheck_of_packed_rows(kind: str) -> None:
    ours, _, state = example(kind, num_layers=2, bidirectional=True)
    state = leaves(state_of(kind, 4, 3, 5))
    rows = pack_padded_sequence(
        torch.randn(4, 3, 3, dtype=torch.float64), [2, 4, 1], enforce_sorted=False
    )

    def call(data: Any, *parts: Any) -> tuple[torch.Tensor, ...]:
        output, final = ours(rows._replace(data=data), parts if len(parts) > 1 else parts[0])
        assert isinstance(output, PackedSequence)
        return (output.data, *tensors(final))

    assert torch.autograd.gradcheck(call, (leaves(rows.data), *tensors(state)))


@of_kinds
def test_evaluation_has_gradients(kind: str) -> None:
    options = {} if kind in CELLS else {"num_layers": 2, "dropout": 0.5}
    ours, theirs = twins(kind, 3, 5, **options)
    x = torch.randn((4, 3) if kind in CELLS else (6, 4, 3), dtype=torch.float64)
    grads = []
    for module in (ours.eval(), theirs.eval()):
        grown = leaves(x)
        loss_of(module(grown)).backward()
        grads.append(grown.grad)
    assert_alike(*grads)


@of_kinds
def test_autograd_grad_gives_what_backward_gives(kind: str) -> None:
    ours, x, state = example(kind)
    loss_of(ours(x, state)).backward()
    expected = [x.grad, *(t.grad for t in tensors(state)), *(p.grad for p in ours.parameters())]
    inputs = [x, *tensors(state), *ours.parameters()]
    got = torch.autograd.grad(loss_of(ours(x, state)), inputs)
    assert_alike(list(got), expected)
    one = torch.autograd.grad(loss_of(ours(x, state)), inputs[-1])
    assert_alike(one[0], expected[-1])


# --- saved tensors --------------------------------------------------------------------------------


@of_kinds
def test_backward_may_come_again_where_the_graph_is_kept(kind: str) -> None:
    ours, x, state = example(kind)
    loss = loss_of(ours(x, state))
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    assert_alike(x.grad, first * 2)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@of_kinds
@pytest.mark.parametrize("what", ["x", "state", "weight"])
def test_a_change_in_place_is_found(kind: str, what: str) -> None:
    ours, x, state = example(kind)
    x, parts = x * 1, [part * 1 for part in tensors(state)]
    result = ours(x, tuple(parts) if len(parts) > 1 else parts[0])
    with torch.no_grad():
        {"x": x, "state": parts[0], "weight": next(ours.parameters())}[what].mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss_of(result).backward()


@of_kinds
def test_results_may_change_in_place(kind: str) -> None:
    ours, x, state = example(kind)
    expected = torch.autograd.grad(sum(t.sum() * 3 for t in tensors(ours(x, state))), x)
    got = torch.autograd.grad(sum(t.mul_(3).sum() for t in tensors(ours(x, state))), x)
    assert_alike(got, expected)


@of_kinds
def test_without_gradients_nothing_is_saved(kind: str, tapes: list[Any]) -> None:
    ours, x, state = example(kind)
    with torch.no_grad():
        assert not any(t.requires_grad for t in tensors(ours(x, state)))
    with torch.inference_mode():
        result = ours(x, state)
        assert all(t.is_inference() for t in tensors(result))
    ours.requires_grad_(False)
    assert not any(t.requires_grad for t in tensors(ours(x.detach())))
    assert not tapes
    loss_of(ours(x, state))
    assert len(tapes) == 1


def test_weights_and_inputs_of_inference_mode() -> None:
    with torch.inference_mode():
        ours = fastlstm.torch.LSTM(3, 5)
        theirs = torch.nn.LSTM(3, 5)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(6, 4, 3)
        assert_alike(ours(x), theirs(x))
        ours.weight_hh_l0.mul_(2)
        theirs.weight_hh_l0.mul_(2)
        assert_alike(ours(x), theirs(x))
    # Outside, they are what they are; autograd cannot save them.
    assert outcome(lambda: ours(x))[0] == outcome(lambda: theirs(x))[0] == "RuntimeError"
    with torch.no_grad():
        assert_alike(ours(x), theirs(x))


@of_kinds
def test_a_tape_goes_with_its_graph(kind: str, tapes: list[Any]) -> None:
    ours, x, state = example(kind)
    result = ours(x, state)
    assert alive(tapes) == 1
    del result
    assert alive(tapes) == 0  # at once: nothing refers to itself
    result = ours(x, state)
    loss_of(result).backward(retain_graph=True)
    assert alive(tapes) == 1
    loss_of(result).backward()
    assert alive(tapes) == 0  # though the result is still there


def test_a_module_goes_with_its_last_name() -> None:
    ours, x, _ = example("LSTM")
    output, _ = ours(x)
    output.sum().backward()
    gone = weakref.ref(ours)
    gc.disable()
    try:
        del ours, output
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_saved_is_not_copied() -> None:
    ours, x, state = example("LSTM")
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours(x, state)
    expected = {t.data_ptr() for t in (x, *state, *ours.parameters())}
    assert expected < {t.data_ptr() for t in saved}
    assert len(saved) == len(expected) + 1  # and what keeps the tape
    assert saved[-1].numel() < 100


# --- hooks and checkpoints ------------------------------------------------------------------------


def copies() -> Any:
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t)


def same() -> Any:
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)


HOOKS: dict[str, tuple[Callable[[], Any], int]] = {
    "same": (same, 1),
    "copies": (copies, 0),
    "save_on_cpu": (torch.autograd.graph.save_on_cpu, 1),  # where it is already
}


@of_kinds
@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_hooks_of_saved_tensors(kind: str, hooks: str, dropout: float, tapes: list[Any]) -> None:
    if dropout and kind in CELLS:
        pytest.skip("of layers")
    ours, x, state = example(kind, **({"num_layers": 2, "dropout": dropout} if dropout else {}))
    make, kept = HOOKS[hooks]
    torch.manual_seed(3)
    expected = torch.autograd.grad(loss_of(ours(x, state)), [x, *ours.parameters()])
    tapes.clear()
    torch.manual_seed(3)
    with make():
        loss = loss_of(ours(x, state))
    assert alive(tapes) == kept  # who keeps a copy does not keep the tape
    torch.manual_seed(99)
    got = torch.autograd.grad(loss, [x, *ours.parameters()], retain_graph=True)
    assert_alike(list(got), list(expected))
    assert_alike(list(torch.autograd.grad(loss, [x, *ours.parameters()])), list(expected))
    assert len(tapes) == (1 if kept else 3)
    del loss
    assert alive(tapes) == 0


def test_saved_tensors_that_come_back_as_something_else_are_refused() -> None:
    ours, x, _ = example("LSTM")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.float()):
        loss = loss_of(ours(x))
    with pytest.raises(RuntimeError, match="saved tensors"):
        loss.backward()


@of_kinds
@pytest.mark.parametrize("change", ["half", "bfloat16", "float", "smaller", "x", "state"])
def test_types_and_shapes_stay_until_the_backward_pass(kind: str, change: str) -> None:
    """Versions do not count what is assigned to ``data``."""
    ours, x, state = example(kind)
    loss = loss_of(ours(x, state))
    if change == "smaller":
        for parameter in ours.parameters():
            parameter.data = torch.zeros(1, dtype=torch.float64)
    elif change in ("x", "state"):
        tensor = x if change == "x" else tensors(state)[0]
        tensor.data = tensor.data.half()
    else:
        getattr(ours, change)()
    with pytest.raises(RuntimeError, match="keep their type and shape"):
        loss.backward()


@pytest.mark.parametrize("change", [torch.Tensor.half, lambda t: t[:1], lambda t: t.float()])
def test_hooks_that_change_types_and_shapes_are_refused(change: Any) -> None:
    """Of what is computed with; the token, of bytes, comes back as it was."""
    ours, x, _ = example("LSTM")
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t, lambda t: change(t) if t.dim() == 3 else t
    ):
        loss = loss_of(ours(x))
    with pytest.raises(RuntimeError, match="saved tensors"):
        loss.backward()


@of_kinds
def test_several_gradients_at_once_are_refused(kind: str) -> None:
    ours, x, _ = example(kind)
    output = tensors(ours(x))[0].flatten()
    each = torch.eye(len(output), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="several gradients at once"):
        torch.autograd.grad(output, x, each, is_grads_batched=True)

    def gradient(d_output: torch.Tensor) -> Any:
        return torch.autograd.grad(output, x, d_output)

    with pytest.raises(RuntimeError, match="several gradients at once"):
        torch.func.vmap(gradient)(each)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("part", [0, 1])
def test_projections_that_no_result_uses(part: int, T: int, bidirectional: bool) -> None:
    """After one step c knows nothing of the last layer's projection: None, not zeros."""
    x = torch.randn(T, 4, 3, dtype=torch.float64)
    found = []
    for module in twins("LSTM", 3, 5, 2, proj_size=2, bidirectional=bidirectional):
        module(x)[1][part].sum().backward()
        found.append({name: p.grad for name, p in module.named_parameters()})
    ours, theirs = found
    missing = [name for name, grad in theirs.items() if grad is None]
    assert len(missing) == (part == T == 1) * (1 + bidirectional)
    for name, grad in theirs.items():
        assert (ours[name] is None) == (grad is None), name
        assert_alike(ours[name], grad, name)


@of_kinds
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpoints_give_memory_back(
    kind: str, reentrant: bool, dropout: float, tapes: list[Any]
) -> None:
    if dropout and kind in CELLS:
        pytest.skip("of layers")
    ours, x, state = example(kind, **({"num_layers": 2, "dropout": dropout} if dropout else {}))
    torch.manual_seed(3)
    expected = torch.autograd.grad(loss_of(ours(x, state)), [x, *ours.parameters()])
    tapes.clear()
    torch.manual_seed(3)
    ours.zero_grad()
    parts = tensors(state)

    def call(x: Any, *parts: Any) -> Any:  # reentrant, gradients of what is in tuples get lost
        return tuple(tensors(ours(x, parts if len(parts) > 1 else parts[0])))

    loss = loss_of(checkpoint(call, x, *parts, use_reentrant=reentrant))
    assert alive(tapes) == 0
    loss.backward()
    assert_alike([x.grad, *(p.grad for p in ours.parameters())], list(expected))
    assert alive(tapes) == 0


def test_hooks_of_tensors_and_modules() -> None:
    ours, x, _ = example("LSTM")
    seen: list[str] = []
    ours.register_forward_pre_hook(lambda *_: seen.append("before"))
    ours.register_forward_hook(lambda *_: seen.append("after"))
    ours.register_full_backward_hook(lambda *_: seen.append("backward"))
    output, _ = ours(x)
    output.register_hook(lambda d: d * 2)
    output.sum().backward()
    assert seen == ["before", "after", "backward"]
    doubled = x.grad.clone()
    x.grad = None
    copy.deepcopy(ours)(x)[0].sum().backward()
    assert_alike(doubled, x.grad * 2)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected in")
def test_anomaly_mode() -> None:
    ours, x, _ = example("GRU")
    with torch.autograd.detect_anomaly():
        loss_of(ours(x)).backward()
        with pytest.raises(RuntimeError, match="returned nan values"):
            (ours(x)[0] * torch.tensor(float("nan"))).sum().backward()


def test_gradients_accumulate() -> None:
    ours, x, _ = example("RNN")
    loss_of(ours(x)).backward()
    once = ours.weight_hh_l0.grad.clone()
    loss_of(ours(x)).backward()
    assert_alike(ours.weight_hh_l0.grad, once * 2)


def test_backward_in_another_thread() -> None:
    ours, x, state = example("LSTM")
    expected = torch.autograd.grad(loss_of(ours(x, state)), list(ours.parameters()))
    got: list[Any] = []

    def work() -> None:
        got.extend(torch.autograd.grad(loss_of(ours(x, state)), list(ours.parameters())))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 * len(expected)
    for i in range(4):
        assert_alike(got[i * len(expected) : (i + 1) * len(expected)], list(expected))


def test_groups_of_threads_share_units_on_torchs_threads() -> None:
    ours, _ = twins("LSTM", 8, 64)
    x = torch.randn(6, 10, 8, dtype=torch.float64)
    threads, results = torch.get_num_threads(), []
    try:
        torch.set_num_threads(4)
        for division in ((1, 1, 1, 1), (2, 1, 1, 2), (4, 1, 1, 1), (1, 1, 1, 4)):
            grown = leaves(x)
            with divided(*division):
                output = ours(grown)[0]
                output.sum().backward()
            results.append((output.detach(), grown.grad))
    finally:
        torch.set_num_threads(threads)
    for output, grad in results[1:]:
        assert torch.equal(output, results[0][0])
        assert torch.equal(grad, results[0][1])


def test_as_many_threads_as_torch_has() -> None:
    ours, x, _ = example("LSTM")
    seen: list[int] = []
    run = ours._core_engine_of(torch.float64).run

    def counted(*args: Any) -> Any:
        seen.append(fastlstm.get_num_threads())
        return run(*args)

    ours._core_engine.run = counted
    before, own = torch.get_num_threads(), fastlstm.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            loss_of(ours(x)).backward()
            with fastlstm.num_threads(3):
                ours(x.detach())
                assert fastlstm.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2]
    assert fastlstm.get_num_threads() == own


# --- random numbers -------------------------------------------------------------------------------


def test_a_seed_makes_dropout_reproducible() -> None:
    ours, x, _ = example("LSTM", num_layers=2, dropout=0.5)
    torch.manual_seed(7)
    first = ours(x)[0]
    second = ours(x)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(ours(x)[0], first)
    with torch.random.fork_rng():
        assert torch.equal(ours(x)[0], second)
    assert torch.equal(ours(x)[0], second)
    with torch.no_grad():  # which has dropout as well, in training
        torch.manual_seed(7)
        assert torch.equal(ours(x)[0], first)
    ours.eval()
    assert torch.equal(ours(x)[0], ours(x)[0])


@pytest.mark.parametrize(
    ("options", "training"),
    [({}, True), ({"dropout": 0.5, "num_layers": 2}, False), ({"zoneout": 0.1}, False)],
)
def test_without_dropout_no_random_numbers_are_drawn(
    options: dict[str, Any], training: bool
) -> None:
    ours = fastlstm.torch.GRU(3, 5, **options).train(training)
    before = torch.get_rng_state()
    ours(torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_can_change_after_construction() -> None:
    ours, x, _ = example("LSTM", num_layers=2)
    plain = ours(x)[0]
    ours.dropout = 1.0
    dropped = ours(x)[0]
    assert not torch.equal(plain, dropped)
    theirs = torch.nn.LSTM(3, 5, 2, dropout=1.0, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    assert_alike(dropped, theirs(x)[0])


# --- what is refused ------------------------------------------------------------------------------


@of_kinds
def test_gradients_of_gradients_are_refused(kind: str) -> None:
    ours, x, state = example(kind)
    expected = torch.autograd.grad(loss_of(ours(x, state)), x)[0]
    (first,) = torch.autograd.grad(loss_of(ours(x, state)), x, create_graph=True)
    assert first.requires_grad
    assert_alike(first.detach(), expected)  # which may be enough
    with pytest.raises(RuntimeError, match=r"gradients of gradients.*restore\(model\)"):
        first.sum().backward()


@of_kinds
def test_transforms_are_refused(kind: str) -> None:
    ours, x, _ = example(kind)
    x = x.detach()

    def output(x: Any) -> torch.Tensor:
        return tensors(ours(x))[0].sum()

    with pytest.raises(RuntimeError, match=r"vmap.*restore\(model\)"):
        torch.func.vmap(output)(torch.stack((x, x)))
    with pytest.raises(RuntimeError, match=r"transforms of torch.*restore\(model\)"):
        torch.func.grad(output)(x)
    with pytest.raises(RuntimeError, match=r"jvp.*restore\(model\)"):
        torch.func.jvp(output, (x,), (x,))


@of_kinds
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("what", ["x", "weight", "state"])
def test_forward_mode_is_refused(kind: str, grad: bool, what: str) -> None:
    ours, x, state = example(kind)
    with torch.autograd.forward_ad.dual_level(), torch.set_grad_enabled(grad):
        ours(x, state)  # nothing to lose
        dual = torch.autograd.forward_ad.make_dual
        if what == "x":
            x = dual(x.detach(), torch.ones_like(x))
        elif what == "state":
            parts = [dual(t.detach(), torch.ones_like(t)) for t in tensors(state)]
            state = tuple(parts) if len(parts) > 1 else parts[0]
        else:
            name, p = next(ours.named_parameters())
            delattr(ours, name)
            setattr(ours, name, dual(p.detach(), torch.ones_like(p)))
        with pytest.raises(RuntimeError, match=r"forward-mode.*restore\(model\)"):
            ours(x, state)

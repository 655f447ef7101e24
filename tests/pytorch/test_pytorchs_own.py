"""What PyTorch's own tests of these modules assert, of ours.

Those of test/test_nn.py and test/test_modules.py, by what they are about; test_calls.py and
test_single_steps.py have the shapes, errors and packed sequences, and test_modules.py copies and
moves. Gradients of gradients, which theirs have, are an error (test_autograd.py).
"""

from __future__ import annotations

import io
import itertools
import pickle
import random
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch import nn
from torch.nn.utils import remove_weight_norm, rnn, weight_norm
from twins import (
    CELLS,
    SEQUENCES,
    assert_alike,
    assert_same_gradients,
    outcome,
    state_of,
    tensors,
    twins,
)

DTYPE = torch.float64


@pytest.mark.parametrize(("proj_size", "count"), [(0, 4), (2, 5)])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_flat_weights_follow_weight_norm(proj_size: int, count: int, name: str) -> None:
    if name == "weight_hr_l0" and not proj_size:
        pytest.skip("of projections")
    layer = fastlstm.torch.LSTM(32, 32, proj_size=proj_size)
    weight_norm(layer, name)
    assert sum(isinstance(p, nn.Parameter) for p in layer._flat_weights) == count - 1
    remove_weight_norm(layer, name)
    assert sum(isinstance(p, nn.Parameter) for p in layer._flat_weights) == count
    assert layer._parameters[name] is not None
    assert name + "_v" not in layer._parameters
    assert name + "_g" not in layer._parameters
    assert name in dict(layer.named_parameters())
    assert layer(torch.zeros(1, 1, 32))[0].shape == (1, 1, proj_size or 32)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_six_steps_of_a_cell_have_gradients(kind: str, bias: bool) -> None:
    cell = getattr(fastlstm.torch, kind)(10, 20, bias=bias)
    x, state = torch.randn(3, 10), state_of(kind, 3, 20, dtype=torch.float32)
    for _ in range(6):
        state = cell(x, state)
    tensors(state)[0].sum().backward()
    assert all(p.grad is not None for p in cell.parameters())
    assert f"bias={bias}" in repr(cell) or bias


@pytest.mark.parametrize("kind", CELLS)
def test_cells_without_units_or_inputs(kind: str) -> None:
    for sizes in ((10, 0), (0, 5)):
        got = []
        for kinds in (fastlstm.torch, nn):
            cell = getattr(kinds, kind)(*sizes)
            x = torch.randn(3, sizes[0])
            torch.manual_seed(0)
            for p in cell.parameters():
                p.data.uniform_(-1, 1)
            got.append(outcome(lambda c=cell, x=x: c(x)))
        assert got[0][0] == got[1][0]
        assert_alike(got[0][1], got[1][1])


@pytest.mark.parametrize(
    ("x", "h", "c"),
    [
        ((3, 11), (3, 20), (3, 20)),
        ((3, 10), (3, 21), (3, 20)),
        ((3, 10), (3, 20), (3, 21)),
        ((3, 10), (1, 20), (3, 20)),
        ((3, 10), (3, 20), (1, 20)),
        ((3, 10), (3, 1), (3, 20)),
        ((3, 10), (3, 20), (3, 1)),
        ((3, 1), (3, 20), (3, 20)),
        ((1, 10), (3, 20), (3, 20)),
    ],
)
def test_cells_do_not_broadcast(x: Any, h: Any, c: Any) -> None:
    for kind in CELLS:
        cell = getattr(fastlstm.torch, kind)(10, 20)
        parts = (torch.randn(h), torch.randn(c))
        if kind != "LSTMCell" and (c != (3, 20)):
            continue
        with pytest.raises(RuntimeError):
            cell(torch.randn(x), parts if kind == "LSTMCell" else parts[0])


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 6])
def test_wrong_sizes_are_said_as_theirs(kind: str, bidirectional: bool, proj_size: int) -> None:
    """All right and wrong sizes of x, h and c at once."""
    if proj_size and kind != "LSTM":
        with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
            getattr(fastlstm.torch, kind)(3, 10, proj_size=proj_size)
        return
    more = {"proj_size": proj_size} if proj_size else {}
    ours, theirs = twins(kind, 3, 10, 2, bidirectional=bidirectional, dtype=DTYPE, **more)
    L, P = 2 * (1 + bidirectional), proj_size or 10
    right = [(5, 4, 3), (L, 4, P), (L, 4, 10)]
    wrong = [
        [(5, 4, 4), (5, 3, 3)],
        [(L + 1, 4, P), (L, 5, P), (L, 4, P + 1)],
        [(L + 1, 4, 10), (L, 5, 10), (L, 4, 11)],
    ]
    cases = [right] + [
        [*right[:i], bad, *right[i + 1 :]] for i, shapes in enumerate(wrong) for bad in shapes
    ]
    for x, h, c in cases:
        state = (torch.zeros(h, dtype=DTYPE), torch.zeros(c, dtype=DTYPE))
        args = (torch.zeros(x, dtype=DTYPE), state if kind == "LSTM" else state[0])
        expected = outcome(lambda a=args: theirs(*a))
        got = outcome(lambda a=args: ours(*a))
        assert got[0] == expected[0]
        assert_alike(got[1], expected[1])


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("proj_size", [0, 4])
def test_no_state_is_zeros(kind: str, proj_size: int) -> None:
    if proj_size and kind != "LSTM":
        pytest.skip("of an LSTM")
    for batch_first, bidirectional in itertools.product((False, True), repeat=2):
        more = {"proj_size": proj_size} if proj_size else {}
        ours, _ = twins(
            kind, 5, 10, 3, batch_first=batch_first, bidirectional=bidirectional, **more
        )
        x = torch.randn(4, 4, 5, dtype=DTYPE)
        zeros = [
            torch.zeros(3 * (1 + bidirectional), 4, width, dtype=DTYPE)
            for width in ((proj_size or 10), 10)
        ]
        state = tuple(zeros) if kind == "LSTM" else zeros[0]
        for got, expected in zip(tensors(ours(x)), tensors(ours(x, state)), strict=True):
            assert torch.equal(got, expected)


def test_nonlinearities() -> None:
    for args, kwargs in (((1, 10), {"nonlinearity": "relu"}), ((1, 10, 1, "relu"), {})):
        layer = fastlstm.torch.RNN(*args, **kwargs)
        assert layer.nonlinearity == "relu"
        assert layer.mode == "RNN_RELU"
        assert float(layer(torch.randn(5, 2, 1))[0].detach().min()) >= 0
    assert fastlstm.torch.RNN(1, 10).nonlinearity == "tanh"
    with pytest.raises(ValueError, match="Unknown nonlinearity"):
        fastlstm.torch.RNN(1, 10, nonlinearity="garbage")


def test_no_inputs_are_refused() -> None:
    for kind in SEQUENCES:
        with pytest.raises(ValueError, match="input_size must be greater than zero"):
            getattr(fastlstm.torch, kind)(0, 5)


@pytest.mark.parametrize("p", [0.0, 0.276, 0.731, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_scales_what_it_leaves(p: float, training: bool) -> None:
    """A thousand ones, summed in a layer, dropped with p and summed again."""
    layer = fastlstm.torch.RNN(10, 1000, 2, bias=False, dropout=p, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1)
        layer.weight_hh_l0.fill_(1)
        layer.weight_ih_l1.fill_(1)
        layer.weight_hh_l1.fill_(1)
    layer.train(training)
    torch.manual_seed(0)
    output, state = layer(torch.ones(1, 1, 10), torch.zeros(2, 1, 1000))
    output, state = output.detach(), state.detach()
    assert output.min() == output.max()
    value = float(output[0, 0, 0])
    if p == 0 or not training:
        assert value == 10000
    elif p == 1:
        assert value == 0
    else:
        assert 8000 < value < 12000
        kept = value * (1 - p) / 10
        assert abs(kept - round(kept)) < 1e-2
    assert state[0].min() == state[0].max() == 10
    assert state[1].min() == state[1].max() == value


@pytest.mark.parametrize("p", [0.0, 0.1234])
@pytest.mark.parametrize("training", [True, False])
def test_the_state_of_dropout(p: float, training: bool) -> None:
    layer = fastlstm.torch.RNN(100, 100, 2, bias=False, dropout=p, nonlinearity="relu")
    layer.train(training)
    x, state = torch.rand(1, 1, 100), torch.rand(2, 1, 100)
    outputs = [layer(x, state)[0] for _ in range(2)]
    outputs.append(pickle.loads(pickle.dumps(layer))(x, state)[0])
    for a, b in itertools.combinations(outputs, 2):
        assert torch.equal(a, b) == (p == 0 or not training)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_may_change(training: bool) -> None:
    layer = fastlstm.torch.RNN(100, 100, 2, dropout=0, nonlinearity="relu").train(training)
    x = torch.rand(3, 2, 100)
    before = layer(x)[0]
    for p in (0.5, 0.0, 0.5):
        layer.dropout = p
        changed = p > 0 and training
        assert torch.equal(layer(x)[0], before) == (not changed)


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_by_finite_differences(kind: str, batch_first: bool) -> None:
    for bias, bidirectional in itertools.product((False, True), repeat=2):
        ours, _ = twins(
            kind, 4, 3, 2, bias=bias, batch_first=batch_first, bidirectional=bidirectional
        )
        x = torch.randn(2, 3, 4, dtype=DTYPE, requires_grad=True)
        parameters = list(ours.parameters())
        assert torch.autograd.gradcheck(
            lambda x, *_, module=ours: tensors(module(x)), (x, *parameters), fast_mode=True
        )


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("sort", [False, True])
def test_variable_sequences(kind: str, sort: bool) -> None:
    """Packed, padded and alone, with random lengths: results and gradients of inputs."""
    random.seed(0)
    for batch_first, bidirectional in itertools.product((False, True), repeat=2):
        ours, theirs = twins(kind, 3, 4, 3, batch_first=batch_first, bidirectional=bidirectional)
        lengths = [random.randint(1, 7) for _ in range(5)]
        if sort:
            lengths.sort(reverse=True)
        x = rnn.pad_sequence(
            [torch.randn(n, 3, dtype=DTYPE) for n in lengths], batch_first=batch_first
        ).requires_grad_()
        state = state_of(kind, 3 * (1 + bidirectional), 5, 4)
        results = []
        for module in (ours, theirs):
            packed = rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=sort)
            rows, final = module(packed, state)
            padded, _ = rnn.pad_packed_sequence(rows, batch_first)
            grads = torch.autograd.grad((padded.sin() * 2).sum(), [x, *module.parameters()])
            results.append((padded, final, grads))
        assert_alike(*results)
        outputs, finals = [], []
        for b, n in enumerate(lengths):
            one = x[b, :n] if batch_first else x[:n, b]
            parts = [part[:, b] for part in tensors(state)]
            output, final = ours(one, tuple(parts) if len(parts) > 1 else parts[0])
            outputs.append(output)
            finals.append(tensors(final))
        assert_alike(rnn.pad_sequence(outputs, batch_first), results[0][0])
        together = [torch.stack(parts, 1) for parts in zip(*finals, strict=True)]
        assert_alike(together, tensors(results[0][1]))
        assert_alike(ours(x, state, lengths=lengths)[0], results[0][0])


@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_retained_graph_gives_the_same_gradients(kind: str) -> None:
    layer, _ = twins(kind, 10, 20, 2)
    x = torch.randn(5, 6, 10, dtype=DTYPE, requires_grad=True)
    loss = layer(x)[0].sum()
    loss.backward(retain_graph=True)
    grads = [x.grad.clone(), *(p.grad.clone() for p in layer.parameters())]
    for _ in range(4):
        layer.zero_grad()
        x.grad = None
        loss.backward(retain_graph=True)
        for before, now in zip(grads, (x.grad, *(p.grad for p in layer.parameters())), strict=True):
            assert torch.equal(before, now)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_states_of_packed_sequences_are_in_the_users_order(kind: str) -> None:
    ours, theirs = twins(kind, 3, 4, 2)
    x = torch.randn(6, 4, 3, dtype=DTYPE)
    state = state_of(kind, 2, 4, 4)
    packed = rnn.pack_padded_sequence(x, [2, 6, 1, 5], enforce_sorted=False)
    assert_same_gradients(ours, theirs, packed, state)
    sorted_ = torch.tensor([1, 3, 0, 2])
    in_order = rnn.pack_padded_sequence(x[:, sorted_], [6, 5, 2, 1])
    parts = [part[:, sorted_] for part in tensors(state)]
    _, final = ours(in_order, tuple(parts) if len(parts) > 1 else parts[0])
    _, expected = ours(packed, state)
    assert_alike(tensors(final), [part[:, sorted_] for part in tensors(expected)])


@pytest.mark.parametrize("kind", [*SEQUENCES, *CELLS])
def test_what_all_modules_are_asked(kind: str) -> None:
    """Of test_modules.py: factories, files, training modes, non-contiguous inputs, repr."""
    ours, theirs = twins(kind, 4, 5)
    shape = (3, 4) if kind in CELLS else (6, 3, 4)
    with torch.device("meta"):
        assert all(p.is_meta for p in getattr(fastlstm.torch, kind)(4, 5).parameters())
    for dtype in (torch.float32, torch.float64):
        made = getattr(fastlstm.torch, kind)(4, 5, device="cpu", dtype=dtype)
        assert {p.dtype for p in made.parameters()} == {dtype}
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    loaded = getattr(fastlstm.torch, kind)(4, 5, dtype=DTYPE)
    loaded.load_state_dict(torch.load(file))
    x = torch.randn(shape, dtype=DTYPE)
    assert_alike(loaded(x), theirs(x))
    for mode in (True, False):
        assert_alike(ours.train(mode)(x), theirs.train(mode)(x))
    strided = torch.stack((x, x), dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert_same_gradients(ours, theirs, strided)
    assert str(ours) == str(theirs)
    before = x.clone()
    ours(x)
    assert torch.equal(x, before)

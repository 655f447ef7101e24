"""Options that torch's modules do not have: computed as fastlstm's layers, refused elsewhere."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import fastlstm
import numpy as np
import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from twins import assert_alike, state_of, tensors

CASES: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"peepholes": True, "num_layers": 2, "bidirectional": True}),
    ("LSTM", {"peepholes": True, "proj_size": 3, "num_layers": 2}),
    ("LSTM", {"layer_norm": True}),
    ("LSTM", {"layer_norm": True, "bias": False, "bidirectional": True}),
    ("LSTM", {"input_forget": True, "clip": 0.5}),
    ("LSTM", {"activations": (("HardSigmoid", 0.2, 0.5), "Tanh", "Relu")}),
    ("LSTM", {"zoneout": (0.1, 0.3)}),
    ("LSTM", {"reverse": True, "batch_first": True}),
    ("LSTM", {"bidirectional": True, "merge": "sum"}),
    ("LSTM", {"bidirectional": True, "merge": None}),
    ("GRU", {"reset_after": False, "num_layers": 2}),
    ("GRU", {"clip": 0.25, "zoneout": 0.2}),
    ("GRU", {"bidirectional": True, "merge": "mul"}),
    ("RNN", {"activations": ("Softsign",)}),
    ("RNN", {"nonlinearity": "relu", "reverse": True}),
]
REGULARISED: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"recurrent_dropout": 0.5}),
    ("LSTM", {"weight_dropout": 0.5}),
    ("LSTM", {"zoneout": 0.5}),
    ("GRU", {"recurrent_dropout": 0.5}),
    ("RNN", {"zoneout": 0.5}),
]


def ids(cases: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [f"{kind}-{','.join(options)}" for kind, options in cases]


def make(kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A module and the layer of fastlstm's with its parameters."""
    torch.manual_seed(0)
    module = getattr(fastlstm.torch, kind)(4, 6, dtype=torch.float64, **options)
    layer = getattr(fastlstm, kind)(4, 6, dtype="float64", **options)
    layer.load_state_dict(module.state_dict())
    return module, layer


def x_of(module: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (3, 5, 4) if module.batch_first else (5, 3, 4)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def with_gradients(module: Any, x: torch.Tensor, **kwargs: Any) -> list[Any]:
    x = x.clone().requires_grad_()
    module.zero_grad()
    output, state = module(x, **kwargs)
    generator = torch.Generator().manual_seed(2)
    d_output = torch.randn(output.shape, dtype=x.dtype, generator=generator)
    (output * d_output).sum().backward()
    grads = {name: p.grad.clone() for name, p in module.named_parameters()}
    return [output.detach(), [part.detach() for part in tensors(state)], d_output, x.grad, grads]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=ids(CASES))
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=["whole", "lengths"])
@pytest.mark.parametrize("padding", ["post", "pre"])
def test_results_and_gradients_are_the_layers(
    kind: str, options: dict[str, Any], lengths: Any, padding: Any
) -> None:
    module, layer = make(kind, options)
    module.eval()
    x = x_of(module)
    given = {"lengths": lengths, "padding": padding}
    output, state, d_output, d_x, grads = with_gradients(module, x, **given)
    expected, final, tape = layer.forward(x.numpy(), training=False, **given)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13)
    for mine, its in zip(state, final if kind == "LSTM" else (final,), strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-13)
    wanted = tape.backward(d_output.numpy())
    np.testing.assert_allclose(d_x, wanted.x, rtol=0, atol=1e-12)
    assert grads.keys() == wanted.params.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted.params[name], rtol=0, atol=1e-11, err_msg=name)
    with torch.no_grad():
        assert_alike(module(x, **given)[0], output)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=ids(CASES))
def test_packed_rows_are_what_lengths_give(kind: str, options: dict[str, Any]) -> None:
    module, _ = make(kind, options)
    module.eval()
    x, lengths = x_of(module), [2, 5, 3]
    packed = pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=False)
    if options.get("merge", "") is None:
        with pytest.raises(ValueError, match="merge"):
            module(packed)
        return
    rows, state = module(packed)
    output, expected = module(x, lengths=lengths)
    assert_alike(pad_packed_sequence(rows, module.batch_first)[0], output)
    assert_alike(state, expected)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradcheck_with_lengths(kind: str, batch_first: bool) -> None:
    module, _ = make(kind, {"bidirectional": True, "batch_first": batch_first})
    state = [part.requires_grad_() for part in tensors(state_of(kind, 2, 3, 6))]
    lengths = torch.tensor([4, 0, 5])

    def call(x: Any, *parts: Any) -> tuple[torch.Tensor, ...]:
        hx = parts if len(parts) > 1 else parts[0]
        return tuple(tensors(module(x, hx, lengths=lengths, padding="pre")))

    assert torch.autograd.gradcheck(call, (x_of(module).requires_grad_(), *state))


@pytest.mark.parametrize(("kind", "options"), REGULARISED, ids=ids(REGULARISED))
def test_noise_is_of_training_and_of_torchs_seed(kind: str, options: dict[str, Any]) -> None:
    module, layer = make(kind, options)
    x = x_of(module)
    torch.manual_seed(3)
    first = module(x)[0]
    assert not torch.equal(module(x)[0], first)
    torch.manual_seed(3)
    assert torch.equal(module(x)[0], first)
    torch.manual_seed(3)
    seed = int(torch.randint(2**63 - 1, ()))
    np.testing.assert_allclose(
        first.detach(), layer.forward(x.numpy(), seed=seed)[0], rtol=0, atol=1e-13
    )
    module.eval()
    np.testing.assert_allclose(module(x)[0].detach(), layer(x.numpy())[0], rtol=0, atol=1e-13)


CELLS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"peepholes": True, "clip": 2.0}),
    ("LSTM", {"layer_norm": True}),
    ("LSTM", {"zoneout": (0.1, 0.2), "input_forget": True}),
    ("GRU", {"reset_after": False}),
    ("RNN", {"activations": ("Softsign",)}),
]


@pytest.mark.parametrize(("kind", "options"), CELLS, ids=ids(CELLS))
def test_cells_have_them_too(kind: str, options: dict[str, Any]) -> None:
    layer, _ = make(kind, options)
    cell = getattr(fastlstm.torch, kind + "Cell")(4, 6, dtype=torch.float64, **options)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in layer.state_dict().items()})
    layer.eval(), cell.eval()
    x = x_of(layer)
    state = None
    for step in x:
        state = cell(step, state)
    _, final = layer(x)
    assert_alike([part[None] for part in tensors(state)], tensors(final))
    assert repr(cell) == repr(eval(repr(cell), {kind + "Cell": type(cell)}))


@pytest.mark.parametrize(
    "option", [{"reverse": True}, {"merge": "sum"}, {"recurrent_dropout": 0.1}]
)
def test_cells_have_no_options_of_sequences(option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        fastlstm.torch.LSTMCell(4, 6, **option)


@pytest.mark.parametrize(
    ("kind", "options"), CASES + REGULARISED, ids=ids(CASES) + ids(REGULARISED)
)
def test_a_module_is_what_its_options_say(kind: str, options: dict[str, Any]) -> None:
    module, layer = make(kind, options)
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {
        n: p.shape for n, p in layer.params.items()
    }
    for name in options:
        assert getattr(module, name) == getattr(layer, name)
    for name, value in module._core_own_options().items():
        assert f"{name}={value!r}" in repr(module)
    assert repr(eval(repr(module), {kind: type(module)})) == repr(module)
    assert module._core_own_options().keys() == options.keys() & module._core_own.keys()
    if isinstance(module, torch.nn.RNNBase):
        assert sum(map(len, module.all_weights)) == len(list(module.parameters()))
    module.eval()
    x = x_of(module)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(copied) == repr(module)
        assert_alike(copied(x), module(x))
    plain = getattr(fastlstm.torch, kind)(4, 6)
    assert list(plain._core_own_options()) == []


def test_initial_values_of_options_are_the_layers() -> None:
    module = fastlstm.torch.LSTM(4, 64, 2, layer_norm=True, forget_bias=1.0, bidirectional=True)
    for _ in range(2):
        for name, p in module.named_parameters():
            values = p.detach()
            if "_ln_" in name:
                assert torch.equal(values, torch.full_like(p, float(name.startswith("weight"))))
            else:
                assert 0.5 / 8 < float(values[:64].abs().max()) <= 1 / 8, name
            if name.startswith("bias_ih"):
                assert bool((values[64:128] == 1).all())
            if name.startswith("bias_hh"):
                assert bool((values[64:128] == 0).all())
        module.reset_parameters()
    assert "forget_bias=1.0" in repr(module)
    peepholes = fastlstm.torch.LSTM(4, 64, peepholes=True).weight_peephole_l0
    assert 0.5 / 8 < float(peepholes.detach().abs().max()) <= 1 / 8


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        ("LSTM", {"zoneout": 2.0}, ValueError, "zoneout"),
        ("LSTM", {"clip": -1.0}, ValueError, "clip"),
        ("LSTM", {"peepholes": 3}, TypeError, "peepholes"),
        ("LSTM", {"merge": "sum"}, ValueError, "merge"),
        ("LSTM", {"merge": "max", "bidirectional": True}, ValueError, "merge"),
        ("LSTM", {"reverse": True, "bidirectional": True}, ValueError, "reverse"),
        ("LSTM", {"layer_norm": True, "peepholes": True}, ValueError, "layer_norm"),
        ("LSTM", {"forget_bias": 1.0, "bias": False}, ValueError, "forget_bias"),
        ("LSTM", {"forget_bias": "1"}, TypeError, "forget_bias"),
        ("GRU", {"forget_bias": 1.0}, TypeError, "unexpected keyword"),
        ("GRU", {"peepholes": True}, TypeError, "unexpected keyword"),
        ("LSTM", {"reset_after": False}, TypeError, "unexpected keyword"),
        ("RNN", {"activations": ("Relu",), "nonlinearity": "relu"}, ValueError, "activations"),
    ],
)
def test_wrong_options(kind: str, options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        getattr(fastlstm.torch, kind)(4, 6, **options)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(5, 3, 4, dtype=torch.float16),
        torch.zeros(5, 3, 4, dtype=torch.float64),
        torch.zeros(5, 3, 4, device="meta"),
        torch.zeros(5, 3, 2),
        torch.zeros(0, 3, 4),
        torch.zeros(2, 5, 3, 4),
        None,
    ],
    ids=["float16", "float64", "meta", "width", "no steps", "4-D", "None"],
)
def test_where_only_torch_could_compute_they_are_refused(x: Any) -> None:
    module = fastlstm.torch.LSTM(4, 6, peepholes=True, zoneout=0.1)
    with pytest.raises(RuntimeError, match=r"LSTM: peepholes, zoneout: torch's module.*got"):
        module(x)
    plain = fastlstm.torch.LSTM(4, 6)
    with pytest.raises(RuntimeError, match=r"LSTM: lengths: torch's module"):
        plain(x, lengths=[5, 3, 1])
    cell = fastlstm.torch.LSTMCell(4, 6, peepholes=True)
    with pytest.raises(RuntimeError, match=r"LSTMCell: peepholes: torch's module"):
        cell(x)


def test_wrong_lengths() -> None:
    module = fastlstm.torch.LSTM(4, 6)
    x = torch.zeros(5, 3, 4)
    for lengths, error in (
        ([5, 3], ValueError),
        ([5, 3, 6], ValueError),
        ([5, 3, -1], ValueError),
        ([5.0, 3.0, 1.0], TypeError),
        (3, ValueError),
    ):
        with pytest.raises(error, match="lengths"):
            module(x, lengths=lengths)
    with pytest.raises(ValueError, match="padding"):
        module(x, lengths=[5, 3, 1], padding="middle")
    with pytest.raises(ValueError, match=r"lengths.*batch"):
        module(x[:, 0], lengths=[5])
    packed = pack_padded_sequence(x, [5, 3, 1])
    with pytest.raises(ValueError, match=r"lengths.*PackedSequence"):
        module(packed, lengths=[5, 3, 1])


def test_lengths_may_be_of_any_integers() -> None:
    module = fastlstm.torch.LSTM(4, 6)
    x = torch.randn(5, 3, 4)
    expected = module(x, lengths=[5, 3, 1])
    for lengths in (
        torch.tensor([5, 3, 1]),
        torch.tensor([5, 3, 1], dtype=torch.int32),
        np.array([5, 3, 1], np.uint8),
        (5, 3, 1),
    ):
        assert_alike(module(x, lengths=lengths), expected)


def test_lengths_do_not_follow_who_changes_them() -> None:
    module = fastlstm.torch.LSTM(4, 6, dtype=torch.float64)
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 3, 1])
    expected = torch.autograd.grad(module(x, lengths=lengths)[0].sum(), x)
    output = module(x, lengths=lengths)[0]
    lengths.fill_(0)
    assert_alike(torch.autograd.grad(output.sum(), x), expected)


def test_options_may_change_between_calls() -> None:
    module, _ = make("GRU", {"zoneout": 0.5})
    module.eval()
    x = x_of(module)
    before = module(x)[0]
    module.zoneout = 0.0
    plain, _ = make("GRU", {})
    assert_alike(module(x)[0], plain(x)[0])
    module.zoneout = 0.5
    assert_alike(module(x)[0], before)
    with pytest.raises(ValueError, match="zoneout"):
        module.zoneout = 2
    assert module.zoneout == 0.5
    cell = fastlstm.torch.RNNCell(4, 6)
    low = cell(torch.zeros(3, 4))
    cell.nonlinearity = "relu"
    assert float(low.detach().min()) < 0 <= float(cell(torch.zeros(3, 4)).detach().min())

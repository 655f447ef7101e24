"""Converted layers against their sources: what is the same, and layers broken on purpose.

Each break is looked at twice: as a layer that is not what the source gives now, and "blind", as a
mistake of the reader itself, where the reader cannot tell and the source has to be measured.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.cli import main
from fastlstm.interchange._description import Description
from fastlstm.layers import spec_of
from fastlstm.verification import Difference, _sources
from fastlstm.verification._locate import single_steps
from fastlstm.verification._results import Inputs, forget_after_parting, run_layer, trace

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("h5py")

from test_from_keras import fill, fill_cell, make  # noqa: E402
from test_from_onnx import make_model, make_weights  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

I, H = 3, 6
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}
KINDS = [
    *("normal", "one sequence", "one step", "initial state", "zeros", "ones", "impulse", "large"),
    *("tiny", "long", "uneven lengths", "NaN", "infinity"),
]


def assert_same(layer: Any, source: Any, which: str | None = None) -> Any:
    # ONNX Runtime's LSTM and GRU make numbers of NaN.
    special = _sources.kind_of(source) != "onnx"
    report = fastlstm.verify(layer, source, which, special=special)
    assert report.ok, report
    assert report.first_difference is None
    assert report.worst.part_of_allowed <= 1
    names = [check.name for check in report.checks]
    assert names == [kind for kind in KINDS if kind in names]
    assert str(report).endswith("The same, up to rounding.")
    return report


# --- what is the same ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}],
    ids=["plain", "stack", "no bias"],
)
@pytest.mark.parametrize("kind", GATES)
def test_torch(kind: str, options: dict[str, Any], dtype: Any) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, dtype=dtype, **options)
    module.train()
    report = assert_same(fastlstm.from_torch(module), module)
    assert [check.name for check in report.checks] == KINDS
    assert module.training
    assert_same(fastlstm.from_torch(module.eval()), module)


@pytest.mark.parametrize("scale", [4.0, 16.0])
@pytest.mark.parametrize("kind", GATES)
def test_weights_that_amplify_rounding(kind: str, scale: float) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(16, 48, num_layers=2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    assert_same(fastlstm.from_torch(module), module)


def test_nothing_is_compared_after_rounding_has_parted_the_results() -> None:
    inf = np.inf

    def after(directions: int, bidirectional: bool, parted: bool = True) -> list[np.ndarray]:
        bounds = [np.full((4, directions, 1, 1), 0.1), np.full((1 + bidirectional, 1, 1), 0.1)]
        if parted:
            bounds[0][1] = 1
        output = np.ones_like(bounds[0])
        forget_after_parting(output, bounds, bidirectional)
        return [bounds[0][:, k, 0, 0] for k in range(directions)] + [bounds[1]]

    forward, state = after(1, False)
    np.testing.assert_array_equal(forward, [0.1, inf, inf, inf])
    assert (state == inf).all()
    forward, backward, state = after(2, True)
    np.testing.assert_array_equal(forward, [0.1, inf, inf, inf])
    np.testing.assert_array_equal(backward, [inf, inf, 0.1, 0.1])
    assert (state == inf).all()
    merged, _ = after(1, True)
    np.testing.assert_array_equal(merged, [inf, inf, inf, inf])
    assert all((bound == 0.1).all() for bound in after(2, True, parted=False))


def test_more_of_torch() -> None:
    torch.manual_seed(0)
    projected = torch.nn.LSTM(I, 8, num_layers=2, bidirectional=True, proj_size=4)
    assert_same(fastlstm.from_torch(projected), projected)
    for kind in GATES:
        cell = getattr(torch.nn, f"{kind}Cell")(I, H)
        report = assert_same(fastlstm.from_torch(cell), cell)
        assert "uneven lengths" not in [check.name for check in report.checks]
    half = torch.nn.GRU(I, H, dtype=torch.float16)
    assert_same(fastlstm.from_torch(half), half)
    assert half.weight_ih_l0.dtype == torch.float16
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(I, H), "b": torch.nn.GRU(I, H)})
    for source in (model, model.state_dict()):
        assert_same(fastlstm.from_torch(source, "b"), source, "b")
        with pytest.raises(ValueError, match="one of 'a', 'b', got None"):
            fastlstm.verify(fastlstm.from_torch(source, "b"), source)
    # A layer in double precision with single weights, and the other way round.
    module = torch.nn.LSTM(I, H)
    double = fastlstm.LSTM(I, H, dtype="float64")
    double.load_state_dict(module.state_dict())
    assert_same(double, module)
    single = fastlstm.from_torch(module)
    assert_same(single, module.double())


def test_a_report_says_what_it_did_not_look_at() -> None:
    module = torch.nn.LSTM(I, H)
    layer = fastlstm.from_torch(module)
    assert assert_same(layer, module).not_looked_at == ()
    report = assert_same(layer, module.state_dict())
    (line,) = report.not_looked_at
    assert line.endswith("a torch.nn.LSTM was made of them")
    assert f"\nNot looked at: {line}.\n" in str(report)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_keras(kind: str) -> None:
    layers: list[Any] = [make(kind), make(kind, go_backwards=True), make(kind, dtype="float64")]
    layers.append(fill(getattr(keras.layers, kind)(H, activation="relu")))  # the last output only
    for merge in ("concat", "sum", "mul", "ave", None):
        inner = getattr(keras.layers, kind)(H)
        layers.append(fill(keras.layers.Bidirectional(inner, merge_mode=merge)))
    cell = fill_cell(getattr(keras.layers, f"{kind}Cell")(H))
    wrapped = keras.layers.RNN(cell, go_backwards=True)
    wrapped.build((None, None, I))
    for layer in (*layers, cell, wrapped):
        assert_same(fastlstm.from_keras(layer), layer)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_onnx(kind: str, direction: str) -> None:
    for before in (0, 1) if kind == "GRU" else (None,):
        more = {} if before is None else {"linear_before_reset": before}
        weights = make_weights(kind, 2 if direction == "bidirectional" else 1)
        model = make_model(kind, weights, direction=direction, **more)
        assert_same(fastlstm.from_onnx(model), model)


def test_more_of_onnx() -> None:
    model = make_model(
        "LSTM", make_weights("LSTM", 1, peepholes=True), states=2, lengths=True, clip=0.5
    )
    before = model.SerializeToString()
    assert_same(fastlstm.from_onnx(model), model, "node")
    assert model.SerializeToString() == before
    assert_same(*_both(make_model("LSTM", make_weights("LSTM", 1), layout=1)))
    # Values without a bound: the comparison ends before they overflow, and says where.
    weights = {name: 0.4 * value for name, value in make_weights("LSTM", 1).items()}
    affine = {"activations": ["Affine"] * 3, "activation_alpha": [0.7, 0.3, 0.9]}
    model = make_model("LSTM", weights, **affine, activation_beta=[0.8, 1.2, 0.6])
    layer, _ = _both(model)
    report = fastlstm.verify(layer, model)
    assert report.ok, report
    assert {check.name: check.T for check in report.checks}["long"] < 100


def _both(model: Any) -> tuple[Any, Any]:
    return fastlstm.from_onnx(model), model


def test_what_onnx_runtime_has_wrong_is_found() -> None:
    """Its Softplus is log(1 + exp(x)), which is infinite from 89 on."""
    model = make_model("RNN", make_weights("RNN", 1), activations=["Softplus"])
    report = fastlstm.verify(fastlstm.from_onnx(model), model)
    assert [check.name for check in report.checks if not check.ok] == ["large"]
    assert report.first_difference is not None
    assert report.first_difference.theirs == np.inf
    assert report.first_difference.ours > 88


def test_onnx_runtime_makes_numbers_of_nan() -> None:
    model = make_model("LSTM", make_weights("LSTM", 1))
    report = fastlstm.verify(fastlstm.from_onnx(model), model, special=True)
    assert [check.name for check in report.checks if not check.ok] == ["NaN"]
    found = report.first_difference
    assert found is not None
    assert (found.step, found.row) == (8, 1)
    assert np.isnan(found.ours)
    assert np.isfinite(found.theirs)


def test_weights_behind_other_nodes_are_computed_by_onnx_runtime() -> None:
    weights = make_weights("GRU", 1)
    model = make_model("GRU", {**weights, "W": weights["W"].swapaxes(1, 2)})
    model.graph.initializer[0].name = "W_t"
    node = onnx.helper.make_node("Transpose", ["W_t"], ["W"], perm=[0, 2, 1])
    model.graph.node.insert(0, node)
    assert_same(fastlstm.from_onnx(model), model)


# --- layers broken on purpose -------------------------------------------------------------------


def differences(
    layer: Any, source: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[Difference, Difference]:
    """What is found where the reader knows better, and where it makes the same mistake."""
    seen = fastlstm.verify(layer, source)
    assert not seen.ok
    options = {name: value for name, value in spec_of(layer).options.items() if name != "dtype"}
    broken = Description(type(layer).__name__, options, dict(layer.params))
    with monkeypatch.context() as patch:
        for cls in (_sources.TorchSource, _sources.KerasSource, _sources.OnnxSource):
            patch.setattr(cls, "describe", lambda self: broken)
        blind = fastlstm.verify(layer, source)
    assert seen.first_difference is not None
    assert blind.first_difference is not None
    return seen.first_difference, blind.first_difference


def changed(layer: Any, change: Callable[[np.ndarray], np.ndarray], *names: str) -> Any:
    """Give a layer other values of all parameters whose names begin so."""
    layer.update({n: change(v.copy()) for n, v in layer.params.items() if n.startswith(names)})
    return layer


def with_options(layer: Any, **options: Any) -> Any:
    """A layer with the same parameters, as far as it has them, and other options."""
    other = type(layer)(**{**spec_of(layer).options, **options})
    other.update({name: value for name, value in layer.params.items() if name in other.params})
    return other


def add_to(index: tuple[int, ...], amount: float = 0.25) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] += amount
        return array

    return change


ONE_GATE = [(kind, gate) for kind, gates in GATES.items() for gate in gates]
# What a gate is made of within the step changes with it.
FOLLOWS = {"r": ("r", "n")}


@pytest.mark.parametrize(("kind", "gate"), ONE_GATE)
def test_one_weight(kind: str, gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, num_layers=2, bidirectional=True)
    row = GATES[kind].index(gate) * H + 4
    layer = changed(fastlstm.from_torch(module), add_to((row, 2)), "weight_hh_l1_reverse")
    exact = float(module.weight_hh_l1_reverse.detach()[row, 2])
    for found in differences(layer, module, monkeypatch):
        assert found.inputs == "normal"
        # The second step of the second direction: in the first one h is zero.
        assert (found.step, found.layer, found.direction, found.unit) == (14, 1, 1, 4)
        assert found.gates == FOLLOWS.get(gate, (gate,))
        assert found.units == 1
        assert found.shown_by == ("c[4]" if gate in "ifg" else "h[4]")
        assert found.cause is not None
        assert found.cause.startswith(f"weight_hh_l1_reverse[{row}, 2] is ")
        here, there = re.findall(r" (-?[\d.e-]+)(?:,| \(|$)", found.cause)
        assert float(here) == pytest.approx(exact + 0.25, rel=1e-5)
        assert float(there) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(("kind", "gate"), ONE_GATE)
def test_one_bias_by_a_thousandth(kind: str, gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H)
    row = GATES[kind].index(gate) * H + 1
    layer = changed(fastlstm.from_torch(module), add_to((row,), 1e-3), "bias_ih_l0")
    for found in differences(layer, module, monkeypatch):
        assert (found.step, found.layer, found.direction) == (int(gate == "f"), 0, 0)
        assert (found.unit, found.gates) == (1, FOLLOWS.get(gate, (gate,)))
        assert found.cause is not None
        assert f"bias_ih_l0[{row}]" in found.cause


def exchange(array: np.ndarray, G: int, one: int, other: int) -> np.ndarray:
    parts = np.split(array, G)
    parts[one], parts[other] = parts[other], parts[one]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", ""])
@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [("LSTM", 0, 1), ("LSTM", 1, 2), ("LSTM", 2, 3), ("GRU", 0, 1), ("GRU", 1, 2)],
)
def test_two_gates_exchanged(
    kind: str, one: int, other: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, num_layers=2)
    gates = GATES[kind]
    layer = changed(
        fastlstm.from_torch(module), lambda v: exchange(v, len(gates), one, other), name
    )
    part = f" of {name}" if name else ""
    for found in differences(layer, module, monkeypatch):
        assert (found.step, found.layer) == (int(name == "weight_hh"), 0)
        assert {gates[one], gates[other]} <= {*found.gates}
        assert {*found.gates} - {gates[one], gates[other]} <= {"n"}
        assert found.cause == f"gates {gates[one]} and {gates[other]}{part} exchanged"


def keep(array: np.ndarray) -> np.ndarray:
    return array


BREAKS: list[tuple[str, str, Any, str | None, str]] = [
    # name, kind, what is done to the layer, the cause if the reader knows, the cause if it does not
    *(
        ("no bias", kind, lambda a: with_options(a, bias=False), "bias is False", "(measured)")
        for kind in GATES
    ),
    ("no bias_hh", "LSTM", lambda a: changed(a, np.zeros_like, "bias_hh"), "bias_hh_l0[0]", "bias"),
    ("twice", "GRU", lambda a: changed(a, lambda v: 2 * v, "bias"), "biases half", "biases half"),
    (
        *("reset", "GRU", lambda a: with_options(a, reset_after=False), "reset_after is False"),
        "the reset gate after the product",
    ),
    *(
        ("clip", kind, lambda a: with_options(a, clip=0.3), "clip is 0.3, in the source No", "no c")
        for kind in GATES
    ),
    (
        *("input_forget", "LSTM", lambda a: with_options(a, input_forget=True)),
        *("input_forget is True", "input_forget=False"),
    ),
    (
        *("slope", "LSTM", lambda a: with_options(a, activations=("HardSigmoid", "Tanh", "Tanh"))),
        *("activations is ", "Sigmoid as the function of gates"),
    ),
    (
        *("relu", "RNN", lambda a: with_options(a, nonlinearity="relu")),
        *("nonlinearity is 'relu'", "Tanh as the function of h"),
    ),
    (
        *("transposed", "LSTM"),
        lambda a: changed(a, lambda v: np.concatenate([p.T for p in np.split(v, 4)]), "weight_hh"),
        *("weight_hh of each gate transposed",) * 2,
    ),
    (
        *("forget bias", "LSTM", lambda a: changed(a, add_to((slice(H, 2 * H),), 1.0), "bias_ih")),
        *("1 taken from the biases of the forget gate",) * 2,
    ),
]


@pytest.mark.parametrize(
    ("kind", "do", "cause", "blind_cause"), [b[1:] for b in BREAKS], ids=lambda v: str(v)[:12]
)
def test_mistakes_of_conversions(
    kind: str, do: Any, cause: str, blind_cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(I, H)
    seen, blind = differences(do(fastlstm.from_torch(module)), module, monkeypatch)
    assert seen.cause is not None
    assert blind.cause is not None
    assert seen.cause.startswith(cause)
    assert blind_cause in blind.cause
    assert (seen.step, seen.unit, seen.gates) == (blind.step, blind.unit, blind.gates)


def test_clip_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("LSTM", make_weights("LSTM", 1), clip=0.4)
    layer = with_options(fastlstm.from_onnx(model), clip=None)
    seen, blind = differences(layer, model, monkeypatch)
    assert seen.cause == "clip is None, in the source 0.4"
    assert seen.gates != ()
    # A bound that nobody knows is none of the hypotheses; where it is shown first is known.
    assert (blind.cause, blind.step, blind.gates) == (None, seen.step, ("i", "f", "g"))
    assert "one or more of the gates i, f, g" in str(fastlstm.verification._report._describe(blind))


def test_slope_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make("LSTM", recurrent_activation="hard_sigmoid")
    wrong = with_options(
        fastlstm.from_keras(layer), activations=(("HardSigmoid", 0.2, 0.5), "Tanh", "Tanh")
    )
    seen, blind = differences(wrong, layer, monkeypatch)
    assert {*seen.gates} == {*blind.gates} == {"i", "f", "o"}
    assert blind.cause == "HardSigmoid (alpha 0.1667) as the function of gates"


@pytest.mark.parametrize("gate", "rzn")
def test_reset_before_the_product(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reset gate of one unit reaches all others in the same step."""
    model = make_model("GRU", make_weights("GRU", 1))
    row = "rzn".index(gate) * 5 + 3
    layer = changed(fastlstm.from_onnx(model), add_to((row, 2)), "weight_hh_l0")
    for found in differences(layer, model, monkeypatch):
        assert (found.step, found.unit, found.gates[0]) == (1, 3, gate)
        assert found.cause is not None
        assert found.cause.startswith(f"weight_hh_l0[{row}, 2]")


@pytest.mark.parametrize("gate", "ifgo")
def test_projection(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, 10, proj_size=4)
    row = "ifgo".index(gate) * 10 + 7
    layer = changed(fastlstm.from_torch(module), add_to((row, 2)), "weight_hh_l0")
    for found in differences(layer, module, monkeypatch):
        assert (found.step, found.unit, found.gates) == (1, 7, (gate,))
    layer = changed(fastlstm.from_torch(module), add_to((3, 2)), "weight_hr_l0")
    seen, blind = differences(layer, module, monkeypatch)
    assert seen.gates == blind.gates == ()
    assert (seen.shown_by, blind.shown_by) == ("h[3]", "h[3]")
    assert seen.cause is not None
    assert seen.cause.startswith("weight_hr_l0[3, 2]")
    assert blind.cause == "other weights in row 3 of weight_hr_l0 (measured)"


def test_peepholes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("LSTM", make_weights("LSTM", 1, peepholes=True))
    for n, gate in enumerate("ifo"):
        layer = changed(fastlstm.from_onnx(model), add_to((n * 5 + 2,)), "weight_peephole")
        for found in differences(layer, model, monkeypatch):
            # The output gate reads what the others made of c.
            assert (found.unit, found.gates) == (2, (gate,) if gate == "o" else (gate, "o"))
            assert found.cause is not None
            assert found.cause.startswith(f"weight_peephole_l0[{n * 5 + 2}]")


def test_a_kernel_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, H)

    def run(layer: Any, inputs: Inputs) -> Any:
        results = run_layer(layer, inputs)
        results.state[0][..., 2] += 1e-3
        return results

    for module_ in (fastlstm.verification._pair, fastlstm.verification._results):
        monkeypatch.setattr(module_, "run_layer", run)
    found = fastlstm.verify(fastlstm.from_torch(module), module).first_difference
    assert found is not None
    assert (found.step, found.unit, found.gates, found.shown_by) == (0, 2, (), "h[2]")
    assert found.cause == "fastlstm.reference gives with these weights what the source gave"


def test_directions_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(I, H, bidirectional=True)
    layer = fastlstm.from_torch(module)
    layer.update(
        {
            n: layer.params[n[:-8] if n.endswith("_reverse") else f"{n}_reverse"]
            for n in layer.params
        }
    )
    for found in differences(layer, module, monkeypatch):
        assert found.cause == "the weights of the two directions exchanged"


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}])
@pytest.mark.parametrize("kind", GATES)
def test_single_steps_are_those_of_the_sequences(kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    layer = getattr(fastlstm, kind)(I, H, num_layers=2, batch_first=True, seed=0, **options)
    spec, lengths = spec_of(layer), np.array([7, 3, 1])
    state = tuple(rng.standard_normal((spec.cells, 3, H)) for _ in spec.state_parts)
    x = rng.standard_normal((7, 3, I)).astype(np.float32)
    inputs = Inputs("", x, tuple(s.astype(np.float32) for s in state), lengths)
    steps = run_layer(layer, single_steps(layer, inputs))
    within = np.arange(7)[:, None] < lengths
    values = [cell for layers in trace(layer, inputs) for cell in layers]
    for name, new in zip(("h", "c"), steps.state, strict=False):
        for k, cell in enumerate(values):
            ours = new[k].reshape(7, 3, H)
            np.testing.assert_allclose(ours[within], getattr(cell, name)[within], atol=1e-6)


# --- where each step is the same and sequences are not --------------------------------------------


def test_other_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, H)
    layer = with_options(fastlstm.from_torch(module), reverse=True)
    seen, blind = differences(layer, module, monkeypatch)
    assert (seen.step, seen.gates, seen.cause) == (15, (), "reverse is True, in the source False")
    assert (blind.step, blind.gates) == (15, ())
    assert blind.cause == "sequences read from their other end (reverse)"


def test_lengths_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, H)
    run = _sources.TorchSource.__call__
    monkeypatch.setattr(
        _sources.TorchSource, "__call__", lambda self, i: run(self, i._replace(lengths=None))
    )
    report = fastlstm.verify(fastlstm.from_torch(module), module)
    assert [check.name for check in report.checks if not check.ok] == ["uneven lengths"]
    found = report.first_difference
    assert found is not None
    assert (found.gates, found.cause) == ((), "lengths ignored")
    assert (found.row, found.step, found.shown_by) == (1, 4, "h_n[0]")


def test_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fill(keras.layers.Bidirectional(keras.layers.LSTM(H), merge_mode="mul"))
    wrong = with_options(fastlstm.from_keras(layer), merge="ave")
    seen, blind = differences(wrong, layer, monkeypatch)
    assert (seen.cause, blind.cause) == ("merge is 'ave', in the source 'mul'", "merge='mul'")
    assert seen.gates == blind.gates == ()
    with pytest.raises(ValueError, match="source: expected results"):
        fastlstm.verify(with_options(wrong, merge="concat"), layer)


def test_tolerance() -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(I, H)
    layer = changed(fastlstm.from_torch(module), add_to((0,), 1e-4), "bias_ih_l0")
    assert not fastlstm.verify(layer, module).ok
    assert fastlstm.verify(layer, module, tolerance=1e-3).ok


# --- errors ---------------------------------------------------------------------------------------


def test_what_is_refused(tmp_path: Path) -> None:
    module = torch.nn.LSTM(I, H)
    layer = fastlstm.from_torch(module)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got LSTM"):
        fastlstm.verify(module, module)
    with pytest.raises(TypeError, match="source: expected a module or state_dict of PyTorch, a la"):
        fastlstm.verify(layer, 3)
    with pytest.raises(ValueError, match=r"expected the kind and sizes of GRU\(3, 6\), got LSTM\("):
        fastlstm.verify(layer, torch.nn.GRU(I, H))
    with pytest.raises(ValueError, match="nonlinearity: expected None"):
        fastlstm.verify(layer, make("LSTM"), nonlinearity="relu")
    with pytest.raises(ValueError, match="tolerance"):
        fastlstm.verify(layer, module, tolerance=-1.0)
    torch.save(torch.nn.Sequential(module), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole.pt: has more than weights; PyTorch would run"):
        fastlstm.verify(layer, tmp_path / "whole.pt")
    keras_layer = make("LSTM")
    model = keras.Sequential([keras.Input((5, I)), keras_layer])
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="weights only does not say what its model was"):
        fastlstm.verify(fastlstm.from_keras(keras_layer), tmp_path / "model.weights.h5")
    double = {name: value.astype(np.float64) for name, value in make_weights("LSTM", 1).items()}
    model = make_model("LSTM", double)
    with pytest.raises(ValueError, match=r"ONNX Runtime .* cannot be run: "):
        fastlstm.verify(fastlstm.from_onnx(model), model)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same models in files of all kinds."""
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"a": torch.nn.LSTM(I, H), "b": torch.nn.RNN(I, H)})
    names = ("module.pt", "weights.pt", "model.safetensors", "model.keras", "model.h5", "m.onnx")
    paths = {name: tmp_path / name for name in names}
    torch.save(module["a"], paths["module.pt"])
    torch.save({"model": module.state_dict()}, paths["weights.pt"])
    fastlstm.from_torch(module["a"]).save(paths["model.safetensors"])
    layers = [keras.Input((5, I)), keras.layers.LSTM(H, name="one"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.save(paths["model.keras"])
    model.save(paths["model.h5"])
    onnx.save(make_model("GRU", make_weights("GRU", 1)), paths["m.onnx"])
    return paths


def test_command(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name, options, source in (
        ("module.pt", [], "torch.nn.LSTM (PyTorch"),
        ("weights.pt", ["--prefix", "model.b", "--nonlinearity", "relu"], "torch.nn.RNN (PyTorch"),
        ("model.safetensors", ["--special"], "torch.nn.LSTM (PyTorch"),
        ("model.keras", ["--name", "one"], "keras.layers.LSTM (Keras"),
        ("model.h5", ["--seed", "3"], "keras.layers.LSTM (Keras"),
        ("m.onnx", ["--node", "node"], "GRU node 'node' (ONNX Runtime"),
    ):
        assert main(["verify", str(files[name]), *options]) == 0, name
        out = capsys.readouterr().out
        assert f"compared with {source}" in out
        assert out.endswith("\nThe same, up to rounding.\n")
        assert ("NaN " in out) == ("--special" in options)


def test_command_that_finds_a_difference(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = changed(fastlstm.from_torch(files["module.pt"]), add_to((8, 1)), "weight_hh_l0")
    layer.save(tmp_path / "broken.safetensors")
    argv = ["verify", str(files["module.pt"]), "--layer", str(tmp_path / "broken.safetensors")]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert (
        "First with inputs 'normal': step 1 of row 0, layer 0, direction 0, unit 2, gate f." in out
    )
    assert "What would make them the same: weight_hh_l0[8, 1] is " in out
    assert main([*argv, "--tolerance", "1"]) == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing.pt", [], "No such file"),
        ("weights.pt", [], "expected prefix= to be one of 'model.a', 'model.b', got None"),
        ("weights.pt", ["--prefix", "model.b"], "expected nonlinearity='tanh' or 'relu', got None"),
        ("m.onnx", ["--node", "other"], "expected node= to be one of 'node', got 'other'"),
        ("model.h5", ["--layer", "nothing"], "No such file"),
    ],
)
def test_command_that_cannot(
    name: str, options: list[str], message: str, files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["verify", str(files.get(name, name)), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("fastlstm verify: ")
    assert message in output.err


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("module.pt", "torch"),
        ("model.keras", "keras"),
        ("m.onnx", "onnxruntime"),
        ("m.onnx", "onnx"),
    ],
)
def test_missing_frameworks(name: str, missing: str, files: dict[str, Path]) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from fastlstm.cli import main; sys.exit(main(['verify', {str(files[name])!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 2
    message = f"needs the package {missing}: pip install 'fastlstm[verify]'"
    assert result.stderr == f"fastlstm verify {message}\n"


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("keras", "neither a .keras archive nor an HDF5 file"),
        ("h5", "neither a .keras archive nor an HDF5 file"),
        ("onnx", "not an ONNX model"),
        ("pt", "not a PyTorch file that can be read"),
        ("safetensors", "not a PyTorch file that can be read"),
    ],
)
def test_command_on_other_files(
    suffix: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"junk.{suffix}"
    for content in (b"", b"no model" * 100):
        path.write_bytes(content)
        assert main(["verify", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"fastlstm verify: {path}: {message}")
        assert error.count("\n") == 1

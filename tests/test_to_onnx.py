"""Layers as ONNX models: ONNX Runtime's results over a grid of options, round trips, refusals."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm._activations import PARAMETERS
from fastlstm.interchange import onnx_export as writer
from fastlstm.interchange.onnx_import import DEFAULTS
from fastlstm.layers import spec_of
from tolerances import FOREIGN, ONNX_RUNTIME, assert_close

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx.reference import ReferenceEvaluator  # noqa: E402

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
    "RNN": ("RNN", {}),
}
DIRECTIONS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"reverse": True},
    **{f"{m}": {"bidirectional": True, "merge": m} for m in ("concat", "sum", "mul", "ave", None)},
}
T, B, I, H = 6, 4, 3, 5
LENGTHS = [3, 0, 6, 1]
FEW_LENGTHS = [3, 6, 1]


def make(kind: str, *args: Any, scale: float = 1.0, **options: Any) -> Any:
    layer = getattr(fastlstm, kind)(I, H, *args, seed=0, **options)
    layer.update({name: scale * value for name, value in layer.params.items()})
    return layer


def checked(layer: Any, **inputs: bool) -> Any:
    """The model, which ONNX's checks find right."""
    model = writer.make_model(layer, **inputs)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 2  # warnings, which tests of this file have none of
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def as_tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def random_call(layer: Any, T: int = T, B: int = B, *, scale: float = 1.0) -> tuple[Any, Any]:
    """An input and a state."""
    spec = spec_of(layer)
    rng = np.random.default_rng(1)
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    x = scale * rng.standard_normal(shape)
    state = tuple(
        (scale * rng.standard_normal((spec.cells, B, width))).astype(layer.dtype)
        for _, width in spec.state_parts
    )
    return x.astype(layer.dtype), state if len(state) == 2 else state[0]


def feeds(x: Any, state: Any = None, lengths: Any = None) -> dict[str, Any]:
    given = {"x": x}
    if state is not None:
        given |= dict(zip(("h_0", "c_0"), as_tuple(state), strict=False))
    if lengths is not None:
        given["lengths"] = np.array(lengths, np.int32)
    return given


def check_call(
    layer: Any, runtime: Any, x: Any, state: Any = None, lengths: Any = None, **options: Any
) -> None:
    """Compare all results of one call, by name and shape."""
    tolerance = options.get("tolerance", ONNX_RUNTIME)
    output, final = layer(x, state, lengths=lengths)
    expected = {"output": output, **dict(zip(("h_n", "c_n"), as_tuple(final), strict=False))}
    results = runtime.run(None, feeds(x, state, lengths))
    for (name, value), theirs in zip(expected.items(), results, strict=True):
        assert_close(theirs, value, tolerance, name)


def check_parity(layer: Any, lengths: Any = LENGTHS, *, scale: float = 1.0) -> None:
    """Compare a call with ONNX Runtime, of the model with all inputs and of that with x alone."""
    lengths = list(lengths)
    x, state = random_call(layer, B=len(lengths), scale=scale)
    runtime = session(checked(layer))
    check_call(layer, runtime, x, state, lengths)
    check_call(layer, runtime, x, state, [T] * len(lengths))
    check_call(layer, session(checked(layer, lengths=False, states=False)), x)


# --- ONNX Runtime -------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("L", [1, 3])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_parity(cell: str, direction: str, L: int, batch_first: bool, bias: bool) -> None:
    kind, options = CELLS[cell]
    options = {"bias": bias, "batch_first": batch_first, **options, **DIRECTIONS[direction]}
    check_parity(make(kind, num_layers=L, **options))


LSTM_OPTIONS = [
    {"peepholes": peepholes, "input_forget": coupled, "clip": clip, **DIRECTIONS[direction]}
    for peepholes, coupled, clip, direction in itertools.product(
        (False, True), (False, True), (None, 0.3), ("forward", "reverse", "concat")
    )
]


@pytest.mark.parametrize("options", LSTM_OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_options_of_the_lstm(options: dict[str, Any]) -> None:
    check_parity(make("LSTM", num_layers=2, scale=2.0, **options))


@pytest.mark.parametrize("direction", ["forward", "reverse", "concat"])
@pytest.mark.parametrize(
    ("kind", "own"), [("GRU", {}), ("GRU", {"reset_after": False}), ("RNN", {})]
)
def test_clip(kind: str, own: dict[str, Any], direction: str) -> None:
    check_parity(make(kind, num_layers=2, scale=2.0, clip=0.3, **own, **DIRECTIONS[direction]))


def test_relu() -> None:
    check_parity(make("RNN", nonlinearity="relu", bidirectional=True))


def with_parameters(name: str) -> Any:
    # ScaledTanh would shrink h to near zero, where ONNX Runtime's error stays what it is for 1.
    parameters = (1.7, 0.7) if name == "ScaledTanh" else (0.7, 0.3)
    return (name, *parameters)[: 1 + len(PARAMETERS[name])] if PARAMETERS[name] else name


MIXED: dict[str, Any] = {
    "LSTM": (("HardSigmoid", 0.3, 0.4), "Softsign", ("LeakyRelu", 0.1)),
    "GRU": (("Affine", 0.2, 0.1), ("Elu", 0.5)),
    "RNN": (("ScaledTanh", 0.5, 1.5),),
}


@pytest.mark.parametrize("direction", ["forward", "concat"])
@pytest.mark.parametrize("function", [*PARAMETERS, "mixed"])
@pytest.mark.parametrize("kind", DEFAULTS)
def test_activations(kind: str, function: str, direction: str) -> None:
    functions = [with_parameters(function)] * len(DEFAULTS[kind]) if function != "mixed" else None
    # With Softplus, an LSTM of larger weights grows beyond what ONNX Runtime computes: see below.
    scale = 0.4 if function == "Softplus" else 1.0
    options = {"activations": functions or MIXED[kind], **DIRECTIONS[direction]}
    check_parity(make(kind, scale=scale, **options), scale=0.5)


@pytest.mark.parametrize("function", PARAMETERS)
def test_activations_of_a_gru_that_resets_before(function: str) -> None:
    functions = [with_parameters(function)] * 2
    check_parity(make("GRU", reset_after=False, activations=functions), scale=0.5)


def test_any_numbers_of_steps_and_sequences() -> None:
    layer = make("LSTM", 2, bidirectional=True, batch_first=True)
    runtime = session(checked(layer))
    for steps, sequences in ((1, 1), (9, 1), (1, 7), (40, 11)):
        x, state = random_call(layer, steps, sequences)
        check_call(layer, runtime, x, state, np.arange(sequences) % steps + 1)


def needs_right_states(kind: str) -> None:
    version = onnxruntime.__version__
    if kind == "RNN" and tuple(int(n) for n in version.split(".")[:2]) < (1, 26):
        pytest.skip(f"ONNX Runtime {version}: an RNN's state of no steps is right from 1.26 on")


@pytest.mark.parametrize("kind", DEFAULTS)
def test_inputs_can_be_left_out(kind: str) -> None:
    needs_right_states(kind)
    layer = make(kind, 2)
    x, state = random_call(layer)
    names = ["h_0", "c_0"] if kind == "LSTM" else ["h_0"]
    for lengths, states in itertools.product((False, True), repeat=2):
        runtime = session(checked(layer, lengths=lengths, states=states))
        expected = ["x", *["lengths"] * lengths, *names * states]
        assert [i.name for i in runtime.get_inputs()] == expected
        check_call(layer, runtime, x, state if states else None, LENGTHS if lengths else None)


@pytest.mark.parametrize("kind", DEFAULTS)
def test_final_state_of_empty_sequences(kind: str) -> None:
    """ONNX Runtime's own is zero whatever the initial state is: the model has a node for it."""
    needs_right_states(kind)
    layer = make(kind, 2, bidirectional=True)
    x, state = random_call(layer)
    model = checked(layer)
    results = session(model).run(None, feeds(x, state, [0, 0, 2, 0]))
    for final, initial in zip(results[1:], as_tuple(state), strict=True):
        assert np.array_equal(final[:, [0, 1, 3]], initial[:, [0, 1, 3]])
    output = model.graph.output.add()
    output.CopyFrom(model.graph.output[1])
    output.name = "h_n_1"
    own = session(model).run(["h_n_1"], feeds(x, state, [0, 0, 2, 0]))[0]
    assert not own[:, 0].any()


# --- float64, and what else ONNX Runtime does not do --------------------------------------------


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_float64_in_onnx_own_reference(kind: str, merge: str | None) -> None:
    """It computes neither lengths nor attributes but the direction and those of the layout."""
    two = kind != "GRU"
    options: dict[str, Any] = {"bidirectional": True, "merge": merge} if two else {}
    layer = make(kind, 2, batch_first=True, dtype="float64", **options)
    x, state = random_call(layer)
    runtime = ReferenceEvaluator(checked(layer, lengths=False))
    check_call(layer, runtime, x, state, tolerance=FOREIGN["float64"])


def test_softplus_of_large_sums_is_not_finite_in_onnx_runtime() -> None:
    """Its exp(x) is beyond float32 where log(1 + exp(x)) is x."""
    layer = make("RNN", activations=("Softplus",), bias=False)
    layer.update({name: np.full_like(value, 10) for name, value in layer.params.items()})
    x = np.ones((1, 1, I), np.float32)
    assert np.array_equal(layer(x)[0], np.full((1, 1, H), 30, np.float32))
    x *= 10
    assert np.array_equal(layer(x)[0], np.full((1, 1, H), 300, np.float32))
    runtime = session(checked(layer, lengths=False, states=False))
    assert not np.isfinite(runtime.run(["output"], {"x": x})[0]).any()


def test_onnx_runtime_refuses_float64() -> None:
    for kind in DEFAULTS:
        layer = make(kind, dtype="float64")
        with pytest.raises(Exception, match=r"does not support double yet|NOT_IMPLEMENTED"):
            session(checked(layer)).run(None, feeds(*random_call(layer), [T] * B))


# --- round trips --------------------------------------------------------------------------------


def assert_same_bits(ours: Any, theirs: Any) -> None:
    for a, b in zip((ours[0], *as_tuple(ours[1])), (theirs[0], *as_tuple(theirs[1])), strict=True):
        assert np.array_equal(a, b)


ROUND_TRIPS = [
    *[(kind, {**options, **DIRECTIONS[d]}) for kind, options in CELLS.values() for d in DIRECTIONS],
    *[("LSTM", options) for options in LSTM_OPTIONS],
    *[(kind, {"activations": functions, "clip": 0.7}) for kind, functions in MIXED.items()],
    ("LSTM", {"bias": False, "dtype": "float64", "clip": 0.25}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
]


@pytest.mark.parametrize(("kind", "options"), ROUND_TRIPS)
def test_read_back(kind: str, options: dict[str, Any]) -> None:
    layer = make(kind, **options)
    back = fastlstm.from_onnx(writer.make_model(layer))
    # Nodes around the recurrent one merge the directions.
    given = {name: value for name, value in options.items() if name != "merge"}
    same = make(kind, **given)
    assert repr(back) == repr(same)
    for name, value in layer.params.items():
        assert np.array_equal(back.params[name], value)
    same.load_state_dict(layer.params)
    x, state = random_call(layer)
    assert_same_bits(back(x, state, lengths=LENGTHS), same(x, state, lengths=LENGTHS))


@pytest.mark.parametrize("kind", DEFAULTS)
def test_read_back_layer_by_layer(kind: str) -> None:
    layer = make(kind, 3, bidirectional=True, batch_first=True)
    model = writer.make_model(layer)
    x, _ = random_call(layer)
    below, finals = x.swapaxes(0, 1), []
    for k in range(3):
        one = fastlstm.from_onnx(model, f"layer_{k}")
        for name, value in one.params.items():
            assert np.array_equal(layer.params[name.replace("_l0", f"_l{k}")], value)
        below, final = one(below)
        finals.append(as_tuple(final))
    whole = tuple(np.concatenate(parts) for parts in zip(*finals, strict=True))
    assert_same_bits((below.swapaxes(0, 1), whole), layer(x))
    with pytest.raises(ValueError, match="one of 'layer_0', 'layer_1', 'layer_2', got None"):
        fastlstm.from_onnx(model)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RNN, relu"])
def test_from_pytorch_to_onnx_runtime(
    kind: str, L: int, two: bool, bias: bool, batch_first: bool
) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    kind, _, relu = kind.partition(", ")
    options = {"nonlinearity": relu} if relu else {}
    options |= {"bidirectional": two, "bias": bias, "batch_first": batch_first}
    module = getattr(torch.nn, kind)(I, H, L, **options)
    layer = fastlstm.from_torch(module)
    x, state = random_call(layer)
    torch_state = tuple(map(torch.tensor, as_tuple(state)))
    with torch.inference_mode():
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.tensor(x), [3, 5, 6, 1], batch_first=batch_first, enforce_sorted=False
        )
        output, final = module(packed, torch_state if kind == "LSTM" else torch_state[0])
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=batch_first)
    results = session(checked(layer)).run(None, feeds(x, state, [3, 5, 6, 1]))
    for theirs, ours in zip(results, (output, *as_tuple(final)), strict=True):
        assert_close(theirs, ours.numpy(), ONNX_RUNTIME, "result")


KERAS = [
    (kind, {"use_bias": bias, "go_backwards": back, **more}, merge)
    for kind, more in (
        ("LSTM", {}),
        ("LSTM", {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
        ("GRU", {"reset_after": True}),
        ("GRU", {"reset_after": False}),
        ("SimpleRNN", {}),
        ("SimpleRNN", {"activation": "elu"}),
    )
    for bias, back, merge in itertools.product(
        (True, False), (False, True), ("one direction", "concat", "sum", "mul", "ave", None)
    )
    if not (back and merge != "one direction")
]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("kind", "options", "merge"), KERAS)
def test_from_keras_to_onnx_runtime(kind: str, options: dict[str, Any], merge: Any) -> None:
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    source = getattr(keras.layers, kind)(H, return_sequences=True, **options)
    if merge != "one direction":
        source = keras.layers.Bidirectional(source, merge_mode=merge)
    source.build((B, T, I))
    rng = np.random.default_rng(0)
    source.set_weights([rng.normal(0, 0.5, w.shape) for w in source.get_weights()])
    layer = fastlstm.from_keras(source)
    x, _ = random_call(layer)
    expected = source(x)
    parts = expected if merge is None else [expected]
    expected = np.stack([part.detach().numpy() for part in parts])
    expected = expected if merge is None else expected[0]
    output = session(checked(layer, lengths=False, states=False)).run(["output"], {"x": x})[0]
    assert_close(output[:, ::-1] if layer.reverse else output, expected, ONNX_RUNTIME, "output")


# --- what is left out, and what is refused ------------------------------------------------------


def test_options_of_training_leave_no_trace() -> None:
    drops = {"dropout": 0.5, "recurrent_dropout": 0.25, "weight_dropout": 0.25}
    layer = make("LSTM", 2, **drops)
    check_parity(layer)
    model, plain = writer.make_model(layer), writer.make_model(make("LSTM", 2))
    model.graph.doc_string = plain.graph.doc_string  # what the layer was
    assert model == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proj_size": 2}, "proj_size=2: ONNX's LSTM cannot represent it"),
        ({"zoneout": 0.25}, r"zoneout=\(0.25, 0.25\): ONNX's LSTM cannot represent it"),
        ({"zoneout": (0.0, 0.5)}, r"zoneout=\(0.0, 0.5\): ONNX's LSTM cannot"),
        ({"dtype": "float64", "clip": 0.1}, "clip: 0.1 in a float64 layer: .* holds 0.100000001"),
        (
            {"dtype": "float64", "activations": (("HardSigmoid", 0.5, 0.2), "Tanh", "Tanh")},
            "activations: HardSigmoid: 0.2 in a float64 layer",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fastlstm.to_onnx(make("LSTM", **options), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_options_not_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What later versions of the layers have, say."""
    monkeypatch.setattr(writer, "_IN_THE_MODEL", writer._IN_THE_MODEL - {"reset_after"})
    writer.make_model(make("GRU"))
    with pytest.raises(ValueError, match="reset_after=False: ONNX's GRU cannot represent it"):
        writer.make_model(make("GRU", reset_after=False))


def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make("LSTM")
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got dict"):
        fastlstm.to_onnx({}, tmp_path / "m.onnx")
    with pytest.raises(TypeError, match="lengths: expected True or False"):
        fastlstm.to_onnx(layer, tmp_path / "m.onnx", lengths=[3, 4])
    with pytest.raises(TypeError, match="states: expected True or False"):
        fastlstm.to_onnx(layer, tmp_path / "m.onnx", states=None)
    with pytest.raises(FileNotFoundError):
        fastlstm.to_onnx(layer, tmp_path / "no folder" / "m.onnx")
    monkeypatch.setattr(writer, "_MOST_BYTES", 799)
    with pytest.raises(ValueError, match=r"layer: expected parameters of at most .* got 800"):
        fastlstm.to_onnx(layer, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


# --- files --------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what was there")
    layer = make("LSTM", 2)
    fastlstm.to_onnx(layer, path)
    assert list(tmp_path.iterdir()) == [path]
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert model == writer.make_model(layer)
    assert model.producer_name == "fastlstm"
    fastlstm.to_onnx(layer, str(path), lengths=False)
    assert [i.name for i in onnx.load(path).graph.input] == ["x", "h_0", "c_0"]


def test_names_are_identifiers() -> None:
    """As ONNX wants them, and some of its readers need them."""
    model = writer.make_model(make("LSTM", 2, bidirectional=True, batch_first=True, peepholes=True))
    nodes = model.graph.node
    names = {name for node in nodes for name in (node.name, *node.input, *node.output) if name}
    names |= {tensor.name for tensor in model.graph.initializer}
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names)


def test_subclasses_are_their_cells() -> None:
    class Encoder(fastlstm.LSTM):
        pass

    assert writer.make_model(Encoder(I, H)).graph.node[0].op_type == "LSTM"

"""Layers of small weights: their rules to the bit, what they keep, and what they refuse."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.layers import quantized_layer
from fastlstm.layers.quantization import as_bfloat16, as_int8, from_bfloat16

PAIRS = [
    ("bfloat16", "float32"),
    ("int8", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "int8"),
]
# Sizes around groups of inputs, vectors and tiles; all that inference has.
LAYERS: dict[str, Any] = {
    "lstm": lambda: fastlstm.LSTM(5, 19, seed=1),
    "lstm_stack": lambda: fastlstm.LSTM(33, 70, 2, bidirectional=True, seed=2),
    "lstm_projection": lambda: fastlstm.LSTM(6, 37, 2, proj_size=11, seed=3),
    "lstm_options": lambda: fastlstm.LSTM(
        7,
        18,
        peepholes=True,
        input_forget=True,
        clip=2.0,
        activations=("HardSigmoid", "Softsign", "Tanh"),
        zoneout=0.1,
        merge=None,
        bidirectional=True,
        seed=4,
    ),
    "lstm_norm": lambda: fastlstm.LSTM(9, 21, layer_norm=True, seed=5),
    "gru": lambda: fastlstm.GRU(130, 67, 2, reverse=True, seed=6),
    "gru_reset_before": lambda: fastlstm.GRU(3, 35, reset_after=False, batch_first=True, seed=7),
    "rnn": lambda: fastlstm.RNN(5, 70, bias=False, seed=8),
    "rnn_relu": lambda: fastlstm.RNN(5, 6, nonlinearity="relu", seed=9),
    "one_unit": lambda: fastlstm.LSTM(1, 1, seed=10),
}

every_layer = pytest.mark.parametrize("name", LAYERS)
every_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
on_every_isa = pytest.mark.every_isa


def make(name: str) -> Any:
    return LAYERS[name]()


def inputs(layer: Any, T: int, B: int, seed: int = 0) -> Any:
    shape = (B, T, layer.input_size) if layer.batch_first else (T, B, layer.input_size)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def flat(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


def same(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    pairs = zip([a[0], *flat(a[1])], [b[0], *flat(b[1])], strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


def rounded(layer: Any) -> Any:
    """The float32 layer of the weights that bfloat16 leaves."""
    other = copy.copy(layer)
    weights = {n: v for n, v in layer.params.items() if v.ndim == 2}
    other.update({n: from_bfloat16(as_bfloat16(v)) for n, v in weights.items()})
    return other


# --- the rules ------------------------------------------------------------------------------------


def test_bfloat16_is_the_nearest_or_the_even_one() -> None:
    bits = [0x3F80_0000, 0x3F80_7FFF, 0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x7F7F_FFFF, 0x1]
    want = [0x3F80, 0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x0]
    assert as_bfloat16(np.array(bits, np.uint32).view(np.float32)).tolist() == want
    special = as_bfloat16(np.array([np.inf, -np.inf, np.nan, -0.0], np.float32))
    assert special[[0, 1, 3]].tolist() == [0x7F80, 0xFF80, 0x8000]
    assert np.isnan(from_bfloat16(special)[2])
    least = np.array([0x7F80_0001], np.uint32).view(np.float32)  # a NaN of the lower half alone
    assert np.isnan(from_bfloat16(as_bfloat16(least)))


def test_int8_has_a_scale_for_each_row() -> None:
    rows = [[1000.0, 1.0, -3.0], [0.5, -0.25, 0.1], [0.0, 0.0, 0.0], [1e-44, 0.0, 0.0]]
    w = np.array(rows, np.float32)
    q, scale = as_int8(w)
    assert q.dtype == np.int8
    assert q.tolist() == [[127, 0, 0], [127, -64, 25], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(scale, np.array([1000, 0.5, 0, 0], np.float32) / np.float32(127))
    large = np.random.default_rng(0).normal(size=(300, 8000)).astype(np.float32)  # in pieces
    q, scale = as_int8(large)
    assert np.abs(q * scale[:, None] - large).max() <= scale.max() * 0.5001


def relu_steps(small: Any, x: Any, product: Any) -> Any:
    """An RNN with relu in NumPy: its h are its sums, whose bits are the same everywhere."""
    bias = small.params["bias_ih_l0"] + small.params["bias_hh_l0"]
    h = np.zeros((x.shape[1], small.hidden_size), np.float32)
    output = []
    for x_t in x:
        from_x, from_h = product(x_t, "weight_ih_l0", bias), product(h, "weight_hh_l0", 0)
        h = np.maximum(from_x + from_h, np.float32(0))
        output.append(h)
    return np.stack(output)


@on_every_isa
@pytest.mark.parametrize(("I", "H", "B"), [(1, 1, 1), (7, 33, 1), (70, 130, 5), (5, 65, 60)])
def test_int8_sums_are_exact_on_every_target(I: int, H: int, B: int) -> None:
    layer = fastlstm.RNN(I, H, nonlinearity="relu", seed=I)
    small = layer.quantize("int8", "int8")
    x = inputs(layer, 4, B) * 3

    def product(values: Any, name: str, bias: Any) -> Any:
        most = np.abs(values).max(axis=1)
        none = most < 2.0**-100
        most[none] = 1
        q = np.rint(values * (np.float32(127) / most)[:, None])
        scale = np.where(none, 0, most / np.float32(127))
        q[none] = 0
        sums = q.astype(np.int64) @ small.stored[name].astype(np.int64).T
        scales = small.stored[name + "_scale"][None] * scale[:, None].astype(np.float32)
        return sums.astype(np.float32) * scales + bias

    want = relu_steps(small, x, product)
    assert want.max() > 0
    np.testing.assert_array_equal(small(x)[0], want)


@on_every_isa
@pytest.mark.parametrize(("I", "H", "B"), [(1, 1, 1), (7, 33, 1), (70, 130, 5), (5, 65, 60)])
def test_bfloat16_sums_are_chains_on_every_target(I: int, H: int, B: int) -> None:
    layer = fastlstm.RNN(I, H, nonlinearity="relu", seed=I)
    small = layer.quantize("bfloat16", "bfloat16")
    x = inputs(layer, 3, B)

    def product(values: Any, name: str, bias: Any) -> Any:
        inputs, w = from_bfloat16(as_bfloat16(values)), small.params[name]
        sums = np.zeros((len(values), len(w)), np.float32) + bias
        for k in range(inputs.shape[1]):  # exact in float64, then rounded once
            exact = inputs[:, k, None].astype(np.float64) * w[None, :, k] + sums
            sums = exact.astype(np.float32)
        return sums

    np.testing.assert_array_equal(small(x)[0], relu_steps(small, x, product))


@on_every_isa
@every_layer
@pytest.mark.parametrize("B", [1, 3, 50])
def test_bfloat16_weights_are_a_float32_layer_of_rounded_weights(name: str, B: int) -> None:
    layer = make(name)
    x = inputs(layer, 6, B)
    lengths = np.random.default_rng(1).integers(0, 7, B)
    small = layer.quantize("bfloat16")
    assert same(small(x, lengths=lengths), rounded(layer)(x, lengths=lengths))


@on_every_isa
@every_layer
def test_int8_weights_are_near_a_float32_layer_of_their_values(name: str) -> None:
    layer = make(name)
    small = layer.quantize("int8")
    assert list(small.params) == list(layer.params)
    other = copy.copy(layer)
    other.update(small.params)
    x = inputs(layer, 6, 7)
    np.testing.assert_allclose(small(x)[0], other(x)[0], rtol=0, atol=2e-6)


@on_every_isa
@every_layer
@every_pair
def test_a_small_layer_is_near_the_layer(name: str, pair: tuple[str, str]) -> None:
    layer = make(name)
    x = inputs(layer, 20, 5)
    # The mean: layer normalisation makes much of what is little.
    error = np.abs(layer.quantize(*pair)(x)[0] - layer(x)[0]).mean()
    assert 0 < error < (0.003 if "bfloat16" in pair else 0.007)


# --- the promise on bits --------------------------------------------------------------------------


@on_every_isa
@every_layer
@every_pair
def test_a_row_has_the_same_bits_in_any_batch(name: str, pair: tuple[str, str]) -> None:
    layer = make(name)
    small = layer.quantize(*pair)
    x = inputs(layer, 5, 61)
    axis = 0 if layer.batch_first else 1
    output, state = small(x)
    if layer.merge is None:
        output = np.concatenate(output, axis=-1)
    for rows in ([0], [60, 3], [7, 8, 9, 10, 11, 12, 13], list(range(50))):
        some, some_state = small(np.take(x, rows, axis))
        if layer.merge is None:
            some = np.concatenate(some, axis=-1)
        assert some.tobytes() == np.take(output, rows, axis).tobytes()
        for a, b in zip(flat(some_state), flat(state), strict=True):
            assert a.tobytes() == np.take(b, rows, 1).tobytes()


@on_every_isa
@every_pair
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(pair: tuple[str, str], threads: int) -> None:
    layer = fastlstm.LSTM(96, 256, 2, seed=0)
    small = layer.quantize(*pair)
    before = fastlstm.get_num_threads()
    try:
        for T, B in ((30, 1), (8, 40)):
            x = inputs(layer, T, B)
            fastlstm.set_num_threads(1)
            one = small(x)
            fastlstm.set_num_threads(threads)
            assert same(small(x), one)
    finally:
        fastlstm.set_num_threads(before)


@on_every_isa
@every_pair
@pytest.mark.parametrize(
    "name", ["lstm", "lstm_projection", "lstm_norm", "gru_reset_before", "rnn"]
)
@pytest.mark.parametrize("B", [1, 3])
def test_streams_and_chunks_have_the_bits_of_a_call(
    name: str, pair: tuple[str, str], B: int
) -> None:
    layer = make(name)
    small = layer.quantize(*pair)
    x = inputs(layer, 9, B)
    axis = 1 if layer.batch_first else 0
    whole = small(x)
    first, state = small(np.take(x, range(4), axis))
    second, state = small(np.take(x, range(4, 9), axis), state)
    assert same((np.concatenate([first, second], axis), state), whole)
    stream = small.stream(B)
    steps = [stream.step(np.take(x, t, axis)) for t in range(9)]
    assert same((np.stack(steps, axis), stream.state), whole)


@on_every_isa
@every_layer
@every_pair
def test_a_trace_has_the_bits_of_a_call(name: str, pair: tuple[str, str]) -> None:
    layer = make(name)
    small = layer.quantize(*pair)
    x = inputs(layer, 4, 2)
    trace = small.trace(x)
    output = small(x)[0]
    last = trace[-1]
    h = last[0].h if len(last) == 1 else np.concatenate([d.h for d in last], axis=-1)
    if layer.merge is None:
        output = np.concatenate(output, axis=-1)
    assert h.tobytes() == output.tobytes()


# --- values that are not usual --------------------------------------------------------------------


@on_every_isa
@every_pair
def test_a_row_of_nan_or_infinity_touches_no_other(pair: tuple[str, str]) -> None:
    layer = fastlstm.LSTM(9, 20, seed=0)
    small = layer.quantize(*pair)
    x = inputs(layer, 6, 4)
    clean = small(x)[0]
    x[2, 1, 3], x[2, 3, 0] = np.nan, np.inf
    output = small(x)[0]
    assert output[:, [0, 2]].tobytes() == clean[:, [0, 2]].tobytes()
    assert output[:2].tobytes() == clean[:2].tobytes()
    assert np.isnan(output[2:, 1]).all()
    if pair[1] == "int8":  # there is no scale for it
        assert np.isnan(output[2:, 3]).all()


@on_every_isa
@every_pair
# Beyond, sums with int8 are infinite before their scale makes them small.
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-32, 1e-5, 1e4, 1e34])
def test_inputs_of_any_size(pair: tuple[str, str], scale: float) -> None:
    layer = fastlstm.GRU(4, 17, seed=0)
    with np.errstate(under="ignore"):
        x = np.clip(inputs(layer, 5, 3), -1, 1) * np.float32(scale)
    output = layer.quantize(*pair)(x)[0]
    assert np.isfinite(output).all()
    if scale <= 1e-5:
        np.testing.assert_allclose(output, layer(x)[0], atol=0.02)


@on_every_isa
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize("activations", ["float32", "small"])
def test_outliers_and_zero_rows_of_weights(weights: str, activations: str) -> None:
    layer = fastlstm.LSTM(8, 16, seed=0)
    W = layer.params["weight_ih_l0"].copy()
    W[3, 2] *= 1000
    W[7] = 0
    W[9] = 1e-42
    layer.update({"weight_ih_l0": W})
    small = layer.quantize(weights, weights if activations == "small" else activations)
    kept = small.params["weight_ih_l0"]
    others = [k for k in range(64) if k not in (3, 9)]
    assert np.abs(kept[others] - W[others]).max() < 0.002  # no row suffers from another's
    assert (kept[7] == 0).all()
    assert np.isfinite(small(inputs(layer, 5, 2))[0]).all()


def test_weights_that_are_not_finite() -> None:
    layer = fastlstm.LSTM(2, 3, seed=0)
    R = layer.params["weight_hh_l0"].copy()
    R[1, 1] = np.nan
    layer.update({"weight_hh_l0": R})
    with pytest.raises(ValueError, match="weight_hh_l0: expected finite values for int8, got nan"):
        layer.quantize("int8")
    small = layer.quantize("bfloat16")
    assert np.isnan(small.params["weight_hh_l0"][1, 1])
    assert np.isnan(small(np.ones((3, 1, 2), np.float32))[0][1:]).any()


@on_every_isa
@pytest.mark.parametrize("pair", [("bfloat16", "bfloat16"), ("int8", "int8")], ids="-".join)
def test_long_sequences_do_not_drift(pair: tuple[str, str]) -> None:
    layer = fastlstm.LSTM(3, 12, seed=0)
    x = inputs(layer, 100_000, 1)
    error = np.abs(layer.quantize(*pair)(x)[0] - layer(x)[0]).max(axis=(1, 2))
    assert error[-1000:].max() < 3 * error[:1000].max()


# --- what a layer owes to its users ---------------------------------------------------------------


@every_layer
@every_pair
def test_copies_files_and_pickles(name: str, pair: tuple[str, str], tmp_path: Any) -> None:
    layer = make(name)
    small = layer.quantize(*pair)
    assert small.quantization == fastlstm.layers.Quantization(*pair)
    assert layer.quantization is None
    path = tmp_path / "small.safetensors"
    small.save(path)
    x = inputs(layer, 3, 2)
    want = small(x)
    again = quantized_layer(type(small), small._options, small.stored, *pair)
    copies = [copy.copy(small), copy.deepcopy(small), pickle.loads(pickle.dumps(small)), again]
    for other in [fastlstm.load(path), *copies]:
        assert type(other) is type(layer)
        assert repr(other) == repr(small)
        assert list(other.stored) == list(small.stored)
        assert other.quantization == small.quantization
        assert same(other(x), want)
    made = eval(repr(small), {kind: getattr(fastlstm, kind) for kind in ("LSTM", "GRU", "RNN")})
    assert repr(made) == repr(small)
    assert made.num_parameters == layer.num_parameters
    state_dict = small.state_dict()
    assert {n: v.shape for n, v in state_dict.items()} == {
        n: v.shape for n, v in layer.params.items()
    }
    assert all(v.dtype == np.float32 and v.flags.writeable for v in state_dict.values())


def test_what_is_kept_is_small(tmp_path: Any) -> None:
    layer = fastlstm.LSTM(256, 256)
    paths = {}
    for weights in ("float32", "bfloat16", "int8"):
        some = layer if weights == "float32" else layer.quantize(weights)
        paths[weights] = tmp_path / weights
        some.save(paths[weights])
    size = {weights: path.stat().st_size for weights, path in paths.items()}
    assert size["bfloat16"] < 0.51 * size["float32"]
    assert size["int8"] < 0.27 * size["float32"]
    small = layer.quantize("int8")
    assert small.stored["weight_ih_l0"].dtype == np.int8
    assert not small.stored["weight_ih_l0"].flags.writeable
    assert isinstance(small.params, Mapping)
    assert not small.params["weight_ih_l0"].flags.writeable
    assert layer.stored is not None
    assert list(layer.stored) == list(layer.params)
    with pytest.raises(KeyError):
        small.params["weight_ih_l0_scale"]


def test_files_that_are_not_as_they_should_be(tmp_path: Any) -> None:
    small = fastlstm.LSTM(4, 4, seed=0).quantize("int8", "int8")
    path = tmp_path / "small"
    small.save(path)
    whole = path.read_bytes()
    for wrong, message in (
        (whole.replace(b'"int8\\"}', b'"int9\\"}'), "activations: expected"),
        (
            whole.replace(b"weight_hh_l0_scale", b"weight_hh_l9_scale"),
            "missing: weight_hh_l0_scale",
        ),
        (whole.replace(b'"I8"', b'"U8"'), "expected a tensor of F32, BF16, I8, got one of U8"),
        (whole.replace(b'\\"format\\": 2', b'\\"format\\": 3'), "format 3"),
    ):
        assert wrong != whole
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=message):
            fastlstm.load(path)


def test_stored_arrays_are_checked() -> None:
    small = fastlstm.LSTM(4, 4, seed=0).quantize("int8")
    stored = dict(small.stored)
    make = fastlstm.layers.quantized_layer
    options = {"input_size": 4, "hidden_size": 4}
    name = "weight_ih_l0"
    for change, message in (
        ({name: stored[name].astype(np.int16)}, "weight_ih_l0: expected int8, got int16"),
        ({name: stored[name][:-1]}, r"weight_ih_l0: expected \(16, 4\), got \(15, 4\)"),
        ({name + "_scale": -stored[name + "_scale"]}, "expected finite scales of at least 0"),
        ({"bias_hx_l0": stored["bias_hh_l0"]}, "unexpected: bias_hx_l0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(fastlstm.LSTM, options, {**stored, **change}, "int8")
    lowest = np.full_like(stored[name], -128)
    layer = make(fastlstm.LSTM, options, {**stored, name: lowest}, "int8", "int8")
    assert (layer.params[name] == -128 * stored[name + "_scale"][:, None]).all()


def test_training_and_changes_are_refused() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    small = layer.quantize("int8")
    x = np.ones((2, 1, 3), np.float32)
    for what, call in (
        ("forward", lambda: small.forward(x)),
        ("update", lambda: small.update({})),
        ("load_state_dict", lambda: small.load_state_dict(layer.state_dict())),
        ("to_torch", small.to_torch),
        ("training_memory", lambda: small.training_memory(3)),
        ("trace with gradients", lambda: small.trace(x, d_output=np.ones((2, 1, 4)))),
        ("forward", lambda: next(iter(fastlstm.truncated_bptt(small, x, k1=1)))),
    ):
        with pytest.raises(
            TypeError, match=f"^{what}: expected a layer that is not quantized, got"
        ):
            call()


def test_a_module_computes_with_a_small_layer_but_does_not_save_it(tmp_path: Any) -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    small = fastlstm.nn.Module(encoder=layer.quantize("int8"))
    x = np.ones((2, 1, 3), np.float32)
    assert np.abs(small.encoder(x)[0] - layer(x)[0]).max() < 0.01
    with pytest.raises(TypeError, match=r"^encoder: expected a layer that is not quantized"):
        small.save(tmp_path / "module")


def test_ways_that_there_are_not() -> None:
    layer = fastlstm.LSTM(3, 4)
    for weights, activations, message in (
        ("int4", "float32", "weights: expected 'bfloat16' or 'int8', got 'int4'"),
        (8, "float32", "weights: expected 'bfloat16' or 'int8', got 8"),
        ("bfloat16", "int8", "activations: expected 'float32' or 'bfloat16' for weights of bfloat"),
        ("int8", "bfloat16", "activations: expected 'float32' or 'int8' for weights of int8"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.quantize(weights, activations)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="quantize: expected a layer that is not quantized, got LST"
    ):
        layer.quantize("int8").quantize("int8")
    with pytest.raises(ValueError, match="dtype: expected float32 for small weights, got float64"):
        fastlstm.LSTM(3, 4, dtype="float64").quantize("int8")
    wide = fastlstm.RNN(65537, 1)
    with pytest.raises(ValueError, match="at most 65536 inputs of a product of int8, got 65537"):
        wide.quantize("int8", "int8")
    assert np.isfinite(wide.quantize("int8")(np.ones((1, 1, 65537), np.float32))[0]).all()
    most = fastlstm.RNN(65536, 1).quantize("int8", "int8")
    assert np.isfinite(most(np.ones((1, 1, 65536), np.float32))[0]).all()

"""Parameters: names, initial values, updates, state_dict, repr."""

from __future__ import annotations

import inspect
import pickle
from collections import OrderedDict
from types import MappingProxyType

import fastlstm
import numpy as np
import pytest
from support import DTYPES, Case, assert_same_bits, make_layer, reference_forward, torch_module
from tolerances import FORWARD, assert_close

LAYERS = {
    "plain": Case(),
    "no bias": Case(options={"bias": False}),
    "projection": Case(options={"proj_size": 3}),
    "everything": Case(options={"num_layers": 3, "bidirectional": True, "proj_size": 2}),
    "everything, no bias": Case(
        options={"num_layers": 2, "bidirectional": True, "proj_size": 2, "bias": False}
    ),
}


# --- names and shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
def test_names_shapes_and_order_are_pytorchs(case: Case) -> None:
    layer = make_layer(case, "float32")
    expected = [(name, tuple(p.shape)) for name, p in torch_module(layer).named_parameters()]
    assert [(name, w.shape) for name, w in layer.params.items()] == expected
    assert list(layer.state_dict()) == [name for name, _ in expected]
    assert layer.num_parameters == sum(w.size for w in layer.params.values())


def test_names_and_shapes() -> None:
    """The same for those who have no PyTorch."""
    layer = fastlstm.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    shapes = {name: w.shape for name, w in layer.params.items()}
    cell = {"weight_ih": (20, 3), "weight_hh": (20, 2), "bias_ih": (20,), "bias_hh": (20,)}
    cell["weight_hr"] = (2, 5)
    upper = cell | {"weight_ih": (20, 4)}
    assert shapes == {
        **{f"{name}_l0": shape for name, shape in cell.items()},
        **{f"{name}_l0_reverse": shape for name, shape in cell.items()},
        **{f"{name}_l1": shape for name, shape in upper.items()},
        **{f"{name}_l1_reverse": shape for name, shape in upper.items()},
    }
    assert layer.num_parameters == 2 * (60 + 40 + 40 + 10) + 2 * (80 + 40 + 40 + 10)


def test_the_only_direction_has_plain_names_when_reverse() -> None:
    assert list(fastlstm.LSTM(3, 4, bias=False, reverse=True).params) == [
        "weight_ih_l0",
        "weight_hh_l0",
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_attributes(dtype: str) -> None:
    layer = fastlstm.LSTM(3, 5, 2, False, True, 0.25, False, 2, reverse=True, dtype=dtype)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (3, 5, 2)
    assert (layer.bias, layer.batch_first, layer.dropout) == (False, True, 0.25)
    assert (layer.bidirectional, layer.proj_size, layer.reverse) == (False, 2, True)
    assert layer.dtype == np.dtype(dtype)
    assert all(w.dtype == dtype for w in layer.params.values())
    with pytest.raises(AttributeError):
        layer.hidden_size = 7


@pytest.mark.parametrize("dtype", [np.float64, float, "f8", "d", np.dtype("float64"), "double"])
def test_spellings_of_dtypes(dtype: object) -> None:
    assert fastlstm.LSTM(3, 4, dtype=dtype).dtype == np.float64


def test_positional_arguments_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    options = inspect.signature(fastlstm.LSTM).parameters.values()
    ours = [p for p in options if p.kind is p.POSITIONAL_OR_KEYWORD]
    theirs = inspect.getfullargspec(torch.nn.RNNBase).args[2:]  # after self and mode
    assert [p.name for p in ours] == theirs[: theirs.index("device")]
    assert all(p.kind is p.KEYWORD_ONLY for p in options if p not in ours)


def test_numpy_integers_are_sizes() -> None:
    layer = fastlstm.LSTM(np.int64(3), np.uint8(4), num_layers=np.int32(2), bias=np.True_)
    assert repr(layer) == "LSTM(3, 4, num_layers=2)"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "LSTM(3, 4)"),
        ({"num_layers": 2, "dropout": 0.5}, "LSTM(3, 4, num_layers=2, dropout=0.5)"),
        ({"bias": False, "batch_first": True}, "LSTM(3, 4, bias=False, batch_first=True)"),
        ({"bidirectional": True, "proj_size": 2}, "LSTM(3, 4, bidirectional=True, proj_size=2)"),
        ({"reverse": True, "dtype": float}, "LSTM(3, 4, reverse=True, dtype='float64')"),
        ({"seed": 3, "forget_bias": 1.0}, "LSTM(3, 4)"),
    ],
)
def test_repr(options: dict[str, object], expected: str) -> None:
    layer = fastlstm.LSTM(3, 4, **options)
    assert repr(layer) == str(layer) == expected
    assert repr(eval(expected, {"LSTM": fastlstm.LSTM})) == expected


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "batch_first": True}, {"bias": False}])
def test_repr_is_pytorchs(options: dict[str, object]) -> None:
    layer = fastlstm.LSTM(3, 4, **options)
    assert repr(layer) == repr(torch_module(layer))


# --- initial values -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("proj_size", [0, 5])
def test_initial_values_are_uniform_in_one_over_root_h(dtype: str, proj_size: int) -> None:
    layer = fastlstm.LSTM(100, 100, proj_size=proj_size, dtype=dtype, seed=0)
    for name, w in layer.params.items():
        largest = np.abs(w).max()
        assert 0.1 * (1 - 20 / w.size) < largest <= np.dtype(dtype).type(0.1), name
        spread = 0.1 / np.sqrt(3)
        assert abs(w.mean()) < 5 * spread / np.sqrt(w.size), name
        assert w.std() == pytest.approx(spread, rel=5 / np.sqrt(w.size)), name


def test_the_seed_decides_the_initial_values() -> None:
    layer, same, other = (fastlstm.LSTM(3, 4, num_layers=2, seed=seed) for seed in (1, 1, 2))
    random, again = fastlstm.LSTM(3, 4, num_layers=2), fastlstm.LSTM(3, 4, num_layers=2)
    arrays = list(layer.params.values())
    for name, w in layer.params.items():
        assert_same_bits(same.params[name], w)
        assert not np.array_equal(other.params[name], w)
        assert not np.array_equal(random.params[name], again.params[name])
    assert not any(np.array_equal(a, b) for a in arrays for b in arrays if a is not b)


def test_the_global_random_numbers_are_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fastlstm.LSTM(3, 4, seed=0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("value", [1.0, -0.5, 0, np.float32(2)])
def test_forget_bias(value: float) -> None:
    options = {"num_layers": 2, "bidirectional": True, "seed": 0}
    plain = fastlstm.LSTM(3, 4, **options)
    layer = fastlstm.LSTM(3, 4, forget_bias=value, **options)
    for name, w in layer.params.items():
        if name.startswith("weight"):
            assert_same_bits(w, plain.params[name])
            continue
        other = name.replace("_ih_", "_hh_") if "_ih_" in name else name.replace("_hh_", "_ih_")
        assert (w[4:8] + layer.params[other][4:8] == value).all()
        rest = np.r_[0:4, 8:16]
        assert_same_bits(w[rest], plain.params[name][rest])
    x = np.ones((3, 1, 3))
    assert_close(layer(x)[0], reference_forward(layer, x)[0], FORWARD["float32"], "output")


# --- update -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_updated_parameter_is_the_one_that_is_used(case: Case, dtype: str) -> None:
    """After each update of one parameter the layer computes with it, and with the old others."""
    layer = make_layer(case, dtype)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 2, case.I))
    for name, w in layer.params.items():
        before, _ = layer(x)
        value = rng.standard_normal(w.shape).astype(dtype)
        layer.update({name: value})
        assert_same_bits(layer.params[name], value, name)
        output, _ = layer(x)
        assert not np.array_equal(output, before), name
        assert_close(output, reference_forward(layer, x)[0], FORWARD[dtype], name)


def test_update_copies() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    value = np.ones((16, 3), np.float32)
    layer.update({"weight_ih_l0": value})
    output, _ = layer(np.ones((2, 1, 3)))
    value[:] = 7
    assert (layer.params["weight_ih_l0"] == 1).all()
    assert_same_bits(layer(np.ones((2, 1, 3)))[0], output)


def test_earlier_params_keep_their_values() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    before = layer.params
    kept = {name: w.copy() for name, w in before.items()}
    array = before["weight_ih_l0"]
    layer.update({"weight_ih_l0": np.ones((16, 3))})
    assert_same_bits(array, kept["weight_ih_l0"])
    assert_same_bits(before["weight_ih_l0"], kept["weight_ih_l0"])
    assert (layer.params["weight_ih_l0"] == 1).all()
    assert layer.params["weight_hh_l0"] is before["weight_hh_l0"]


def test_update_keeps_the_order_of_names_and_takes_any_mapping() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    names = list(layer.params)
    layer.update(MappingProxyType({"bias_hh_l0": [1] * 16, "weight_ih_l0": np.ones((16, 3))}))
    layer.update(layer.params)
    layer.update({})
    assert list(layer.params) == names
    assert layer.params["bias_hh_l0"].dtype == np.float32


def test_params_are_read_only() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    for params in (layer.params, fastlstm.LSTM(3, 4, forget_bias=1.0).params):
        with pytest.raises(TypeError):
            params["weight_ih_l0"] = np.ones((16, 3))
        with pytest.raises(TypeError):
            del params["weight_ih_l0"]
        for w in params.values():
            with pytest.raises(ValueError, match="read-only"):
                w[...] = 0
    layer.update({"bias_ih_l0": np.ones(16)})
    with pytest.raises(ValueError, match="read-only"):
        layer.params["bias_ih_l0"][...] = 0


# --- state_dict ---------------------------------------------------------------------------------


def test_state_dict_is_a_copy() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    state = layer.state_dict()
    assert type(state) is dict
    for name, w in state.items():
        assert_same_bits(w, layer.params[name])
        w[...] = 7
    assert not any((w == 7).any() for w in layer.params.values())


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
def test_load_state_dict(case: Case) -> None:
    layer, other = make_layer(case, "float32", seed=0), make_layer(case, "float32", seed=1)
    reordered = OrderedDict(reversed(layer.state_dict().items()))
    other.load_state_dict(reordered)
    assert list(other.params) == list(layer.params)
    for name, w in layer.params.items():
        assert_same_bits(other.params[name], w)
    x = np.ones((3, 2, case.I))
    assert_same_bits(other(x)[0], layer(x)[0])


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
def test_load_state_dict_of_torch(case: Case) -> None:
    layer = make_layer(case, "float32", seed=0)
    module = torch_module(layer)
    other = make_layer(case, "float32", seed=1)
    other.load_state_dict(module.state_dict())
    for name, w in layer.params.items():
        assert_same_bits(other.params[name], w)
    other = make_layer(case, "float32", seed=1)
    other.load_state_dict(dict(module.named_parameters()))  # they require gradients
    for name, w in layer.params.items():
        assert_same_bits(other.params[name], w)


def test_load_state_dict_of_the_other_width() -> None:
    single = fastlstm.LSTM(3, 4, seed=0)
    double = fastlstm.LSTM(3, 4, dtype="float64")
    double.load_state_dict(single.params)
    for name, w in single.params.items():
        assert_same_bits(double.params[name], w.astype(np.float64))


def test_params_cannot_be_made_writable() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    for changed in (layer, pickle.loads(pickle.dumps(layer))):
        changed.update({"bias_ih_l0": np.zeros(16)})
        for array in changed.params.values():
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True

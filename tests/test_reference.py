"""The float64 reference: by finite differences, against PyTorch, and by its own laws."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastlstm import reference
from fastlstm._activations import NAMES, Activation, as_activation
from fastlstm.reference import lstm_backward, lstm_forward
from finite_differences import numerical_gradient, relative_error, slope_error
from hypothesis import given, settings
from hypothesis import strategies as st

Array = npt.NDArray[np.float64]

# Five-point differences reach 1e-10 on these problems, whose losses are about 1; see the helper.
FINITE_DIFFERENCES = 1e-9
# Two ways to add up the same float64 products; PyTorch and the reference differ by 3e-15 here.
ROUNDING = 1e-13


ELU, SOFTSIGN = Activation("Elu", 0.7), Activation("Softsign")
SCALED_TANH = Activation("ScaledTanh", 1.7, 0.6)
ACTIVATIONS = [
    Activation("Affine", 0.8, -0.1),
    Activation("Relu"),
    Activation("LeakyRelu", 0.1),
    Activation("ThresholdedRelu", 0.3),
    Activation("Tanh"),
    SCALED_TANH,
    Activation("Sigmoid"),
    Activation("HardSigmoid", 0.3, 0.4),
    ELU,
    SOFTSIGN,
    Activation("Softplus"),
]


def make_params(
    rng: np.random.Generator,
    I: int = 2,
    H: int = 3,
    L: int = 1,
    D: int = 1,
    P: int = 0,
    bias: bool = True,
    peepholes: bool = False,
    layer_norm: bool = False,
) -> dict[str, Array]:
    """Random parameters, large enough to bend the gates. P=0 is no projection."""
    params: dict[str, Array] = {}
    for layer in range(L):
        for suffix in ["", "_reverse"][:D]:
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (4 * H, I if layer == 0 else D * (P or H)),
                "weight_hh": (4 * H, P or H),
            }
            if bias:
                shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)}
            if P:
                shapes |= {"weight_hr": (P, H)}
            if peepholes:
                shapes |= {"weight_peephole": (3 * H,)}
            if layer_norm:
                shapes |= {"weight_ln_ih": (4 * H,), "weight_ln_hh": (4 * H,), "weight_ln_c": (H,)}
                shapes |= {"bias_ln_c": (H,)} if bias else {}
            for name, shape in shapes.items():
                params[f"{name}_l{layer}{suffix}"] = rng.uniform(-0.9, 0.9, shape)
    return params


@dataclass
class Problem:
    """Arguments of lstm_forward, and weights that make a scalar loss of all that it returns."""

    params: dict[str, Array]
    x: Array
    state: tuple[Array, Array] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    d_output: Array | None = None
    d_state: tuple[Array, Array] | None = None

    def run(self) -> tuple[Array, tuple[Array, Array], reference.LSTMTape]:
        return lstm_forward(self.params, self.x, self.state, **self.options)

    def loss(self) -> float:
        output, (h_n, c_n), _ = self.run()
        assert self.d_output is not None
        assert self.d_state is not None
        d_h, d_c = self.d_state
        return float((self.d_output * output).sum() + (d_h * h_n).sum() + (d_c * c_n).sum())

    def gradients(self) -> reference.Gradients:
        return lstm_backward(self.run()[2], self.d_output, self.d_state)


def make_problem(
    seed: int = 0,
    T: int = 3,
    B: int | None = 2,
    *,
    lengths: list[int] | None = None,
    reverse: bool = False,
    masks: bool = False,
    state: bool = True,
    options: reference.LSTMOptions | None = None,
    recurrent_dropout: bool = False,
    zoneout: bool = False,
    merge: str = "concat",
    **sizes: Any,
) -> Problem:
    """A random problem; B=None is one sequence without a batch axis."""
    rng = np.random.default_rng(seed)
    params = make_params(rng, **sizes)
    I, H = params["weight_ih_l0"].shape[1], len(params["weight_ih_l0"]) // 4
    P = params["weight_hh_l0"].shape[1]
    D, L = sizes.get("D", 1), sizes.get("L", 1)
    batch = () if B is None else (B,)
    problem = Problem(params, rng.normal(size=(T, *batch, I)), options={"reverse": reverse})
    if state:
        problem.state = (rng.normal(size=(L * D, *batch, P)), rng.normal(size=(L * D, *batch, H)))
    if lengths is not None:
        problem.options["lengths"] = np.array(lengths)
    if masks:
        keep = rng.random((L - 1, T, *batch, D * P)) < 0.7
        problem.options["masks"] = list(keep / 0.7)
    if options is not None:
        problem.options["options"] = options
    cells, rows = L * D, 1 if B is None else B
    if recurrent_dropout:
        problem.options["h_masks"] = (rng.random((cells, rows, P)) < 0.7) / 0.7
    if zoneout:
        problem.options["keep_h"] = (rng.random((cells, T, rows, P)) < 0.4).astype(float)
        problem.options["keep_c"] = (rng.random((cells, T, rows, H)) < 0.4).astype(float)
    if merge != "concat":
        problem.options["merge"] = merge
    problem.d_output = rng.normal(size=(T, *batch, D * P if merge == "concat" else P))
    problem.d_state = (rng.normal(size=(L * D, *batch, P)), rng.normal(size=(L * D, *batch, H)))
    return problem


# Small, as finite differences run each of them a dozen times for each of its arrays.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "plain": lambda: make_problem(T=4, B=3, I=3, H=4),
    "one unit": lambda: make_problem(B=1, I=1, H=1),
    "one step": lambda: make_problem(T=1),
    "no bias": lambda: make_problem(bias=False),
    "no state": lambda: make_problem(state=False),
    "no batch axis": lambda: make_problem(B=None, H=2, L=2, D=2, masks=True),
    "two layers": lambda: make_problem(L=2),
    "three layers, masks": lambda: make_problem(L=3, H=2, masks=True),
    "bidirectional": lambda: make_problem(D=2),
    "two layers, bidirectional": lambda: make_problem(H=2, L=2, D=2),
    "reverse": lambda: make_problem(reverse=True),
    "two layers, reverse": lambda: make_problem(H=2, L=2, reverse=True),
    "lengths": lambda: make_problem(B=5, lengths=[2, 0, 3, 1, 3]),
    "lengths, reverse": lambda: make_problem(B=5, lengths=[2, 0, 3, 1, 3], reverse=True),
    "lengths, bidirectional": lambda: make_problem(B=4, H=2, L=2, D=2, lengths=[1, 3, 0, 2]),
    "all lengths zero": lambda: make_problem(D=2, lengths=[0, 0]),
    "projection": lambda: make_problem(P=2),
    "projection, reverse, no bias": lambda: make_problem(P=2, reverse=True, bias=False),
    "everything": lambda: make_problem(
        B=4, I=2, H=3, L=2, D=2, P=2, masks=True, lengths=[2, 0, 3, 1]
    ),
    "peepholes": lambda: make_problem(peepholes=True),
    "peepholes, projection, bidirectional": lambda: make_problem(P=2, D=2, peepholes=True),
    "coupled gates": lambda: make_problem(options=reference.LSTMOptions(input_forget=True)),
    "clip": lambda: make_problem(options=reference.LSTMOptions(clip=0.5)),
    **{
        f"activation {a.name}": lambda a=a: make_problem(
            seed=1,  # no sum near a corner
            T=2,
            H=2,
            options=reference.LSTMOptions(activations=(a, a, a), clip=2.0),
            peepholes=True,
        )
        for a in ACTIVATIONS
    },
    "layer norm": lambda: make_problem(H=4, layer_norm=True),
    "layer norm, no bias": lambda: make_problem(H=4, layer_norm=True, bias=False),
    "layer norm, one unit": lambda: make_problem(B=1, I=1, H=1, layer_norm=True),
    "layer norm, everything": lambda: make_problem(
        T=2,
        B=3,
        H=4,
        L=2,
        D=2,
        P=3,
        lengths=[2, 0, 1],
        layer_norm=True,
        recurrent_dropout=True,
        zoneout=True,
        masks=True,
        merge="sum",
    ),
    "layer norm, other options": lambda: make_problem(
        H=4,
        layer_norm=True,
        peepholes=True,
        options=reference.LSTMOptions((ELU, SOFTSIGN, SCALED_TANH), clip=1.5, input_forget=True),
    ),
    "recurrent dropout": lambda: make_problem(recurrent_dropout=True, L=2, D=2, H=2),
    "zoneout": lambda: make_problem(zoneout=True, P=2, lengths=[2, 3]),
    **{
        f"merge {merge}": lambda merge=merge: make_problem(T=2, D=2, H=2, merge=merge)
        for merge in ("sum", "mul", "ave")
    },
    "all options": lambda: make_problem(
        seed=3,
        T=2,
        B=3,
        H=2,
        L=2,
        D=2,
        P=1,
        lengths=[2, 0, 1],
        peepholes=True,
        options=reference.LSTMOptions((ELU, SOFTSIGN, SCALED_TANH), clip=1.5, input_forget=True),
        recurrent_dropout=True,
        zoneout=True,
        masks=True,
        merge="mul",
    ),
}
every_problem = pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS.keys())


def named(gradients: reference.Gradients) -> dict[str, Array]:
    """All gradients in one flat mapping."""
    d_h_0, d_c_0 = gradients.state
    return {"x": gradients.x, "h_0": d_h_0, "c_0": d_c_0, **gradients.params}


def assert_close(actual: Array, expected: Array, tolerance: float = ROUNDING) -> None:
    error = relative_error(actual, expected)
    assert error <= tolerance, f"relative error {error:.1e}"


# --- The functions -----------------------------------------------------------------------------


def test_sigmoid_in_both_tails() -> None:
    x = np.concatenate([np.linspace(-708, 708, 250), np.linspace(-5, 5, 101)])
    with localcontext() as context:
        context.prec = 40
        exact = [1 / (1 + (-Decimal(value)).exp()) for value in x.tolist()]
        errors = [
            abs((Decimal(value) - truth) / truth)
            for value, truth in zip(reference.sigmoid(x).tolist(), exact, strict=True)
        ]
    assert max(errors) < 4 * np.finfo(np.float64).eps


def test_sigmoid_of_special_values() -> None:
    x = np.array([-np.inf, -1e308, -0.0, 0.0, 1e308, np.inf, np.nan])
    np.testing.assert_array_equal(reference.sigmoid(x), [0, 0, 0.5, 0.5, 1, 1, np.nan])
    assert reference.sigmoid(0.0).shape == ()
    assert reference.sigmoid([[1, 2]]).dtype == np.float64


@pytest.mark.parametrize("function", ACTIVATIONS, ids=lambda function: function.name)
def test_activations(function: Activation) -> None:
    """Values at a few points that show every piece, and slopes by finite differences."""
    x = np.array([-30.0, -3.0, -0.5, 0.2, 0.4, 1.3, 30.0])
    expected = {
        "Affine": lambda v: 0.8 * v - 0.1,
        "Relu": lambda v: max(v, 0.0),
        "LeakyRelu": lambda v: v if v >= 0 else 0.1 * v,
        "ThresholdedRelu": lambda v: v if v >= 0.3 else 0.0,
        "Tanh": math.tanh,
        "ScaledTanh": lambda v: 1.7 * math.tanh(0.6 * v),
        "Sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "HardSigmoid": lambda v: min(max(0.3 * v + 0.4, 0.0), 1.0),
        "Elu": lambda v: v if v >= 0 else 0.7 * math.expm1(v),
        "Softsign": lambda v: v / (1 + abs(v)),
        "Softplus": lambda v: math.log1p(math.exp(v)),
    }[function.name]
    values = reference.activate(function, x)
    np.testing.assert_allclose(values, [expected(v) for v in x.tolist()], rtol=1e-14)
    assert np.isnan(reference.activate(function, np.array([np.nan]))).all()

    numerical = numerical_gradient(lambda: float(reference.activate(function, x).sum()), x)
    assert_close(reference.slope(function, x), numerical, FINITE_DIFFERENCES)


def test_slopes_at_corners() -> None:
    corners = {
        "Relu": (0.0, 0.0),
        "LeakyRelu": (0.0, 1.0),
        "ThresholdedRelu": (1.0, 1.0),
        "HardSigmoid": (2.5, 0.0),
        "Elu": (0.0, 1.0),
    }
    for name, (x, expected) in corners.items():
        function = as_activation("", ("HardSigmoid", 0.2, 0.5) if name == "HardSigmoid" else name)
        assert reference.slope(function, np.array([x])) == expected, name


def test_every_activation_is_tested() -> None:
    assert [function.name for function in ACTIVATIONS] == list(NAMES)
    for function in (reference.activate, reference.slope):
        with pytest.raises(ValueError, match=r"expected the name .* got 'Gelu'"):
            function(Activation("Gelu"), np.zeros(1))


def test_cell_is_the_formula() -> None:
    """One unit in plain Python numbers, gate by gate."""

    def logistic(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    x, h, c, p = 0.3, -0.4, 0.8, 0.7
    W, R, b_W, b_R = [0.5, -0.6, 0.7, 0.8], [0.1, 0.2, -0.3, 0.4], [0.1, 0, 0.2, -0.1], [0.05] * 4
    a = [W[k] * x + R[k] * h + b_W[k] + b_R[k] for k in range(4)]
    i, f, g, o = logistic(a[0]), logistic(a[1]), math.tanh(a[2]), logistic(a[3])
    c_new = f * c + i * g
    m = o * math.tanh(c_new)

    column = np.array([W, R]).T
    step = reference.lstm_cell(
        [[x]], [[h]], [[c]], column[:, :1], column[:, 1:], b_W, b_R, W_hr=[[p]]
    )
    expected = [i, f, g, o, c_new, m, p * m]
    np.testing.assert_allclose([value.item() for value in step[:7]], expected, rtol=1e-15)
    assert step._fields == ("i", "f", "g", "o", "c", "m", "h", "a", "c_new", "norms")


@pytest.mark.parametrize("projection", [False, True])
def test_cell_gradients_by_finite_differences(projection: bool) -> None:
    rng = np.random.default_rng(1)
    B, I, H, P = 3, 2, 4, 2 if projection else 4
    arguments = {
        "x": rng.normal(size=(B, I)),
        "h": rng.normal(size=(B, P)),
        "c": rng.normal(size=(B, H)),
        "W": rng.normal(size=(4 * H, I)),
        "R": rng.normal(size=(4 * H, P)),
        "b_W": rng.normal(size=4 * H),
        "b_R": rng.normal(size=4 * H),
    }
    if projection:
        arguments["W_hr"] = rng.normal(size=(P, H))
    d_h, d_c = rng.normal(size=(B, P)), rng.normal(size=(B, H))

    def loss() -> float:
        step = reference.lstm_cell(**arguments)
        return float((d_h * step.h).sum() + (d_c * step.c).sum())

    without_biases = {name: a for name, a in arguments.items() if not name.startswith("b")}
    step = reference.lstm_cell(**arguments)
    d = reference.lstm_cell_backward(step, d_h=d_h, d_c=d_c, **without_biases)
    for name, array in arguments.items():
        gradient = getattr(d, "d_b" if name in ("b_W", "b_R") else f"d_{name}")
        assert_close(gradient, numerical_gradient(loss, array), FINITE_DIFFERENCES)
    assert projection or d.d_W_hr is None


# --- Gradients ---------------------------------------------------------------------------------


@every_problem
def test_gradients_by_finite_differences(make: Callable[[], Problem]) -> None:
    problem = make()
    inputs = {"x": problem.x, **problem.params}
    if problem.state is not None:
        inputs |= {"h_0": problem.state[0], "c_0": problem.state[1]}
    gradients = named(problem.gradients())
    assert set(gradients) == {*inputs, "h_0", "c_0"}
    # Normalised values bend the more, the closer together the values of a row are.
    step = 1e-4 if "weight_ln_ih_l0" in problem.params else 1e-3
    for name, array in inputs.items():
        error = slope_error(gradients[name], problem.loss, array, step)
        assert error <= FINITE_DIFFERENCES, f"{name}: relative error {error:.1e}"


@every_problem
def test_gradients_add_up(make: Callable[[], Problem]) -> None:
    """Each gradient may be left out, which is zeros, and one tape serves several times."""
    problem = make()
    tape = problem.run()[2]
    whole = named(lstm_backward(tape, problem.d_output, problem.d_state))
    parts = [
        named(lstm_backward(tape, problem.d_output)),
        named(lstm_backward(tape, d_state=problem.d_state)),
    ]
    for name, gradient in whole.items():
        assert_close(parts[0][name] + parts[1][name], gradient)
        assert not named(lstm_backward(tape))[name].any()


def test_biases_have_gradients_of_their_own() -> None:
    params = make_problem().gradients().params
    np.testing.assert_array_equal(params["bias_ih_l0"], params["bias_hh_l0"])
    assert not np.shares_memory(params["bias_ih_l0"], params["bias_hh_l0"])


# --- PyTorch -----------------------------------------------------------------------------------


def torch_results(problem: Problem) -> tuple[dict[str, Array], dict[str, Array]]:
    """The values and gradients of torch.nn.LSTM in float64."""
    torch = pytest.importorskip("torch")
    params = problem.params
    P, H = params["weight_hh_l0"].shape[1], len(params["weight_ih_l0"]) // 4
    module = torch.nn.LSTM(
        input_size=params["weight_ih_l0"].shape[1],
        hidden_size=H,
        num_layers=sum(name.startswith("weight_ih") and name[-1].isdigit() for name in params),
        bias="bias_ih_l0" in params,
        bidirectional="weight_ih_l0_reverse" in params,
        proj_size=P if "weight_hr_l0" in params else 0,
        dtype=torch.float64,
    )
    module.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
    x = torch.from_numpy(problem.x).requires_grad_()
    assert problem.state is not None
    state = tuple(torch.from_numpy(s).requires_grad_() for s in problem.state)

    lengths = problem.options.get("lengths")
    layer_input = x
    if lengths is not None:
        layer_input = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.from_numpy(lengths), enforce_sorted=False
        )
    output, (h_n, c_n) = module(layer_input, state)
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, total_length=len(x))
    grad_tensors = [torch.from_numpy(g) for g in (problem.d_output, *(problem.d_state or ()))]
    torch.autograd.backward([output, h_n, c_n], grad_tensors)

    values = {"output": output, "h_n": h_n, "c_n": c_n}
    gradients = {"x": x.grad, "h_0": state[0].grad, "c_0": state[1].grad}
    gradients |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return (
        {name: value.detach().numpy() for name, value in values.items()},
        {name: value.numpy() for name, value in gradients.items()},
    )


@pytest.mark.parametrize("lengths", [None, [4, 1, 7, 2, 7, 5]], ids=["whole", "packed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("P", [0, 3], ids=["no projection", "projection"])
@pytest.mark.parametrize("D", [1, 2], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("L", [1, 3], ids=["one layer", "three layers"])
def test_torch(L: int, D: int, P: int, bias: bool, lengths: list[int] | None) -> None:
    problem = make_problem(T=7, B=6, I=5, H=6, L=L, D=D, P=P, bias=bias, lengths=lengths)
    values, gradients = torch_results(problem)
    output, (h_n, c_n), _ = problem.run()
    assert_close(output, values["output"])
    assert_close(h_n, values["h_n"])
    assert_close(c_n, values["c_n"])
    actual = named(problem.gradients())
    assert actual.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert_close(actual[name], gradient)


@pytest.mark.parametrize("P", [0, 3], ids=["no projection", "projection"])
def test_torch_layer_norm(P: int) -> None:
    """The equations of the paper, made of PyTorch's own layers."""
    torch = pytest.importorskip("torch")
    problem = make_problem(T=5, B=3, I=5, H=6, P=P, layer_norm=True)
    w = {name: torch.from_numpy(a).requires_grad_() for name, a in problem.params.items()}
    norms = {
        name: torch.nn.LayerNorm(len(w[f"weight_ln_{name}_l0"]), dtype=torch.float64)
        for name in ("ih", "hh", "c")
    }
    for name, norm in norms.items():
        norm.weight = torch.nn.Parameter(w[f"weight_ln_{name}_l0"])
        w[f"weight_ln_{name}_l0"] = norm.weight
    norms["c"].bias = torch.nn.Parameter(w["bias_ln_c_l0"])
    w["bias_ln_c_l0"] = norms["c"].bias
    x = torch.from_numpy(problem.x).requires_grad_()
    assert problem.state is not None
    state = tuple(torch.from_numpy(s).requires_grad_() for s in problem.state)
    h, c = (s[0] for s in state)
    outputs = []
    for x_t in x:
        a = norms["ih"](x_t @ w["weight_ih_l0"].T) + norms["hh"](h @ w["weight_hh_l0"].T)
        i, f, g, o = (a + w["bias_ih_l0"] + w["bias_hh_l0"]).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norms["c"](c).tanh()
        h = h @ w["weight_hr_l0"].T if P else h
        outputs.append(h)
    assert problem.d_state is not None
    d_h, d_c = (torch.from_numpy(d[0]) for d in problem.d_state)
    output = torch.stack(outputs)
    torch.autograd.backward([output, h, c], [torch.from_numpy(problem.d_output), d_h, d_c])

    actual, (h_n, c_n), _ = problem.run()
    assert_close(actual, output.detach().numpy())
    assert_close(h_n[0], h.detach().numpy())
    assert_close(c_n[0], c.detach().numpy())
    gradients = named(problem.gradients())
    leaves = {"x": x, "h_0": state[0], "c_0": state[1], **w}
    assert gradients.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert_close(gradients[name], leaf.grad.numpy())


def test_torch_without_batch_axis() -> None:
    problem = make_problem(T=6, B=None, L=2, D=2)
    values, gradients = torch_results(problem)
    output, (h_n, c_n), _ = problem.run()
    assert_close(output, values["output"])
    assert_close(h_n, values["h_n"])
    assert_close(c_n, values["c_n"])
    for name, gradient in named(problem.gradients()).items():
        assert_close(gradient, gradients[name])


# --- Laws --------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw: st.DrawFn, /, **fixed: Any) -> Problem:
    """Problems of all shapes, with lengths."""
    T, B = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    D = draw(st.integers(1, 2))
    sizes: dict[str, Any] = {
        "T": T,
        "B": B,
        "I": draw(st.integers(1, 4)),
        "H": draw(st.integers(1, 5)),
        "L": draw(st.integers(1, 3)),
        "D": D,
        "P": draw(st.integers(0, 3)),
        "bias": draw(st.booleans()),
        "masks": draw(st.booleans()),
        "lengths": draw(st.lists(st.integers(0, T), min_size=B, max_size=B)),
        "reverse": D == 1 and draw(st.booleans()),
    }
    return make_problem(draw(seeds), **(sizes | fixed))


def rows_of(problem: Problem, rows: Any, T: int | None = None) -> Problem:
    """The problem of some rows of the batch, its first T steps, without lengths."""
    assert problem.state is not None
    assert problem.d_state is not None
    assert problem.d_output is not None
    options = {"reverse": problem.options["reverse"]}
    if "masks" in problem.options:
        options["masks"] = [mask[:T, rows] for mask in problem.options["masks"]]
    return Problem(
        problem.params,
        problem.x[:T, rows],
        (problem.state[0][:, rows], problem.state[1][:, rows]),
        options,
        problem.d_output[:T, rows],
        (problem.d_state[0][:, rows], problem.d_state[1][:, rows]),
    )


@settings(deadline=None, max_examples=60)
@given(problems())
def test_a_padded_batch_is_each_sequence_alone(problem: Problem) -> None:
    lengths = problem.options["lengths"]
    output, (h_n, c_n), tape = problem.run()
    gradients = problem.gradients()
    summed = {name: np.zeros_like(value) for name, value in problem.params.items()}
    for row, length in enumerate(lengths):
        alone = rows_of(problem, slice(row, row + 1), length)
        alone_output, (alone_h, alone_c), alone_tape = alone.run()
        assert_close(output[:length, row : row + 1], alone_output)
        assert not output[length:, row].any()
        assert_close(h_n[:, row : row + 1], alone_h)
        assert_close(c_n[:, row : row + 1], alone_c)
        for traces, alone_traces in zip(tape.traces, alone_tape.traces, strict=True):
            for trace, alone_trace in zip(traces, alone_traces, strict=True):
                for values, alone_values in zip(trace, alone_trace, strict=True):
                    assert_close(values[:length, row : row + 1], alone_values)
                    assert not values[length:, row].any()

        alone_gradients = alone.gradients()
        assert_close(gradients.x[:length, row : row + 1], alone_gradients.x)
        assert not gradients.x[length:, row].any()
        for d, alone_d in zip(gradients.state, alone_gradients.state, strict=True):
            assert_close(d[:, row : row + 1], alone_d)
        for name, gradient in alone_gradients.params.items():
            summed[name] += gradient
    for name, gradient in gradients.params.items():
        assert_close(gradient, summed[name])


@settings(deadline=None, max_examples=40)
@given(problems())
def test_padding_is_not_read(problem: Problem) -> None:
    """NaN past the ends of x and d_output changes no bit."""
    output, state, _ = problem.run()
    gradients = named(problem.gradients())
    assert problem.d_output is not None
    for row, length in enumerate(problem.options["lengths"]):
        problem.x[length:, row] = np.nan
        problem.d_output[length:, row] = np.nan
    padded_output, padded_state, _ = problem.run()
    np.testing.assert_array_equal(padded_output, output)
    np.testing.assert_array_equal(padded_state[0], state[0])
    np.testing.assert_array_equal(padded_state[1], state[1])
    for name, gradient in named(problem.gradients()).items():
        np.testing.assert_array_equal(gradient, gradients[name])


@settings(deadline=None, max_examples=40)
@given(problems(D=1, reverse=True, lengths=None, masks=False))
def test_reverse_is_flipping(problem: Problem) -> None:
    assert problem.d_output is not None
    flipped = Problem(
        problem.params, problem.x[::-1], problem.state, {}, problem.d_output[::-1], problem.d_state
    )
    output, state, _ = problem.run()
    flipped_output, flipped_state, _ = flipped.run()
    np.testing.assert_array_equal(output, flipped_output[::-1])
    np.testing.assert_array_equal(state[0], flipped_state[0])
    np.testing.assert_array_equal(state[1], flipped_state[1])
    gradients, flipped_gradients = named(problem.gradients()), named(flipped.gradients())
    np.testing.assert_array_equal(gradients.pop("x"), flipped_gradients.pop("x")[::-1])
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, flipped_gradients[name])


@settings(deadline=None, max_examples=40)
@given(problems(D=2, L=1, masks=False, reverse=False))
def test_bidirectional_is_two_layers_side_by_side(problem: Problem) -> None:
    assert problem.state is not None
    output, (h_n, c_n), _ = problem.run()
    for d, suffix in enumerate(["", "_reverse"]):
        one_way, (h, c), _ = lstm_forward(
            {
                name.removesuffix("_reverse"): value
                for name, value in problem.params.items()
                if name.endswith("_reverse") == (d == 1)
            },
            problem.x,
            (problem.state[0][d : d + 1], problem.state[1][d : d + 1]),
            lengths=problem.options["lengths"],
            reverse=suffix == "_reverse",
        )
        np.testing.assert_array_equal(np.split(output, 2, axis=2)[d], one_way)
        np.testing.assert_array_equal(h_n[d : d + 1], h)
        np.testing.assert_array_equal(c_n[d : d + 1], c)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_layers_are_stacked(problem: Problem) -> None:
    """Each layer alone reads what the one below returned, times its mask."""
    assert problem.state is not None
    output, (h_n, c_n), tape = problem.run()
    D = 2 if "weight_ih_l0_reverse" in problem.params else 1
    options = dict(problem.options)
    masks = options.pop("masks", [1.0] * (len(tape.traces) - 1))
    y = problem.x
    for layer in range(len(tape.traces)):
        rows = slice(layer * D, (layer + 1) * D)
        params = {
            name.replace(f"_l{layer}", "_l0"): value
            for name, value in problem.params.items()
            if f"_l{layer}" in name
        }
        state = (problem.state[0][rows], problem.state[1][rows])
        y, (h, c), _ = lstm_forward(params, y, state, **options)
        np.testing.assert_array_equal(h_n[rows], h)
        np.testing.assert_array_equal(c_n[rows], c)
        traced = np.concatenate([trace.h for trace in tape.traces[layer]], axis=2)
        np.testing.assert_array_equal(traced, y)
        if layer < len(masks):
            y = y * masks[layer]
    np.testing.assert_array_equal(output, y)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_length_zero_returns_the_state(problem: Problem) -> None:
    problem.options["lengths"][0] = 0
    assert problem.state is not None
    assert problem.d_state is not None
    output, final, _ = problem.run()
    gradients = problem.gradients()
    assert not output[:, 0].any()
    assert not gradients.x[:, 0].any()
    for k in range(2):
        np.testing.assert_array_equal(final[k][:, 0], problem.state[k][:, 0])
        np.testing.assert_array_equal(gradients.state[k][:, 0], problem.d_state[k][:, 0])


@settings(deadline=None, max_examples=40)
@given(problems(D=1, reverse=False, lengths=None, masks=False), st.data())
def test_chunks_are_the_whole(problem: Problem, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(problem.x)))
    output, (h_n, c_n), _ = problem.run()
    first, state, _ = lstm_forward(problem.params, problem.x[:cut], problem.state)
    second, (h, c), _ = lstm_forward(problem.params, problem.x[cut:], state)
    np.testing.assert_array_equal(np.concatenate([first, second]), output)
    np.testing.assert_array_equal(h, h_n)
    np.testing.assert_array_equal(c, c_n)


@settings(deadline=None, max_examples=40)
@given(problems(B=1, lengths=None))
def test_without_batch_axis_is_a_batch_of_one(problem: Problem) -> None:
    alone = rows_of(problem, 0)
    output, final, tape = problem.run()
    alone_output, alone_final, alone_tape = alone.run()
    np.testing.assert_array_equal(alone_output, output[:, 0])
    for k in range(2):
        np.testing.assert_array_equal(alone_final[k], final[k][:, 0])
    for value, alone_value in zip(tape.traces[-1][-1], alone_tape.traces[-1][-1], strict=True):
        np.testing.assert_array_equal(alone_value, value[:, 0])
    gradients, alone_gradients = named(problem.gradients()), named(alone.gradients())
    for name in ("x", "h_0", "c_0"):
        np.testing.assert_array_equal(alone_gradients[name], gradients[name][:, 0])
    for name in problem.params:
        np.testing.assert_array_equal(alone_gradients[name], gradients[name])


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
def test_merge_is_that_of_the_halves(merge: str) -> None:
    problem = make_problem(D=2, L=2, P=2)
    halves = np.split(problem.run()[0], 2, axis=2)
    problem.options["merge"] = merge
    expected = {
        "sum": halves[0] + halves[1],
        "mul": halves[0] * halves[1],
        "ave": (halves[0] + halves[1]) / 2,
    }[merge]
    np.testing.assert_array_equal(problem.run()[0], expected)


def test_trace_holds_the_equations() -> None:
    problem = make_problem(T=5, B=4, D=2, L=2, P=2, lengths=[5, 2, 0, 3])
    assert problem.state is not None
    _, _, tape = problem.run()
    for layer, directions in enumerate(tape.traces):
        for d, trace in enumerate(directions):
            assert trace._fields == ("i", "f", "g", "o", "c", "h")
            suffix = f"_l{layer}{'_reverse' if d else ''}"
            for t in range(5):
                for row in np.flatnonzero(t < problem.options["lengths"]):
                    before = t + 1 if d else t - 1
                    first = before in (-1, problem.options["lengths"][row])
                    c_0 = problem.state[1][2 * layer + d, row]
                    c_before = c_0 if first else trace.c[before, row]
                    c = trace.f[t, row] * c_before + trace.i[t, row] * trace.g[t, row]
                    assert_close(trace.c[t, row], c)
                    h = problem.params[f"weight_hr{suffix}"] @ (trace.o[t, row] * np.tanh(c))
                    assert_close(trace.h[t, row], h)


# --- Borders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_do(T: int, B: int) -> None:
    problem = make_problem(T=T, B=B, L=2, D=2)
    assert problem.state is not None
    output, final, _ = problem.run()
    assert output.shape == (T, B, 6)
    gradients = problem.gradients()
    assert gradients.x.shape == problem.x.shape
    for k in range(2):
        np.testing.assert_array_equal(final[k], problem.state[k])
    for name, value in problem.params.items():
        np.testing.assert_array_equal(gradients.params[name], np.zeros_like(value))


def test_arguments_are_neither_changed_nor_needed_later() -> None:
    problem = PROBLEMS["everything"]()
    untouched = PROBLEMS["everything"]()
    expected = named(untouched.gradients())
    tape = problem.run()[2]
    problem.gradients()
    assert problem.state is not None
    assert untouched.state is not None
    arrays = [problem.x, *problem.state, *problem.params.values(), *problem.options["masks"]]
    copies = [
        untouched.x,
        *untouched.state,
        *untouched.params.values(),
        *untouched.options["masks"],
    ]
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
        array[...] = np.nan  # after forward: must not reach backward
    for name, gradient in named(lstm_backward(tape, problem.d_output, problem.d_state)).items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_lists_and_other_dtypes_become_float64() -> None:
    problem = make_problem(state=False)
    params32 = {name: value.astype(np.float32) for name, value in problem.params.items()}
    x32 = problem.x.astype(np.float32)
    params64 = {name: value.astype(np.float64) for name, value in params32.items()}
    expected = lstm_forward(params64, x32.astype(np.float64))[0]
    assert expected.dtype == np.float64
    np.testing.assert_array_equal(lstm_forward(params32, x32)[0], expected)
    lists = {name: value.tolist() for name, value in params64.items()}
    np.testing.assert_array_equal(lstm_forward(lists, x32.tolist())[0], expected)


@pytest.mark.parametrize(
    "values", [(np.nan, 0), (np.inf, 0), (-np.inf, 0), (np.inf, np.inf), (1e308, 1e308)], ids=str
)
def test_special_values_flow_through(values: tuple[float, float]) -> None:
    """No warnings (they are errors here), and the other rows of the batch do not notice."""
    problem = make_problem(T=4, B=3, I=2, L=2, lengths=[4, 3, 4])
    output, gradients = problem.run()[0], problem.gradients()
    problem.x[1, 1] = values
    special_output, special_gradients = problem.run()[0], problem.gradients()
    np.testing.assert_array_equal(special_output[:, [0, 2]], output[:, [0, 2]])
    np.testing.assert_array_equal(special_gradients.x[:, [0, 2]], gradients.x[:, [0, 2]])
    np.testing.assert_array_equal(special_output[0, 1], output[0, 1])
    if values[1] == 0:  # an infinite input saturates the gates, NaN reaches everything after it
        assert np.isnan(special_output[1:3, 1]).all() == math.isnan(values[0])
        assert np.isfinite(special_output[1:3, 1]).all() != math.isnan(values[0])


# --- Errors ------------------------------------------------------------------------------------


def params_with(changes: dict[str, Array | None] | None = None, **sizes: Any) -> dict[str, Array]:
    """Good parameters with some replaced, added or, where None, left out."""
    params = make_params(np.random.default_rng(0), **({"I": 3, "H": 4} | sizes)) | (changes or {})
    return {name: value for name, value in params.items() if value is not None}


X = np.zeros((4, 3, 3))
FORWARD_ERRORS: list[tuple[str, dict[str, Any]]] = [
    (r"x: expected \(T, B, 3\), got \(4, 3, 2\)", {"x": X[..., :2]}),
    (r"x: expected \(T, 3\), got \(4, 2\)", {"x": X[:, 0, :2]}),
    (r"x: expected \(T, B, 3\), got \(3,\)", {"x": X[0, 0]}),
    (r"h_0: expected \(1, 3, 4\), got \(1, 3, 5\)", {"state": ([[[0] * 5] * 3], [[[0] * 4] * 3])}),
    (r"c_0: expected \(1, 3, 4\), got \(1, 2, 4\)", {"state": ([[[0] * 4] * 3], [[[0] * 4] * 2])}),
    (r"state: expected \(h_0, c_0\), got 1 arrays", {"state": [[[[0] * 4] * 3]]}),
    (
        r"h_0: expected \(1, 4\), got \(1, 1, 4\)",
        {"x": X[:, 0], "state": ([[[0] * 4]], [[[0] * 4]])},
    ),
    (r"lengths: expected \(3,\), got \(2,\)", {"lengths": [1, 2]}),
    (r"lengths: expected values from 0 to 4, got \[1, 5, 2\]", {"lengths": [1, 5, 2]}),
    (r"lengths: expected values from 0 to 4, got \[1, -1, 2\]", {"lengths": [1, -1, 2]}),
    (r"lengths: expected None", {"x": X[:, 0], "lengths": [4]}),
    (r"masks: expected 0, .* got 1", {"masks": [1.0]}),
    (r"masks: expected 1, .* got 2", {"masks": [1.0, 1.0], "params": params_with(L=2)}),
    (
        r"masks\[0\]: expected \(4, 3, 4\) or what broadcasts to it, got \(4, 2, 4\)",
        {"masks": [np.ones((4, 2, 4))], "params": params_with(L=2)},
    ),
    (r"merge: expected concat, sum, mul or ave, got 'max'", {"merge": "max"}),
    (r"merge: expected concat for one direction, got 'sum'", {"merge": "sum"}),
    (
        r"h_masks: expected \(1, 3, 4\) or what broadcasts to it, got \(2, 3, 4\)",
        {"h_masks": np.ones((2, 3, 4))},
    ),
    (
        r"keep_c: expected \(1, 4, 3, 4\) or what broadcasts to it, got \(3,\)",
        {"keep_c": np.ones(3)},
    ),
    (
        r"weight_peephole_l0: expected \(12,\), got \(16,\)",
        {"params": params_with({"weight_peephole_l0": np.zeros(16)})},
    ),
    (r"reverse: expected False for a bidirectional", {"reverse": True, "params": params_with(D=2)}),
    (r"params: missing \['weight_hh_l0', 'weight_ih_l0'\]", {"params": {}}),
    (r"missing \['bias_hh_l0'\], unknown \[\]", {"params": params_with({"bias_hh_l0": None})}),
    (
        r"missing \[\], unknown \['weight_xy_l0'\]",
        {"params": params_with({"weight_xy_l0": np.zeros(1)})},
    ),
    (
        r"missing .*'weight_ih_l1'.*unknown .*_l2'\]",
        {"params": params_with({"weight_ih_l2": np.zeros((16, 4))})},
    ),
    (
        r"missing \['bias_hh_l0_reverse'",
        {"params": params_with({"weight_ih_l0_reverse": np.zeros((16, 3))})},
    ),
    (
        r"missing .*weight_hr_l1'\]",
        {"params": params_with({"weight_hr_l0": np.zeros((4, 4))}, L=2)},
    ),
    (
        r"missing \['weight_ln_c_l0', 'weight_ln_hh_l0'\]",
        {"params": params_with({"weight_ln_ih_l0": np.zeros(16), "bias_ln_c_l0": np.zeros(4)})},
    ),
    (
        r"weight_ln_c_l0: expected \(4,\), got \(16,\)",
        {"params": params_with({"weight_ln_c_l0": np.zeros(16)}, layer_norm=True)},
    ),
    (
        r"weight_hh_l0: expected \(16, 4\), got \(16, 2\)",
        {"params": params_with({"weight_hh_l0": np.zeros((16, 2))})},
    ),
    (
        r"weight_hr_l0: expected \(4, 4\), got \(2, 4\)",
        {"params": params_with({"weight_hr_l0": np.zeros((2, 4))})},
    ),
    (
        r"weight_hh_l0: expected \(4H, P\), got \(16,\)",
        {"params": params_with({"weight_hh_l0": np.zeros(16)})},
    ),
    (
        r"weight_ih_l0: expected \(16, I\), got \(18, 3\)",
        {"params": params_with({"weight_ih_l0": np.zeros((18, 3))})},
    ),
    (
        r"bias_ih_l0: expected \(16,\), got \(4,\)",
        {"params": params_with({"bias_ih_l0": np.zeros(4)})},
    ),
    (
        r"weight_ih_l0_reverse: expected \(16, 3\), got \(16, 2\)",
        {"params": params_with({"weight_ih_l0_reverse": np.zeros((16, 2))}, D=2)},
    ),
    (
        r"weight_ih_l1: expected \(16, 8\), got \(16, 4\)",
        {"params": params_with({"weight_ih_l1": np.zeros((16, 4))}, D=2, L=2)},
    ),
]


@pytest.mark.parametrize(("message", "changes"), FORWARD_ERRORS)
def test_forward_errors(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        lstm_forward(**{"params": params_with(), "x": X, **changes})


def test_lengths_must_be_integers() -> None:
    with pytest.raises(TypeError, match="lengths: expected integers, got float64"):
        lstm_forward(params_with(), X, lengths=[1.0, 2.0, 3.0])


BACKWARD_ERRORS: list[tuple[str, dict[str, Any]]] = [
    (r"d_output: expected \(4, 3, 4\), got \(3, 3, 4\)", {"d_output": np.zeros((3, 3, 4))}),
    (r"d_h_n: expected \(1, 3, 4\), got \(\)", {"d_state": (0, 0)}),
    (
        r"d_c_n: expected \(1, 3, 4\), got \(1, 3, 1\)",
        {"d_state": (np.zeros((1, 3, 4)), np.zeros((1, 3, 1)))},
    ),
    (r"d_state: expected \(d_h_n, d_c_n\), got 3 arrays", {"d_state": (0, 0, 0)}),
]


@pytest.mark.parametrize(("message", "arguments"), BACKWARD_ERRORS)
def test_backward_errors(message: str, arguments: dict[str, Any]) -> None:
    tape = lstm_forward(params_with(), X)[2]
    with pytest.raises(ValueError, match=message):
        lstm_backward(tape, **arguments)


CELL_ERRORS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    (r"x: expected \(B, 3\), got \(2, 2\)", {"x": (2, 2)}),
    (r"h: expected \(2, 4\), got \(2, 3\)", {"h": (2, 3)}),
    (r"c: expected \(2, 4\), got \(1, 4\)", {"c": (1, 4)}),
    (r"W: expected \(16, I\), got \(12, 3\)", {"W": (12, 3)}),
    (r"R: expected \(16, 4\), got \(16, 3\)", {"R": (16, 3)}),
    (r"R: expected \(16, 4\), got \(18, 4\)", {"R": (18, 4)}),
    (r"b_W: expected \(16,\), got \(4,\)", {"b_W": (4,)}),
    (r"b_R: expected \(16,\), got \(16, 1\)", {"b_R": (16, 1)}),
    (r"W_hr: expected \(4, 4\), got \(2, 4\)", {"W_hr": (2, 4)}),
    (r"n_W, n_R, n_c: expected all of them or none", {"n_W": (16,), "n_c": (4,)}),
    (r"n_R: expected \(16,\), got \(4,\)", {"n_W": (16,), "n_R": (4,), "n_c": (4,)}),
]


@pytest.mark.parametrize(("message", "changes"), CELL_ERRORS)
def test_cell_errors(message: str, changes: dict[str, tuple[int, ...]]) -> None:
    shapes = {"x": (2, 3), "h": (2, 4), "c": (2, 4), "W": (16, 3), "R": (16, 4)}
    arguments = {name: np.zeros(shape) for name, shape in (shapes | changes).items()}
    with pytest.raises(ValueError, match=message):
        reference.lstm_cell(**arguments)


@pytest.mark.parametrize("name", ["d_h", "d_c"])
def test_cell_backward_errors(name: str) -> None:
    shapes = {"x": (2, 3), "h": (2, 4), "c": (2, 4), "W": (16, 3), "R": (16, 4)}
    arguments = {key: np.zeros(shape) for key, shape in shapes.items()}
    step = reference.lstm_cell(**arguments)
    d = {"d_h": np.zeros((2, 4)), "d_c": np.zeros((2, 4)), name: np.zeros((2, 5))}
    with pytest.raises(ValueError, match=rf"{name}: expected \(2, 4\), got \(2, 5\)"):
        reference.lstm_cell_backward(step, **arguments, **d)


# --- Documentation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", [module.name for module in pkgutil.iter_modules(reference.__path__)]
)
def test_examples(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"fastlstm.reference.{module}")).failed == 0

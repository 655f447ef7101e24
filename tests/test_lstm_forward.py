"""The forward pass of fastlstm.LSTM against the reference and PyTorch, and what it accepts."""

from __future__ import annotations

import threading

import fastlstm
import numpy as np
import pytest
from support import (
    CASES,
    DTYPES,
    Case,
    assert_same_bits,
    make_long_problem,
    make_problem,
    reference_forward,
    solve_case,
    solve_long_problem,
    torch_module,
)
from tolerances import FORWARD, LONG, TORCH_RATIO, assert_close

pytestmark = pytest.mark.every_isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_forward_is_the_reference(case: str, dtype: str) -> None:
    p, expected = make_problem(CASES[case], dtype), solve_case(case, dtype)
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    assert output.dtype == h_n.dtype == c_n.dtype == dtype
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_close(h_n, expected.state[0], FORWARD[dtype], "h_n")
    assert_close(c_n, expected.state[1], FORWARD[dtype], "c_n")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_training_computes_what_inference_does(case: str, dtype: str) -> None:
    p = make_problem(CASES[case], dtype)
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    trained, (trained_h, trained_c), _ = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_same_bits(trained, output, "output")
    assert_same_bits(trained_h, h_n, "h_n")
    assert_same_bits(trained_c, c_n, "c_n")


# PyTorch has no reverse layer and no sequence of length zero.
TORCH_CASES = {
    name: case
    for name, case in CASES.items()
    if "reverse" not in case.options
    and (case.lengths is None or min(case.lengths) > 0)
    and not name.startswith(("H=", "I=", "B=5", "B=1"))
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TORCH_CASES.values(), ids=TORCH_CASES.keys())
def test_forward_is_pytorch(case: Case, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    p = make_problem(case, dtype)
    module = torch_module(p.layer)
    x = torch.from_numpy(p.x)
    if p.lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.from_numpy(p.lengths), p.layer.batch_first, enforce_sorted=False
        )
    state = None if p.state is None else tuple(map(torch.from_numpy, p.state))
    with torch.no_grad():
        expected, (expected_h, expected_c) = module(x, state)
    if p.lengths is not None:
        expected, _ = torch.nn.utils.rnn.pad_packed_sequence(
            expected, p.layer.batch_first, total_length=case.T
        )
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected.numpy(), FORWARD[dtype], "output")
    assert_close(h_n, expected_h.numpy(), FORWARD[dtype], "h_n")
    assert_close(c_n, expected_c.numpy(), FORWARD[dtype], "c_n")


@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_thousand_steps(dtype: str) -> None:
    p, expected = make_long_problem(dtype), solve_long_problem()
    output, (h_n, c_n) = p.layer(p.x, p.state)
    assert_close(output, expected.output, LONG[dtype], "output")
    assert_close(h_n, expected.state[0], LONG[dtype], "h_n")
    assert_close(c_n, expected.state[1], LONG[dtype], "c_n")


@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["new layer", "3 times the weights"])
def test_float32_is_as_accurate_as_pytorch(scale: float) -> None:
    """T = 1000; the error is the root mean square over all outputs, against float64."""
    torch = pytest.importorskip("torch")
    p = make_problem(Case(T=1000, B=4, I=32, H=64, scale=scale, state=False), "float32")
    expected, _, _ = reference_forward(p.layer, p.x)
    with torch.no_grad():
        theirs = torch_module(p.layer)(torch.from_numpy(p.x))[0].numpy()
    ours, _ = p.layer(p.x)

    def rms(output: np.ndarray) -> float:
        return float(np.sqrt(np.mean((output - expected) ** 2)))

    def most(output: np.ndarray) -> float:
        return float(np.max(np.abs(output - expected)))

    print(
        f"\nfloat32 error at T = 1000, weights x {scale:g}: root mean square {rms(ours):.3g} "
        f"(PyTorch {rms(theirs):.3g}), largest {most(ours):.3g} (PyTorch {most(theirs):.3g})"
    )
    assert rms(ours) <= TORCH_RATIO.bound * rms(theirs)


# --- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_padding_is_never_read(value: float) -> None:
    p = make_problem(CASES["lengths, everything"], "float32")
    padded = p.x.copy()
    for b, length in enumerate(p.lengths):
        padded[b, length:] = value
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    same, (same_h, same_c) = p.layer(padded, p.state, lengths=p.lengths)
    assert_same_bits(same, output)
    assert_same_bits(same_h, h_n)
    assert_same_bits(same_c, c_n)


def test_output_past_the_end_is_zero_and_the_state_is_the_one_at_the_end() -> None:
    p = make_problem(Case(T=6, B=4, lengths=(2, 6, 0, 3)), "float64")
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    for b, length in enumerate(p.lengths):
        assert not output[length:, b].any()
        assert output[:length, b].all()
        if length > 0:
            assert_same_bits(h_n[0, b], output[length - 1, b])
    assert_same_bits(h_n[:, 2], p.state[0][:, 2], "h of the empty sequence")
    assert_same_bits(c_n[:, 2], p.state[1][:, 2], "c of the empty sequence")


@pytest.mark.parametrize(
    "lengths",
    [
        [3, 1],
        (3, 1),
        np.array([3, 1], np.int8),
        np.array([3, 1], np.uint64),
        np.array([3, 0, 1, 0], np.int32)[::2],
        np.array([3, 1], ">i8"),
    ],
    ids=["list", "tuple", "int8", "uint64", "strided", "byte-swapped"],
)
def test_kinds_of_lengths(lengths: object, rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((4, 2, 3)).astype(np.float32)
    assert_same_bits(layer(x, lengths=lengths)[0], layer(x, lengths=np.array([3, 1]))[0])


def test_lengths_of_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layer = fastlstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((4, 2, 3)).astype(np.float32)
    assert_same_bits(layer(x, lengths=torch.tensor([3, 1]))[0], layer(x, lengths=[3, 1])[0])


def test_empty_batch_takes_empty_lengths() -> None:
    output, (h_n, c_n) = fastlstm.LSTM(3, 4)(np.zeros((5, 0, 3)), lengths=[])
    assert output.shape == (5, 0, 4)
    assert h_n.shape == c_n.shape == (1, 0, 4)


# --- dropout ------------------------------------------------------------------------------------


def test_inference_has_no_dropout(rng: np.random.Generator) -> None:
    dropping = fastlstm.LSTM(3, 4, num_layers=2, dropout=0.9, seed=0)
    plain = fastlstm.LSTM(3, 4, num_layers=2, seed=0)
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    assert_same_bits(dropping(x)[0], plain(x)[0])
    assert not np.array_equal(dropping.forward(x)[0], plain(x)[0])


# --- what x and state may be --------------------------------------------------------------------


def _unaligned(x: np.ndarray) -> np.ndarray:
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = memory.view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


def _padded(x: np.ndarray) -> np.ndarray:
    """The same values with gaps between them in every axis."""
    big = np.full([2 * n for n in x.shape], 7, x.dtype)
    view = big[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


class _ArrayOnly:
    """An object that NumPy can read, and nothing more."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._array


class _DLPackOnly:
    """An array of another library."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: object) -> object:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


FORMS = {
    "fortran order": np.asfortranarray,
    "strided": _padded,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "swapped axes": lambda x: np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": _unaligned,
    "read-only": _read_only,
    "list": lambda x: x.tolist(),
    "__array__": _ArrayOnly,
    "DLPack": _DLPackOnly,
    "ndarray subclass": lambda x: x.view(type("Sub", (np.ndarray,), {})),
    "longdouble": lambda x: x.astype(np.longdouble),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_forms_of_arrays(form: object, dtype: str) -> None:
    p = make_problem(Case(options={"num_layers": 2}), dtype)
    expected, (expected_h, expected_c) = p.layer(p.x, p.state)
    output, (h_n, c_n) = p.layer(form(p.x), tuple(form(s) for s in p.state))
    assert type(output) is np.ndarray
    assert_same_bits(output, expected)
    assert_same_bits(h_n, expected_h)
    assert_same_bits(c_n, expected_c)


def test_the_core_gets_aligned_arrays() -> None:
    """x86 reads unaligned numbers as well, so that results would not tell."""
    x = _unaligned(np.ones((2, 3), np.float32))
    array = fastlstm._checks.as_float_array("x", x, np.dtype(np.float32))
    assert array.flags.aligned
    assert np.array_equal(array, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["float16", "int8", "uint32", "int64", "bool"])
def test_other_numbers_are_converted(kind: str, dtype: str, rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(3, 4, dtype=dtype, seed=0)
    x = (3 * rng.random((5, 2, 3))).astype(kind)
    assert_same_bits(layer(x)[0], layer(x.astype(dtype))[0])


def test_floats_of_the_other_width_are_converted(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 2, 3))
    single = fastlstm.LSTM(3, 4, seed=0)
    double = fastlstm.LSTM(3, 4, dtype="float64", seed=0)
    assert_same_bits(single(x)[0], single(x.astype(np.float32))[0])
    x = x.astype(np.float32)
    assert_same_bits(double(x)[0], double(x.astype(np.float64))[0])


def test_torch_tensors(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layer = fastlstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    expected, _ = layer(x)
    tensor = torch.from_numpy(x)
    for t in (
        tensor,
        tensor.double(),
        tensor.clone().requires_grad_(),
        tensor.swapaxes(0, 1).contiguous().swapaxes(0, 1),
    ):
        output, _ = layer(t)
        assert type(output) is np.ndarray
        assert_same_bits(output, expected)
    assert_same_bits(layer(tensor.half())[0], layer(x.astype(np.float16))[0])


@pytest.mark.parametrize("case", ["lengths, everything", "plain", "unbatched"])
def test_inputs_are_never_changed(case: str) -> None:
    p = make_problem(CASES[case], "float64")
    arrays = [p.x, *p.state, p.d_output, *p.d_state, *p.layer.params.values()]
    before = [a.copy() for a in arrays]
    p.layer(p.x, p.state, lengths=p.lengths)
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    tape.backward(p.d_output, p.d_state)
    p.layer.trace(p.x, p.state, lengths=p.lengths)
    for array, old in zip(arrays, before, strict=True):
        assert_same_bits(array, old)


def test_results_share_no_memory_with_arguments_or_each_other() -> None:
    p = make_problem(Case(lengths=(0, 0, 0)), "float64")
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    trained, (trained_h, trained_c), _ = p.layer.forward(p.x, p.state, lengths=p.lengths)
    arrays = [p.x, *p.state, output, h_n, c_n, trained, trained_h, trained_c]
    for k, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[k + 1 :])
    assert all(a.flags.owndata and a.flags.writeable for a in arrays[3:])


# --- out ----------------------------------------------------------------------------------------

OUT_CASES = ["plain", "batch first", "unbatched", "lengths", "two layers bidirectional", "B=0"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OUT_CASES)
def test_out(case: str, dtype: str) -> None:
    p = make_problem(CASES[case], dtype)
    output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
    out = np.full_like(output, np.nan)
    result, (result_h, result_c) = p.layer(p.x, p.state, lengths=p.lengths, out=out)
    assert result is out
    assert_same_bits(out, output)
    assert_same_bits(result_h, h_n)
    assert_same_bits(result_c, c_n)

    outs = (np.full_like(output, np.nan), (np.full_like(h_n, np.nan), np.full_like(c_n, np.nan)))
    result = p.layer(p.x, p.state, lengths=p.lengths, out=outs)
    assert result[0] is outs[0]
    assert result[1][0] is outs[1][0]
    assert result[1][1] is outs[1][1]
    assert_same_bits(outs[0], output)
    assert_same_bits(outs[1][0], h_n)
    assert_same_bits(outs[1][1], c_n)


def test_out_may_not_overlap(rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(4, 4, seed=0)
    x = rng.standard_normal((5, 2, 4)).astype(np.float32)
    h, c = np.zeros((2, 1, 2, 4), np.float32)
    before = x.copy()
    output = np.empty((5, 2, 4), np.float32)
    own = "expected memory of its own"
    with pytest.raises(ValueError, match=rf"out\[0\]: {own}, got some of x's"):
        layer(x, out=x)
    with pytest.raises(ValueError, match=rf"out\[1\]\[0\]: {own}, got some of state\[0\]'s"):
        layer(x, (h, c), out=(output, (h, np.empty_like(c))))
    with pytest.raises(ValueError, match=rf"out\[1\]\[1\]: {own}, got some of state\[1\]'s"):
        layer(x, (h, c), out=(output, (np.empty_like(h), c)))
    with pytest.raises(ValueError, match=rf"out\[1\]\[1\]: {own}, got some of out\[1\]\[0\]'s"):
        layer(x, out=(output, (h, h)))
    with pytest.raises(ValueError, match=rf"out\[1\]\[0\]: {own}, got some of out\[0\]'s"):
        layer(x, out=(output, (output[:1], np.empty_like(c))))
    memory = np.zeros(100, np.float32)
    with pytest.raises(ValueError, match=own):
        layer(memory[:40].reshape(5, 2, 4), out=memory[39:79].reshape(5, 2, 4))
    assert_same_bits(x, before)
    # Neighbours in memory are apart.
    layer(memory[:40].reshape(5, 2, 4), out=memory[40:80].reshape(5, 2, 4))


# --- special values -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 3}])
def test_nan_and_infinity_stay_in_their_row(dtype: str, options: dict[str, object]) -> None:
    p = make_problem(Case(T=8, B=4, options=options), dtype)
    clean, (clean_h, clean_c) = p.layer(p.x, p.state)
    p.x[3, 1, 0] = np.nan
    p.x[3, 2, 0] = np.inf
    output, (h_n, c_n) = p.layer(p.x, p.state)
    P = p.layer.proj_size or p.layer.hidden_size
    for b in (0, 3):
        assert_same_bits(output[:, b], clean[:, b])
        assert_same_bits(h_n[:, b], clean_h[:, b])
        assert_same_bits(c_n[:, b], clean_c[:, b])
    assert_same_bits(output[:3, 1:3, :P], clean[:3, 1:3, :P], "before the special value")
    assert np.isnan(output[3:, 1, :P]).all()
    assert np.isnan(h_n[0, 1]).all()
    assert np.isnan(c_n[0, 1]).all()
    if options.get("bidirectional"):
        assert np.isnan(output[:4, 1, P:]).all()
        assert_same_bits(output[4:, 1:3, P:], clean[4:, 1:3, P:])
    # An infinite input saturates the gates: some pre-activations are +inf, the others -inf.
    if not options:
        assert not np.isnan(output[:, 2]).any()
        expected, _, _ = reference_forward(p.layer, p.x[:, [2]], [s[:, [2]] for s in p.state])
        assert_close(output[:, [2]], expected, FORWARD[dtype], "output")


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_flow_as_in_the_reference(dtype: str, rng: np.random.Generator) -> None:
    """Where the reference is NaN the layer is, and nowhere else."""
    layer = fastlstm.LSTM(3, 5, dtype=dtype, seed=0)
    specials = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).max, np.finfo(dtype).tiny]
    for seed in range(30):
        random = np.random.default_rng(seed)
        x = random.standard_normal((4, 6, 3)).astype(dtype)
        state = tuple(random.standard_normal((2, 1, 6, 5)).astype(dtype))
        for array in (x, *state):
            array[random.random(array.shape) < 0.1] = random.choice(specials)
        output, (h_n, c_n) = layer(x, state)
        with np.errstate(all="ignore"):
            expected, (expected_h, expected_c), _ = reference_forward(layer, x, state)
        for ours, theirs in ((output, expected), (h_n, expected_h)):
            assert np.array_equal(np.isnan(ours), np.isnan(theirs))
            good = ~np.isnan(theirs)
            assert_close(ours[good], theirs[good], FORWARD[dtype], "h")
        assert np.array_equal(np.isnan(c_n), np.isnan(expected_c))
        assert np.array_equal(np.isposinf(c_n), np.isposinf(expected_c))
        assert np.array_equal(np.isneginf(c_n), np.isneginf(expected_c))


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_gates_are_exact(dtype: str) -> None:
    """With open forget and closed input gates the cell is a memory: its value never drifts."""
    layer = fastlstm.LSTM(2, 19, dtype=dtype, seed=0)
    b = np.zeros(4 * 19)
    b[:19], b[19 : 2 * 19], b[3 * 19 :] = -200.0, 200.0, 200.0
    layer.update({name: np.zeros_like(w) for name, w in layer.params.items()})
    layer.update({"bias_ih_l0": b})
    c_0 = np.linspace(-2, 2, 19).astype(dtype).reshape(1, 1, 19)
    _, (_, c_n) = layer(np.zeros((5000, 1, 2)), (np.zeros((1, 1, 19)), c_0))
    assert_same_bits(c_n, c_0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_callers_denormals_survive(dtype: str) -> None:
    """Calls treat denormals as zero inside, and leave the caller's floating-point mode alone."""
    tiny = np.full(17, np.finfo(dtype).smallest_subnormal)
    expected = (tiny * 3).tobytes()
    layer = fastlstm.LSTM(3, 4, dtype=dtype, num_layers=2, seed=0)
    x = np.ones((5, 2, 3), dtype)
    output, _, tape = layer.forward(x)
    grads = tape.backward(output)
    layer(x)
    layer.trace(x)
    stream = layer.stream(2)
    stream.step(x[0])
    stream.run(x)
    for bad in ({"lengths": [9, 9]}, {"state": 3}):
        with pytest.raises((TypeError, ValueError)):
            layer(x, **bad)
    assert (tiny * 3).tobytes() == expected
    assert (tiny / 1).all()
    assert grads.x.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_inputs_give_finite_results(dtype: str) -> None:
    p = make_problem(Case(T=40), dtype)
    p.x[:] = np.finfo(dtype).smallest_subnormal
    for s in p.state:
        s[:] = np.finfo(dtype).smallest_subnormal * 3
    output, _ = p.layer(p.x, p.state)
    expected, _, _ = reference_forward(p.layer, p.x, p.state)
    assert_close(output, expected, FORWARD[dtype], "output")


# --- concurrency --------------------------------------------------------------------------------


def test_calls_from_many_threads_while_another_updates(rng: np.random.Generator) -> None:
    """Each call sees all parameters of one update, and none of another."""
    layer = fastlstm.LSTM(6, 16, num_layers=2, seed=0)
    x = rng.standard_normal((20, 3, 6)).astype(np.float32)
    initial = layer.params
    versions = [{k: np.float32(s) * w for k, w in initial.items()} for s in (1.0, 0.5, 2.0)]
    expected = []
    for version in versions:
        layer.update(version)
        output, _, tape = layer.forward(x)
        expected.append((output, tape.backward(np.ones_like(output)).params["weight_hh_l0"]))
    failures: list[str] = []
    stop = threading.Event()

    def matches(output: np.ndarray, gradient: np.ndarray | None) -> bool:
        return any(
            np.allclose(output, known, rtol=0, atol=1e-6)
            and (gradient is None or np.allclose(gradient, known_gradient, rtol=1e-4, atol=1e-4))
            for known, known_gradient in expected
        )

    def call(k: int) -> None:
        try:
            for n in range(60):
                if (n + k) % 2:
                    output, _ = layer(x)
                    gradient = None
                else:
                    output, _, tape = layer.forward(x)
                    gradient = tape.backward(np.ones_like(output)).params["weight_hh_l0"]
                if not matches(output, gradient):
                    failures.append(f"thread {k}, call {n}: a mixture of parameters")
        except Exception as error:
            failures.append(repr(error))

    def update() -> None:
        n = 0
        while not stop.is_set():
            layer.update(versions[n % 3])
            n += 1

    updater = threading.Thread(target=update)
    callers = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in (updater, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    updater.join()
    assert failures == []


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"reverse": True}])
def test_a_call_that_is_divided_in_time(options: dict[str, bool]) -> None:
    """Long calls are computed in shares, between which they can be interrupted."""
    layer = fastlstm.LSTM(16, 128, num_layers=2, seed=0, **options)
    x = np.random.default_rng(0).normal(size=(1500, 32, 16)).astype(np.float32)
    lengths = np.random.default_rng(1).integers(0, 1500, 32, endpoint=True)
    lengths[:2] = 1500, 1499
    output, (h_n, c_n) = layer(x, lengths=lengths)
    trained, (h_t, c_t), _ = layer.forward(x, lengths=lengths)
    for row in (0, 1, 31):
        alone, (h_1, c_1) = layer(x[: lengths[row], row])
        for whole, part in (
            (output[: lengths[row], row], alone),
            (trained[: lengths[row], row], alone),
            (h_n[:, row], h_1),
            (h_t[:, row], h_1),
            (c_n[:, row], c_1),
            (c_t[:, row], c_1),
        ):
            assert_same_bits(whole, part)

"""Arrays of other libraries: wherever a layer takes arrays, with their values or refused."""

from __future__ import annotations

import collections
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm._checks import to_numpy
from support import assert_same_bits, assert_same_states

T, B, I, H = 4, 3, 5, 6
# Numbers that bfloat16 has, too.
X = np.random.default_rng(0).integers(-64, 64, (T, B, I)).astype(np.float32) / 32


@pytest.fixture
def layer() -> fastlstm.LSTM:
    return fastlstm.LSTM(I, H, seed=0)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas")


def everywhere(make: Callable[[np.ndarray], Any]) -> None:
    """Compare what a layer does with arrays and with what `make` makes of them."""
    rng = np.random.default_rng(1)

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-16, 16, shape).astype(np.float32) / 32

    x, state, d_output = X, (numbers(1, B, H), numbers(1, B, H)), numbers(T, B, H)
    params = {n: numbers(*v.shape) for n, v in fastlstm.LSTM(I, H).params.items()}
    layer, other = fastlstm.LSTM(I, H), fastlstm.LSTM(I, H)
    layer.load_state_dict(params)
    other.load_state_dict({name: make(value) for name, value in params.items()})
    other.update({"bias_ih_l0": make(params["bias_ih_l0"])})
    others = tuple(map(make, state))

    output, final, tape = layer.forward(x, state)
    other_output, other_final, other_tape = other.forward(make(x), others)
    assert_same_bits(other_output, output)
    assert_same_states(other_final, final)
    grads, other_grads = tape.backward(d_output, state), other_tape.backward(make(d_output), others)
    assert_same_bits(other_grads.x, grads.x)
    assert_same_bits(other(make(x), others)[0], output)
    assert_same_bits(other.trace(make(x), others)[0][0].h, output)

    stream = other.stream(B)
    stream.state = others
    assert_same_bits(stream.step(make(x[0])), output[0])
    assert_same_bits(stream.run(make(x[1:])), output[1:])
    assert_same_bits(fastlstm.embeddings.Embeddings(["ab", "c", "d"], make(X[0])).vectors, X[0])


def test_tensors(torch: Any) -> None:
    def negated(x: np.ndarray) -> Any:
        return torch._neg_view(torch.from_numpy(-x))

    def imaginary(x: np.ndarray) -> Any:
        return torch.complex(torch.zeros(x.shape), torch.from_numpy(-x)).conj().imag

    assert imaginary(X).is_neg()
    for make in (
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.nn.Parameter(torch.from_numpy(x)),
        lambda x: torch.from_numpy(x).bfloat16(),
        lambda x: torch.from_numpy(x).half(),
        lambda x: torch.from_numpy(x).double(),
        lambda x: torch.from_numpy(x).mT.contiguous().mT if x.ndim > 1 else torch.from_numpy(x),
        negated,
        imaginary,
        lambda x: negated(x).bfloat16(),
        lambda x: list(torch.from_numpy(x).bfloat16()),
        lambda x: list(negated(x).requires_grad_()),
    ):
        everywhere(make)


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")

    class OfJax:
        """Has DLPack, whose bfloat16 NumPy cannot read."""

        def __init__(self, x: np.ndarray) -> None:
            self.x = x.astype(ml_dtypes.bfloat16)

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.x

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("bfloat16")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    everywhere(lambda x: x.astype(ml_dtypes.bfloat16))
    everywhere(OfJax)
    everywhere(lambda x: list(map(OfJax, x)) if x.ndim > 1 else x)
    with pytest.raises(TypeError, match="x: expected real numbers, got an array of int4"):
        fastlstm.LSTM(I, H)(X.astype(ml_dtypes.int4))


class Matrix(np.ndarray):
    """A subclass."""


def test_arrays_of_numpy(tmp_path: Any) -> None:
    def mapped(x: np.ndarray) -> Any:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, x)
        return np.load(path, mmap_mode="r")

    def read_only(x: np.ndarray) -> Any:
        x = x.copy()
        x.flags.writeable = False
        return x

    for make in (
        mapped,
        read_only,
        lambda x: x.view(Matrix),
        lambda x: np.ma.array(x),
        lambda x: x[::-1].copy()[::-1],
        lambda x: np.flip(np.flip(x).copy()),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: tuple(x) if x.ndim > 1 else tuple(x.tolist()),
    ):
        everywhere(make)
    layer = fastlstm.LSTM(I, H)
    assert_same_bits(layer(X[0].view(np.matrix))[0], layer(X[0])[0])
    embeddings = fastlstm.embeddings.Embeddings(["a", "b", "c"], X[0].view(np.matrix))
    assert_same_bits(embeddings["b"], X[0, 1])


def nested(x: Any) -> Any:
    """The rows of an array in lists in lists, as the array's library has them."""
    return [nested(part) for part in x] if x.ndim > 1 else x


def test_arrays_in_nested_lists(torch: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for make in (
        lambda x: nested(x),
        lambda x: nested(torch._neg_view(torch.from_numpy(-x))),
        lambda x: nested(torch.from_numpy(x).bfloat16()),
        lambda x: nested(x.astype(ml_dtypes.bfloat16)),
        lambda x: nested(np.ma.array(x)),
        lambda x: collections.deque(nested(torch.from_numpy(x).bfloat16())),
    ):
        everywhere(make)


def test_what_is_missing_in_nested_lists(pandas: Any) -> None:
    layer = fastlstm.LSTM(2, H, seed=0)
    row, masked = np.ones(2), np.ma.array([1.0, 2.0], mask=[True, False])
    column = pandas.Series([1, None], dtype="Int64")
    pair = collections.namedtuple("pair", "a b")
    for x in (
        [[masked], [row]],
        [[row, row], [row, masked]],
        [(row,), (masked,)],
        [collections.deque([masked])],
        [pair(masked, row)],
        [[[np.ma.masked, 1.0]]],
        [[column], [row]],
        [[row, column.array]],
    ):
        for call in (layer, layer.forward, layer.stream(1).run):
            with pytest.raises(TypeError, match=r"^x: expected an array without"):
                call(x)
    with pytest.raises(TypeError, match="more than 8 axes"):
        layer([[[[[[[[[1.0]]]]]]]]])
    itself: list[Any] = []
    itself += [itself, itself]
    with pytest.raises(TypeError, match="more than 8 axes"):
        layer(itself)


def test_frames_of_pandas(pandas: Any, layer: fastlstm.LSTM) -> None:
    expected, _ = layer(X[0])
    frame = pandas.DataFrame(X[0], columns=list("abcde"))
    for other in (
        frame,
        frame.astype(float),
        frame.astype("Float32"),
        frame.astype("Float64"),
        frame.astype({"a": "Float32", "b": "Float64", "c": float}),
        frame.iloc[::-1].iloc[::-1],
    ):
        assert_same_bits(layer(other)[0], expected)
    whole = pandas.DataFrame({n: [n == "a", True, False] for n in "abcde"})
    expected, _ = layer(whole.to_numpy())
    for other in (whole, whole.astype("boolean"), whole.astype({"a": float}), whole.astype("Int8")):
        assert_same_bits(layer(other)[0], expected)

    bias = pandas.Series(np.arange(4 * H), dtype="Float64")
    layer.update({"bias_ih_l0": bias})
    assert layer.params["bias_ih_l0"].tolist() == list(range(4 * H))
    lengths = pandas.Series([4, 2, 3], dtype="Int64")
    for other in (lengths, lengths.array, lengths.astype(int), lengths.index + 1):
        layer(X, lengths=other)


@pytest.mark.parametrize("dtype", ["Float32", "Float64", "Int64", "boolean"])
def test_missing_values(dtype: str, pandas: Any, layer: fastlstm.LSTM) -> None:
    column = pandas.Series([1, 0, None], dtype=dtype)
    frame = pandas.DataFrame({"a": column, **{n: [1.0, 2.0, 3.0] for n in "bcde"}})
    embeddings = fastlstm.embeddings.Embeddings(["a"], [[1.0, 2.0, 3.0]])
    for name, call in (
        ("x", lambda: layer(frame)),
        ("x", lambda: layer([frame, frame])),
        ("lengths", lambda: layer(X, lengths=column)),
        ("lengths", lambda: layer(X, lengths=column.array)),
        ("unknown", lambda: embeddings.lookup([["b"]], unknown=column)),
    ):
        message = rf"^{name}: expected an array without missing values \(NA\)"
        with pytest.raises(TypeError, match=message):
            call()
    # NumPy's own NaN is a number among others.
    assert np.isnan(layer(frame.astype({"a": "float32"}))[0]).any()


def test_what_frames_do_not_convert(pandas: Any, layer: fastlstm.LSTM) -> None:
    frame = pandas.DataFrame(X[0], columns=list("abcde"))
    for column in (
        ["1", "2", "3"],
        pandas.Series(["1", "2", "3"], dtype="string"),
        pandas.to_datetime(["2001-01-01"] * 3),
        [1j, 1j, 1j],
        [None, 1, "a"],
    ):
        with pytest.raises(TypeError, match="x: expected real numbers, got an array of"):
            layer(frame.assign(c=column))


class WithNulls:
    """An array of Arrow's or Polars' kind."""

    def __init__(self, nulls: Any) -> None:
        self.null_count = nulls

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


class Table:
    """A table of Arrow's kind."""

    def __init__(self, *columns: WithNulls) -> None:
        self.columns = columns

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


def test_nulls(layer: fastlstm.LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", types.SimpleNamespace(Table=Table))
    layer(Table(WithNulls(0)))
    with pytest.raises(TypeError, match="x: expected an array without missing values"):
        layer(Table(WithNulls(0), WithNulls(1)))
    for nulls in (0, lambda: 0):
        layer(WithNulls(nulls))
    for nulls in (1, lambda: 2, lambda: [[0, 1]]):
        with pytest.raises(TypeError, match="x: expected an array without missing values"):
            layer(WithNulls(nulls))


def test_sequences_of_uneven_lengths(torch: Any, layer: fastlstm.LSTM) -> None:
    from torch.nn.utils import rnn

    tensors = [torch.from_numpy(X[:n, b]) for b, n in enumerate((4, 2, 1))]
    packed = rnn.pack_sequence(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are said to be new
        nested = [
            torch.nested.nested_tensor(tensors),
            torch.nested.nested_tensor(tensors, layout=torch.jagged),
        ]
    for ragged in (
        packed,
        *nested,
        tensors,
        [t.numpy() for t in tensors],
        [[[1.0]], [[1.0], [2.0]]],
    ):
        for call in (layer, layer.forward, layer.trace, layer.stream(B).run):
            with pytest.raises(TypeError, match=r"^x: expected an array, got .*lengths="):
                call(ragged)
    with pytest.raises(TypeError, match=r"^x: expected an array, got PackedSequence"):
        layer([packed])
    padded, lengths = rnn.pad_packed_sequence(packed)
    for pair in ((padded, lengths), (padded, lengths.tolist()), [padded.numpy(), lengths.numpy()]):
        with pytest.raises(TypeError, match=r"^x: expected an array, got two: .* as lengths="):
            layer(pair)
    output, _ = layer(padded, lengths=lengths)
    assert_same_bits(output[:2, 1], layer(X[:2, 1])[0])


def test_what_has_other_values_than_it_seems(torch: Any, layer: fastlstm.LSTM) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x = torch.from_numpy(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masked = torch.masked.masked_tensor(x, x > 0)
        masked_step = torch.masked.masked_tensor(x[0], x[0] > 0)
        quantised = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
        rows = x[0].to_sparse_csr()
    for other, message in (
        (masked, "MaskedTensor, which NumPy cannot read"),
        (quantised, "QInt8"),
        (x.to(torch.float8_e4m3fn), "Float8_e4m3fn"),
        (x.to_sparse(), "Sparse layout"),
        (rows, "SparseCsr layout"),
        (x.to("meta"), "meta device"),
        (x * 1j, "complex64"),
        ((x * 1j).conj(), "complex64"),
        (sparse.csr_matrix(X[0]), "csr_matrix, a sparse one"),
        (sparse.coo_array(X[0]), "coo_array, a sparse one"),
        (np.ma.masked_less(X, 0), "without masked values"),
        (list(np.ma.masked_less(X, 0)), "without masked values"),
        (X.astype(object), "an array of object"),
    ):
        for call in (layer, layer.forward, layer.stream(B).run):
            with pytest.raises(TypeError, match=f"^x: expected .*{message}"):
                call(other)
    for step in (np.ma.masked_less(X[0], 0), masked_step):
        with pytest.raises(TypeError, match=r"^x: expected"):
            layer.stream(B).step(step)
    with pytest.raises(TypeError, match=r"^vectors: expected an array without masked values"):
        fastlstm.embeddings.Embeddings(["a", "b", "c"], np.ma.masked_less(X[0], 0))


def test_a_tensor_whose_memory_was_freed() -> None:
    """NumPy would take other memory for its values."""
    torch = pytest.importorskip("torch")
    layer = fastlstm.LSTM(I, H)
    for size in (0, 8):
        module = torch.nn.LSTM(I, H)
        module.weight_hh_l0.untyped_storage().resize_(size)
        for source in (module, module.state_dict()):
            with pytest.raises(ValueError, match=r"weight_hh_l0: .*whose memory was freed"):
                fastlstm.from_torch(source)
        x = torch.zeros(T, B, I)
        x.untyped_storage().resize_(size)
        with pytest.raises(TypeError, match=r"^x: expected .*whose memory was freed"):
            layer(x)
    ends = torch.zeros(T * B * I + 1)[1:].view(B, I, T).permute(2, 0, 1)  # at its storage's end
    assert to_numpy("x", ends).shape == (T, B, I)
    for empty in (torch.zeros(0, 3), torch.zeros(5)[5:]):
        assert to_numpy("x", empty).size == 0


def test_low_memory_is_no_wrong_argument() -> None:
    class Large:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise MemoryError

    class LargeOfDLPack(Large):
        def __dlpack__(self, **_: Any) -> Any:
            raise MemoryError

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    for large in (Large(), LargeOfDLPack()):
        with pytest.raises(MemoryError):
            to_numpy("x", large)


def test_nothing_is_imported() -> None:
    """Reading arrays imports no library that made none of them."""
    code = (
        "import fastlstm, sys; fastlstm.LSTM(1, 1)([[[1.0]]]);"
        "print({'torch', 'pandas', 'ml_dtypes'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
